#include "src/model/expert_layer.hpp"

#include "src/model/expert_gradients.hpp"
#include "src/model/split_linear.hpp"

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

/// Rows of a pass that this rank routes, and those of every tensor rank.
struct RoutedRows {
    Range mine;
    std::vector<Range> all;  ///< only of split weights
};

RoutedRows routed_rows(const Weights& weights, const TokenSplit& tokens) {
    if (!weights.split()) return {tokens.mine(), {}};
    if (tokens.split()) return {tokens.mine(), {tokens.rows().begin(), tokens.rows().end()}};
    RoutedRows rows;
    const TensorPlace place = weights.part().place;
    for (int rank = 0; rank < place.degree; ++rank)
        rows.all.push_back(split(tokens.total(), place.degree, rank));
    rows.mine = rows.all[static_cast<std::size_t>(place.rank)];
    return rows;
}

/// All rows of a matrix of which this rank has those that it routes.
Matrix all_rows(Compute& compute, const Weights& weights, const RoutedRows& rows,
                std::string_view label, Matrix mine) {
    if (!weights.split()) return mine;
    const Matrix whole = compute.matrix(rows.all.back().end, mine.cols);
    sums::all_gather(compute.tools(), weights.tensor(), label, rows.all, mine, whole);
    return whole;
}

/// at.output of experts that this rank has all.
void held_forward(Compute& compute, const ExpertWeights& w, ConstMatrix x, ExpertActivations& at) {
    kernels::Device& device = compute.device;
    kernels::Stream& stream = compute.stream;
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
}

/// to = the weighted output of the experts for normed rows x.
void routed_forward(Compute& compute, const Weights& weights, std::int64_t layer, ConstMatrix x,
                    ExpertActivations& at, Matrix to) {
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
    if (weights.shares_experts()) {
        at.plan = plan_dispatch(weights, at.rows.experts);
        dispatched_forward(compute, weights, layer, *at.plan, x, at.rows.tokens, at.output);
    } else {
        held_forward(compute, w, x, at);
    }
    device.combine_rows(
        {.from = at.output, .weights = at.weights, .rows = at.rows.places, .to = to}, stream);
}

/// dinput of the experts' outputs, this rank having all of them. x: all normed rows.
void held_backward(Compute& compute, const Weights& weights, std::int64_t layer,
                   const TokenSplit& tokens, const ExpertActivations& kept, ConstMatrix x,
                   ConstMatrix doutput, WeightGradients& gradients, Matrix dinput) {
    const ExpertWeights& w = *weights.layer(layer).experts;
    const LayerIds& ids = weights.parameters().layer(layer);
    kernels::Device& device = compute.device;
    kernels::Stream& stream = compute.stream;
    const Matrix dactivated = compute.matrix(doutput.rows, kept.activated.cols);
    for_experts(kept.rows, [&](std::size_t expert, Range own) {
        device.matmul({.x = doutput.row_range(own),
                       .w = w.routed[expert].down_back,
                       .y = dactivated.row_range(own)},
                      stream);
    });
    const Matrix dgate_up = gradients.matrix(doutput.rows, kept.gate_up.cols);
    device.swiglu_backward({.gate_up = kept.gate_up, .dout = dactivated, .dgate_up = dgate_up},
                           stream);
    gradients.add([&compute, &weights, &ids, &kept, layer, own = tokens.mine(), x, dgate_up,
                   doutput](GradientSink& sink) {
        sink.expert_load(layer, kept.rows.experts);
        const Matrix input = dispatch(compute, x.row_range(own), kept.rows);
        routed_gradients(compute, weights, ids.experts, kept.rows.experts,
                         {input, kept.activated, dgate_up, doutput}, x.rows, sink);
    });
    for_experts(kept.rows, [&](std::size_t expert, Range own) {
        device.matmul({.x = dgate_up.row_range(own),
                       .w = w.routed[expert].gate_up_back,
                       .y = dinput.row_range(own)},
                      stream);
    });
}

/// The same of experts that are shared out. x: this rank's normed rows.
void shared_out_backward(Compute& compute, const Weights& weights, std::int64_t layer,
                         const ExpertActivations& kept, ConstMatrix x, ConstMatrix doutput,
                         WeightGradients& gradients, Matrix dinput) {
    dispatched_backward(compute, weights, layer, *kept.plan, x, kept.rows.tokens, doutput, dinput,
                        gradients.now());
    gradients.add([&compute, &weights, &kept, layer, x, doutput,
                   later = gradients.now() == nullptr](GradientSink& sink) {
        sink.expert_load(layer, kept.rows.experts);
        if (later)
            dispatched_backward(compute, weights, layer, *kept.plan, x, kept.rows.tokens, doutput,
                                {}, &sink);
    });
}

/// The same where the ranks of a chunk are in several groups: each brings back what the gradients
/// of weights need, which are then summed as where every rank has all experts. x: all normed rows.
void several_groups_backward(Compute& compute, const Weights& weights, std::int64_t layer,
                             const TokenSplit& tokens, const ExpertActivations& kept, ConstMatrix x,
                             ConstMatrix doutput, WeightGradients& gradients, Matrix dinput) {
    const std::int64_t width = weights.config().experts.intermediate;
    const InnerRows inner{gradients.matrix(doutput.rows, width),
                          gradients.matrix(doutput.rows, 2 * width)};
    dispatched_backward(compute, weights, layer, *kept.plan, x.row_range(tokens.mine()),
                        kept.rows.tokens, doutput, dinput, nullptr, &inner);
    const LayerIds& ids = weights.parameters().layer(layer);
    gradients.add([&compute, &weights, &ids, &kept, layer, own = tokens.mine(), x, inner,
                   doutput](GradientSink& sink) {
        sink.expert_load(layer, kept.rows.experts);
        const Matrix input = dispatch(compute, x.row_range(own), kept.rows);
        routed_gradients(compute, weights, ids.experts, kept.rows.experts,
                         {input, inner.activated, inner.dgate_up, doutput}, x.rows, sink);
    });
}

/// x: all normed rows; dy, dx: those of this rank. dx = router's, then experts ascending.
void routed_backward(Compute& compute, const Weights& weights, std::int64_t layer,
                     const TokenSplit& tokens, const ExpertActivations& kept, ConstMatrix x,
                     ConstMatrix dy, WeightGradients& gradients, Matrix dx) {
    const ModelConfig& config = weights.config();
    const ExpertsConfig& experts = config.experts;
    const ExpertWeights& w = *weights.layer(layer).experts;
    const LayerIds& ids = weights.parameters().layer(layer);
    kernels::Device& device = compute.device;
    kernels::Stream& stream = compute.stream;
    const std::int64_t rows = dy.rows;
    const std::int64_t taken = rows * experts.chosen;

    const Matrix doutput = gradients.matrix(taken, config.hidden);
    const Matrix dweights = compute.matrix(rows, experts.chosen);
    device.combine_rows_backward({.dto = dy,
                                  .from = kept.output,
                                  .weights = kept.weights,
                                  .rows = kept.rows.places,
                                  .dfrom = doutput,
                                  .dweights = dweights},
                                 stream);
    const Matrix dinput = compute.matrix(taken, config.hidden);
    if (weights.splits_chunks_over_experts()) {
        several_groups_backward(compute, weights, layer, tokens, kept, x, doutput, gradients,
                                dinput);
    } else if (weights.shares_experts()) {
        shared_out_backward(compute, weights, layer, kept, x.row_range(tokens.mine()), doutput,
                            gradients, dinput);
    } else {
        held_backward(compute, weights, layer, tokens, kept, x, doutput, gradients, dinput);
    }

    const Matrix own_dlogits = gradients.matrix(rows, experts.routed);
    device.gating_backward({.scores = kept.scores,
                            .dweights = dweights,
                            .experts = kept.chosen,
                            .routing = routing_of(experts),
                            .dlogits = own_dlogits},
                           stream);
    gradients.add(
        [&compute, &weights, tokens, id = ids.router, own_dlogits, x](GradientSink& sink) {
            const ConstMatrix dlogits =
                whole_rows(compute, weights, tokens, "gradients:router", own_dlogits);
            shared_gradient(compute, weights, id, dlogits, x, sink);
        });
    device.matmul({.x = own_dlogits, .w = w.router_back, .y = dx}, stream);
    device.combine_rows({.from = dinput,
                         .weights = {},
                         .rows = kept.rows.places,
                         .to = dx,
                         .output = Output::resume},
                        stream);
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

ExpertActivations allocate_experts(Compute& compute, const Weights& weights,
                                   const TokenSplit& tokens, bool keep) {
    const auto matrix = [&](std::int64_t count, std::int64_t cols) {
        return keep ? compute.kept_matrix(count, cols) : compute.matrix(count, cols);
    };
    const ModelConfig& config = weights.config();
    const ExpertsConfig& experts = config.experts;
    const std::int64_t rows = routed_rows(weights, tokens).mine.size();
    const std::int64_t taken = rows * experts.chosen;
    const std::int64_t shared = weights.part().shared.size();
    ExpertActivations at;
    at.scores = matrix(rows, experts.routed);
    at.weights = matrix(rows, experts.chosen);
    at.chosen.resize(static_cast<std::size_t>(taken));
    if (!weights.shares_experts()) {
        at.gate_up = matrix(taken, 2 * experts.intermediate);
        at.activated = matrix(taken, experts.intermediate);
    }
    at.output = matrix(taken, config.hidden);
    if (shared > 0) {
        at.shared_gate_up = matrix(tokens.total(), 2 * shared);
        at.shared_activated = matrix(tokens.total(), shared);
    }
    return at;
}

void experts_forward(Compute& compute, const Weights& weights, std::int64_t layer,
                     const TokenSplit& tokens, ConstMatrix x, ExpertActivations& at, Matrix y) {
    const kernels::Arena::Scope scope(compute.arena);
    const ExpertWeights& w = *weights.layer(layer).experts;
    kernels::Device& device = compute.device;
    kernels::Stream& stream = compute.stream;
    const RoutedRows own = routed_rows(weights, tokens);

    const Matrix routed = compute.matrix(own.mine.size(), y.cols);
    routed_forward(compute, weights, layer, x.row_range(own.mine), at, routed);
    if (compute.probe) {
        const kernels::Arena::Scope probe_scope(compute.arena);
        compute.probe(
            {layer, "router", all_rows(compute, weights, own, "probe:experts", at.scores)});
    }
    // Where every rank has the whole stream it gets what the others have computed.
    const Matrix mixed =
        tokens.split() ? routed : all_rows(compute, weights, own, "activations:experts", routed);
    if (weights.config().experts.shared > 0) {
        if (!weights.part().shared.empty()) {
            device.matmul({.x = x, .w = w.shared.gate_up, .y = at.shared_gate_up}, stream);
            device.swiglu({.gate_up = at.shared_gate_up, .out = at.shared_activated}, stream);
        }
        row_split_matmul(compute, weights, tokens, "sums:shared experts",
                         weights.tensor_sums().shared, at.shared_activated, w.shared.down, {},
                         Output::add, mixed);
    }
    if (compute.probe) {
        const kernels::Arena::Scope probe_scope(compute.arena);
        compute.probe(
            {layer, "experts", whole_rows(compute, weights, tokens, "probe:experts", mixed)});
    }
    device.add({.from = mixed, .to = y}, stream);
}

void experts_backward(Compute& compute, const Weights& weights, std::int64_t layer,
                      const TokenSplit& tokens, const ExpertActivations& kept, ConstMatrix x,
                      ConstMatrix dy, WeightGradients& gradients, Matrix dx) {
    const ExpertsConfig& experts = weights.config().experts;
    const ExpertWeights& w = *weights.layer(layer).experts;
    const LayerIds& ids = weights.parameters().layer(layer);
    routed_backward(compute, weights, layer, tokens, kept, x, dy.row_range(tokens.mine()),
                    gradients, dx);
    if (experts.shared == 0) return;
    kernels::Device& device = compute.device;
    kernels::Stream& stream = compute.stream;
    const std::int64_t shared = weights.part().shared.size();
    const Matrix dshared_gate_up = gradients.matrix(x.rows, 2 * shared);
    if (shared > 0) {
        const Matrix dshared = compute.matrix(x.rows, shared);
        device.matmul({.x = dy, .w = w.shared.down_back, .y = dshared}, stream);
        device.swiglu_backward(
            {.gate_up = kept.shared_gate_up, .dout = dshared, .dgate_up = dshared_gate_up}, stream);
        gradients.add([&compute, mlp = ids.shared,
                       rows = MlpRows{x, kept.shared_activated, dshared_gate_up, dy}](
                          GradientSink& sink) { mlp_gradients(compute, mlp, rows, sink); });
    }
    row_split_matmul(compute, weights, tokens, "sums:dnormed shared experts",
                     weights.tensor_sums().shared, dshared_gate_up, w.shared.gate_up_back, {},
                     Output::add, dx);
}

}  // namespace rankwise::model
