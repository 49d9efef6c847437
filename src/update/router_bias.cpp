#include "src/update/router_bias.hpp"

#include <numeric>

namespace rankwise::update {

void level_router_biases(model::Compute& compute, model::Weights& weights,
                         parallel::Communicator& data, ExpertLoads loads, double rate) {
    const std::vector<model::LayerIds>& layers = weights.parameters().layers;
    for (std::size_t layer = 0; layer < layers.size(); ++layer) {
        const ParameterId id = layers[layer].router_bias;
        if (id < 0 || !weights.pipeline_part().holds_layer(static_cast<std::int64_t>(layer)))
            continue;
        std::vector<std::int64_t>& load = loads[layer];
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
