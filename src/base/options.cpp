#include "src/base/options.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace rankwise {
namespace {

struct Printer {
    std::string operator()(const bool* value) const { return *value ? "true" : "false"; }
    std::string operator()(const std::int64_t* value) const { return fmt::format("{}", *value); }
    std::string operator()(const double* value) const { return fmt::format("{}", *value); }
    std::string operator()(const std::string* value) const { return *value; }
    template <class T>
    std::string operator()(const std::vector<T>* values) const {
        return fmt::format("{}", fmt::join(*values, ", "));
    }
};

}  // namespace

std::string to_text(const OptionTarget& target) {
    return std::visit(Printer{}, target);
}

}  // namespace rankwise
