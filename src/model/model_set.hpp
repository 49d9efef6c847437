// The named models of a run.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "src/model/weights.hpp"

namespace rankwise::model {

/// name → weights, on the device. The policy is "policy", its reference "reference"; a stage may
/// add others.
class ModelSet {
  public:
    /// @throws InternalError if the name is taken.
    Weights& add(const std::string& name, std::unique_ptr<Weights> weights);
    [[nodiscard]] bool has(const std::string& name) const { return models_.contains(name); }
    /// @throws InternalError if there is none.
    [[nodiscard]] Weights& at(const std::string& name);
    void remove(const std::string& name) { models_.erase(name); }
    [[nodiscard]] const std::map<std::string, std::unique_ptr<Weights>>& all() const {
        return models_;
    }

  private:
    std::map<std::string, std::unique_ptr<Weights>> models_;
};

}  // namespace rankwise::model
