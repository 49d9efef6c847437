#include "src/base/parameter_table.hpp"

namespace rankwise {

ParameterId ParameterTable::add(Parameter parameter) {
    const auto id = narrow<ParameterId>(rows_.size());
    const bool fresh = ids_.emplace(parameter.name, id).second;
    ensure(fresh, "parameter {} is in the table twice", parameter.name);
    rows_.push_back(std::move(parameter));
    return id;
}

ParameterId ParameterTable::id(std::string_view name) const {
    const auto found = ids_.find(std::string(name));
    ensure(found != ids_.end(), "no parameter is named {}", name);
    return found->second;
}

bool ParameterTable::has(std::string_view name) const {
    return ids_.contains(std::string(name));
}

std::int64_t ParameterTable::elements() const {
    std::int64_t total = 0;
    for (const Parameter& parameter : rows_) total += parameter.shape.size();
    return total;
}

Range zero_rows(Shape shape, std::int64_t ranks, std::int64_t rank, std::int64_t turn) {
    // Rows ascend with the ranks; `turn` shifts which ranks get more where they do not divide
    // evenly, or every vector would land on the last rank.
    const auto begin = [&](std::int64_t r) { return (r * shape.rows + turn % ranks) / ranks; };
    return {begin(rank), begin(rank + 1)};
}

}  // namespace rankwise
