#include "src/model/model_set.hpp"

namespace rankwise::model {

Weights& ModelSet::add(const std::string& name, std::unique_ptr<Weights> weights) {
    const auto [found, fresh] = models_.emplace(name, std::move(weights));
    ensure(fresh, "there is a model named {} already", name);
    return *found->second;
}

Weights& ModelSet::at(const std::string& name) {
    const auto found = models_.find(name);
    ensure(found != models_.end(), "there is no model named {}", name);
    return *found->second;
}

}  // namespace rankwise::model
