#include "src/model/packed_copy.hpp"

namespace rankwise::model {

using kernels::ConstMatrix;

std::vector<ConstMatrix> stacked(const ParameterRows& rows,
                                 std::initializer_list<ParameterId> ids) {
    std::vector<ConstMatrix> all;
    for (const ParameterId id : ids) {
        const std::span<const ConstMatrix> some = rows(id);
        all.insert(all.end(), some.begin(), some.end());
    }
    return all;
}

std::vector<ConstMatrix> rows_within(const ParameterRows& rows, ParameterId id, Range range) {
    std::vector<ConstMatrix> all;
    std::int64_t first = 0;
    for (const ConstMatrix& piece : rows(id)) {
        const Range here = intersect(range, {first, first + piece.rows});
        if (!here.empty()) all.push_back(piece.row_range({here.begin - first, here.end - first}));
        first += piece.rows;
    }
    return all;
}

DeviceSpan<const float> vector_of(const ParameterRows& rows, ParameterId id) {
    if (id < 0) return {};
    const std::span<const ConstMatrix> some = rows(id);
    ensure(some.size() == 1, "a vector in {} pieces", some.size());
    return {reinterpret_cast<const float*>(some[0].handle), some[0].cols};
}

}  // namespace rankwise::model
