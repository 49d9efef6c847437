#include "src/update/router_bias.hpp"

#include <numeric>

namespace rankwise::update {

void level_router_biases(model::Compute& compute, model::Weights& weights,
                         parallel::Communicator& data, ExpertLoads loads, double rate) {
    compute.will_change();
    for (std::int64_t layer = 0; layer < std::ssize(loads); ++layer) {
        const ParameterId id = weights.parameters().layer(layer).router_bias;
        if (id < 0 || !holds(weights.pipeline_part(), weights.parameters(), id)) continue;
        std::vector<std::int64_t>& load = loads[static_cast<std::size_t>(layer)];
        data.all_reduce_sum("router load", load);
        if (weights.split()) weights.tensor().all_reduce_sum("router load", load);
        const std::int64_t total = std::accumulate(load.begin(), load.end(), std::int64_t{0});
        const DeviceSpan<float> span = weights.master_span(id);
        if (total == 0 || span.empty()) continue;
        std::vector<float> bias = compute.device.kernels::Memory::download<float>(
            DeviceSpan<const float>(span), compute.stream);
        const auto step = static_cast<float>(rate);
        const std::int64_t experts = std::ssize(load);
        for (std::size_t expert = 0; expert < bias.size(); ++expert) {
            const std::int64_t own = load[expert] * experts;
            if (own < total) bias[expert] += step;
            if (own > total) bias[expert] -= step;
        }
        compute.device.kernels::Memory::upload<float>(std::span<const float>(bias), span,
                                                      compute.stream);
    }
}

}  // namespace rankwise::update
