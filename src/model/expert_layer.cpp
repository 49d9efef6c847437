#include "src/model/expert_layer.hpp"

#include <array>

#include "src/model/linear_gradients.hpp"

namespace rankwise::model {
namespace {

using kernels::ConstMatrix;
using kernels::Matrix;
using kernels::Output;

kernels::Routing routing_of(const ExpertsConfig& experts) {
    return {.scoring = experts.scoring,
            .experts = experts.routed,
            .chosen = experts.chosen,
            .groups = experts.groups,
            .kept_groups = experts.kept_groups,
            .group_score = experts.method == ChoiceMethod::noaux_tc
                               ? kernels::GroupScore::two_largest
                               : kernels::GroupScore::largest,
            .normalise = experts.normalise,
            .scale = static_cast<float>(experts.scale)};
}

/// Weight gradients of a gated MLP.
void mlp_gradients(Compute& compute, const MlpIds& ids, ConstMatrix x, ConstMatrix activated,
                   ConstMatrix dgate_up, ConstMatrix dy, GradientSink& gradients) {
    const std::int64_t inner = activated.cols;
    linear_gradients(compute, std::array{Linear{ids.down, -1, {0, dy.cols}}}, dy, activated,
                     gradients);
    linear_gradients(
        compute,
        std::array{Linear{ids.gate, -1, {0, inner}}, Linear{ids.up, -1, {inner, 2 * inner}}},
        dgate_up, x, gradients);
}

/// What an expert without tokens gives its weights: the number that changes no sum it is added to.
void no_gradients(Compute& compute, const MlpIds& ids, GradientSink& gradients) {
    for (const ParameterId id : {ids.down, ids.gate, ids.up}) {
        const GradientSlot slot = gradients.slot(id);
        if (slot.output == Output::store)
            compute.device.fill({.to = slot.matrix, .value = -0.0F}, compute.stream);
    }
}

/// Calls each(index, rows) for the experts that have rows.
template <class Each>
void for_experts(const ExpertRows& rows, const Each& each) {
    for (std::size_t expert = 0; expert < rows.experts.size(); ++expert) {
        if (!rows.experts[expert].empty()) each(expert, rows.experts[expert]);
    }
}

/// The rows of x that experts read, sorted as theirs.
Matrix dispatch(Compute& compute, ConstMatrix x, const ExpertRows& rows) {
    const Matrix input = compute.matrix(std::ssize(rows.tokens), x.cols);
    compute.device.gather_rows({.from = x, .rows = rows.tokens, .to = input}, compute.stream);
    return input;
}

}  // namespace

ExpertRows sort_by_expert(std::span<const std::int32_t> chosen, std::int64_t experts,
                          std::int64_t each) {
    ExpertRows rows;
    std::vector<std::int64_t> next(static_cast<std::size_t>(experts), 0);
    for (const std::int32_t expert : chosen) ++next[static_cast<std::size_t>(expert)];
    std::int64_t end = 0;
    for (std::int64_t& count : next) {
        rows.experts.push_back({end, end + count});
        end += count;
        count = rows.experts.back().begin;
    }
    rows.tokens.resize(chosen.size());
    rows.places.reserve(chosen.size());
    for (std::size_t i = 0; i < chosen.size(); ++i) {
        const std::int64_t place = next[static_cast<std::size_t>(chosen[i])]++;
        rows.places.push_back(place);
        rows.tokens[static_cast<std::size_t>(place)] = static_cast<std::int64_t>(i) / each;
    }
    return rows;
}

ExpertActivations allocate_experts(Compute& compute, const Weights& weights, std::int64_t rows,
                                   bool keep) {
    const auto matrix = [&](std::int64_t count, std::int64_t cols) {
        return keep ? compute.kept_matrix(count, cols) : compute.matrix(count, cols);
    };
    const ModelConfig& config = weights.config();
    const ExpertsConfig& experts = config.experts;
    const std::int64_t taken = rows * experts.chosen;
    const std::int64_t shared = experts.shared_intermediate();
    ExpertActivations at;
    at.scores = matrix(rows, experts.routed);
    at.weights = matrix(rows, experts.chosen);
    at.chosen.resize(static_cast<std::size_t>(taken));
    at.gate_up = matrix(taken, 2 * experts.intermediate);
    at.activated = matrix(taken, experts.intermediate);
    at.output = matrix(taken, config.hidden);
    if (shared > 0) {
        at.shared_gate_up = matrix(rows, 2 * shared);
        at.shared_activated = matrix(rows, shared);
    }
    return at;
}

void experts_forward(Compute& compute, const Weights& weights, std::int64_t layer, ConstMatrix x,
                     ExpertActivations& at, Matrix y) {
    const kernels::Arena::Scope scope(compute.arena);
    const ExpertsConfig& experts = weights.config().experts;
    const ExpertWeights& w = *weights.layer(layer).experts;
    kernels::Device& device = compute.device;
    kernels::Stream& stream = compute.stream;

    device.matmul({.x = x, .w = w.router, .y = at.scores}, stream);
    device.gating({.logits = at.scores,
                   .bias = w.bias,
                   .routing = routing_of(experts),
                   .scores = at.scores,
                   .weights = at.weights,
                   .experts = at.chosen},
                  stream);
    at.rows = sort_by_expert(at.chosen, experts.routed, experts.chosen);
    if (compute.probe) compute.probe(layer, "router", at.scores);

    const Matrix input = dispatch(compute, x, at.rows);
    for_experts(at.rows, [&](std::size_t expert, Range own) {
        device.matmul({.x = input.row_range(own),
                       .w = w.routed[expert].gate_up,
                       .y = at.gate_up.row_range(own)},
                      stream);
    });
    device.swiglu({.gate_up = at.gate_up, .out = at.activated}, stream);
    for_experts(at.rows, [&](std::size_t expert, Range own) {
        device.matmul({.x = at.activated.row_range(own),
                       .w = w.routed[expert].down,
                       .y = at.output.row_range(own)},
                      stream);
    });
    const Matrix mixed = compute.matrix(x.rows, y.cols);
    device.combine_rows(
        {.from = at.output, .weights = at.weights, .rows = at.rows.places, .to = mixed}, stream);
    if (experts.shared > 0) {
        device.matmul({.x = x, .w = w.shared.gate_up, .y = at.shared_gate_up}, stream);
        device.swiglu({.gate_up = at.shared_gate_up, .out = at.shared_activated}, stream);
        device.matmul(
            {.x = at.shared_activated, .w = w.shared.down, .y = mixed, .output = Output::add},
            stream);
    }
    if (compute.probe) compute.probe(layer, "experts", mixed);
    device.add({.from = mixed, .to = y}, stream);
}

void experts_backward(Compute& compute, const Weights& weights, std::int64_t layer,
                      const ExpertActivations& kept, ConstMatrix x, ConstMatrix dy,
                      WeightGradients& gradients, Matrix dx) {
    const ModelConfig& config = weights.config();
    const ExpertsConfig& experts = config.experts;
    const ExpertWeights& w = *weights.layer(layer).experts;
    const LayerIds& ids = weights.parameters().layers[static_cast<std::size_t>(layer)];
    kernels::Device& device = compute.device;
    kernels::Stream& stream = compute.stream;
    const std::int64_t tokens = x.rows;
    const std::int64_t taken = tokens * experts.chosen;

    const Matrix doutput = gradients.matrix(taken, config.hidden);
    const Matrix dweights = compute.matrix(tokens, experts.chosen);
    device.combine_rows_backward({.dto = dy,
                                  .from = kept.output,
                                  .weights = kept.weights,
                                  .rows = kept.rows.places,
                                  .dfrom = doutput,
                                  .dweights = dweights},
                                 stream);
    const Matrix dactivated = compute.matrix(taken, experts.intermediate);
    for_experts(kept.rows, [&](std::size_t expert, Range own) {
        device.matmul({.x = doutput.row_range(own),
                       .w = w.routed[expert].down_back,
                       .y = dactivated.row_range(own)},
                      stream);
    });
    const Matrix dgate_up = gradients.matrix(taken, 2 * experts.intermediate);
    device.swiglu_backward({.gate_up = kept.gate_up, .dout = dactivated, .dgate_up = dgate_up},
                           stream);
    gradients.add([&compute, &ids, &kept, layer, x, dgate_up, doutput](GradientSink& sink) {
        sink.expert_load(layer, kept.rows.experts);
        const Matrix input = dispatch(compute, x, kept.rows);
        for (std::size_t expert = 0; expert < kept.rows.experts.size(); ++expert) {
            const Range own = kept.rows.experts[expert];
            if (own.empty()) {
                no_gradients(compute, ids.experts[expert], sink);
                continue;
            }
            mlp_gradients(compute, ids.experts[expert], input.row_range(own),
                          kept.activated.row_range(own), dgate_up.row_range(own),
                          doutput.row_range(own), sink);
        }
    });
    const Matrix dinput = compute.matrix(taken, config.hidden);
    for_experts(kept.rows, [&](std::size_t expert, Range own) {
        device.matmul({.x = dgate_up.row_range(own),
                       .w = w.routed[expert].gate_up_back,
                       .y = dinput.row_range(own)},
                      stream);
    });

    const Matrix dlogits = gradients.matrix(tokens, experts.routed);
    device.gating_backward({.scores = kept.scores,
                            .dweights = dweights,
                            .experts = kept.chosen,
                            .routing = routing_of(experts),
                            .dlogits = dlogits},
                           stream);
    gradients.add([&compute, id = ids.router, dlogits, x](GradientSink& sink) {
        linear_gradients(compute, std::array{Linear{id, -1, {0, dlogits.cols}}}, dlogits, x, sink);
    });
    device.matmul({.x = dlogits, .w = w.router_back, .y = dx}, stream);
    device.combine_rows({.from = dinput,
                         .weights = {},
                         .rows = kept.rows.places,
                         .to = dx,
                         .output = Output::resume},
                        stream);
    if (experts.shared == 0) return;
    const Matrix dshared = compute.matrix(tokens, experts.shared_intermediate());
    device.matmul({.x = dy, .w = w.shared.down_back, .y = dshared}, stream);
    const Matrix dshared_gate_up = gradients.matrix(tokens, 2 * experts.shared_intermediate());
    device.swiglu_backward(
        {.gate_up = kept.shared_gate_up, .dout = dshared, .dgate_up = dshared_gate_up}, stream);
    gradients.add([&compute, mlp = ids.shared, x, activated = kept.shared_activated,
                   dshared_gate_up, dy](GradientSink& sink) {
        mlp_gradients(compute, mlp, x, activated, dshared_gate_up, dy, sink);
    });
    device.matmul(
        {.x = dshared_gate_up, .w = w.shared.gate_up_back, .y = dx, .output = Output::add}, stream);
}

}  // namespace rankwise::model
