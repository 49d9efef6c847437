#include "src/base/box.hpp"

namespace rankwise {

std::string to_string(Shape shape) {
    return shape.vector ? fmt::format("[{}]", shape.cols)
                        : fmt::format("[{}, {}]", shape.rows, shape.cols);
}

std::string to_string(const Box& box) {
    return fmt::format("[{}:{}, {}:{}]", box.rows.begin, box.rows.end, box.cols.begin,
                       box.cols.end);
}

}  // namespace rankwise
