// Gradients of one update on one rank, by name.
#pragma once

#include <map>
#include <string>

#include "src/update/trainer.hpp"
#include "tests/support/small_model.hpp"

namespace rankwise::test {

/// By parameter, its whole gradient.
using Gradients = std::map<std::string, std::vector<float>>;

inline Gradients gradients_of(const SmallModel& model, const update::Trainer& trainer) {
    Gradients gradients;
    for (ParameterId id = 0; id < model.weights.table().count(); ++id) {
        const kernels::ConstMatrix whole = trainer.gradients().whole(id);
        gradients[model.weights.table()[id].name] = model.device.get(DeviceSpan<const float>(
            reinterpret_cast<const float*>(whole.handle), whole.rows * whole.cols));
    }
    return gradients;
}

inline double l2_of(const std::vector<float>& values) {
    double squares = 0.0;
    for (const float value : values) squares += static_cast<double>(value) * value;
    return std::sqrt(squares);
}

/// The largest difference between two gradients of one parameter, as a share of its norm, over all
/// parameters.
inline double relative_difference(const Gradients& a, const Gradients& b) {
    double largest = 0.0;
    for (const auto& [name, values] : a) {
        const double norm = l2_of(values);
        for (std::size_t i = 0; i < values.size(); ++i) {
            const double difference = std::abs(static_cast<double>(values[i]) - b.at(name)[i]);
            if (difference > 0.0) largest = std::max(largest, difference / norm);
        }
    }
    return largest;
}

}  // namespace rankwise::test
