#include "src/model/dispatched_experts.hpp"

#include <algorithm>
#include <numeric>
#include <optional>

#include "src/model/split_linear.hpp"

namespace rankwise::model {
namespace {

using kernels::ConstMatrix;
using kernels::Matrix;
using kernels::Output;
using parallel::DispatchPlan;

/// The rows that this rank sends in a round, from its sorted ones.
std::vector<std::int64_t> sent_rows(const DispatchPlan::Round& round) {
    std::vector<std::int64_t> rows;
    for (const Range range : round.sent) {
        for (std::int64_t row = range.begin; row < range.end; ++row) rows.push_back(row);
    }
    return rows;
}

std::vector<std::int64_t> inverse_of(std::span<const std::int64_t> order) {
    std::vector<std::int64_t> places(order.size());
    for (std::size_t i = 0; i < order.size(); ++i)
        places[static_cast<std::size_t>(order[i])] = static_cast<std::int64_t>(i);
    return places;
}

/// Calls each(index among this rank's experts, rows) for the experts of a round: their chunks
/// follow each other.
template <class Each>
void for_experts_of(const DispatchPlan& plan, const DispatchPlan::Round& round, const Each& each) {
    for (std::size_t s = 0; s < round.segments.size();) {
        const std::int64_t expert = round.segments[s].expert;
        Range rows = round.segments[s].rows;
        for (++s; s < round.segments.size() && round.segments[s].expert == expert; ++s)
            rows.end = round.segments[s].rows.end;
        each(static_cast<std::size_t>(expert - plan.own().begin), rows);
    }
}

/// How rows of some width travel between the ranks that route them and those that compute them, in
/// buffers that serve all rounds.
class Ferry {
  public:
    /// @param routed  rows that this rank routes in all
    Ferry(Compute& compute, const Weights& weights, std::int64_t routed, std::int64_t most,
          std::int64_t width)
        : compute_(compute),
          axis_(*weights.experts().axis),
          here_(compute.matrix(routed, width)),
          moved_(compute.matrix(most, width)),
          there_(compute.matrix(most, width)) {}

    /// Rows of `from`, one for each row that is sent, as the holder computes them.
    [[nodiscard]] Matrix there(const DispatchPlan::Round& round, ConstMatrix from,
                               std::span<const std::int64_t> rows) {
        const Matrix sent = here_.row_range({0, std::ssize(rows)});
        const auto count = static_cast<std::int64_t>(round.order.size());
        const Matrix received = moved_.row_range({0, count});
        const Matrix ordered = there_.row_range({0, count});
        compute_.device.gather_rows({.from = from, .rows = rows, .to = sent}, compute_.stream);
        sums::exchange_rows(compute_.tools(), axis_, "activations:experts", sent,
                            sums::sizes_of(round.sent), round.received, received);
        compute_.device.gather_rows({.from = received, .rows = round.order, .to = ordered},
                                    compute_.stream);
        return ordered;
    }
    /// And back: into the rows of `to` that were sent.
    void back(const DispatchPlan::Round& round, ConstMatrix computed, Matrix to) {
        const Matrix received = moved_.row_range({0, computed.rows});
        const std::vector<std::int64_t> counts = sums::sizes_of(round.sent);
        const Matrix sent = here_.row_range({0, sums::total_of(counts)});
        compute_.device.gather_rows(
            {.from = computed, .rows = inverse_of(round.order), .to = received}, compute_.stream);
        sums::exchange_rows(compute_.tools(), axis_, "activations:experts", received,
                            round.received, counts, sent);
        std::int64_t at = 0;
        for (const Range range : round.sent) {
            compute_.copy(sent.row_range({at, at + range.size()}), to.row_range(range));
            at += range.size();
        }
    }

  private:
    Compute& compute_;
    parallel::Communicator& axis_;
    Matrix here_;           // rows of this rank
    Matrix moved_, there_;  // rows of a round, as they travel and as they are computed
};

/// gate over up of each row, and what they give together.
struct Inner {
    Inner(Compute& compute, std::int64_t most, std::int64_t width)
        : gate_up(compute.matrix(most, 2 * width)), activated(compute.matrix(most, width)) {}
    Matrix gate_up, activated;
};

void compute_inner(Compute& compute, const ExpertWeights& w, const DispatchPlan& plan,
                   const DispatchPlan::Round& round, ConstMatrix input, const Inner& inner) {
    for_experts_of(plan, round, [&](std::size_t expert, Range rows) {
        compute.device.matmul({.x = input.row_range(rows),
                               .w = w.routed[expert].gate_up,
                               .y = inner.gate_up.row_range(rows)},
                              compute.stream);
    });
    const Range all{0, input.rows};
    compute.device.swiglu(
        {.gate_up = inner.gate_up.row_range(all), .out = inner.activated.row_range(all)},
        compute.stream);
}

/// Gradients of the weights of this rank's experts, chunk by chunk.
class HeldGradients {
  public:
    HeldGradients(Compute& compute, const Weights& weights, std::span<const MlpIds> ids,
                  const DispatchPlan& plan, GradientSink& sink)
        : compute_(compute), plan_(plan) {
        // Before scratch memory that is given back sooner.
        for (std::int64_t expert = plan.own().begin; expert < plan.own().end; ++expert) {
            const MlpIds& mlp = ids[static_cast<std::size_t>(expert)];
            for (int chunk = 0; chunk < plan.chunks(); ++chunk) {
                const MlpSlots slots{sink.expert_slot(mlp.down, chunk),
                                     sink.expert_slot(mlp.gate, chunk),
                                     sink.expert_slot(mlp.up, chunk)};
                if (plan.rows_of(expert, chunk) == 0) no_gradient(compute, slots);
                slots_.push_back(slots);
            }
        }
        const ModelConfig& config = weights.config();
        const std::int64_t inner = config.experts.intermediate;
        down_ = compute.matrix(config.hidden, inner);
        gate_up_ = compute.matrix(2 * inner, config.hidden);
    }

    /// The sums of segments that other rounds have parts of go on from round to round.
    void add(const DispatchPlan::Round& round, ConstMatrix input, ConstMatrix activated,
             ConstMatrix dgate_up, ConstMatrix doutput) {
        for (const DispatchPlan::Segment& segment : round.segments) {
            const Output output = segment.begins ? Output::store : Output::resume;
            const auto sum = [&](ConstMatrix dy, ConstMatrix x, Matrix dw) {
                compute_.device.weight_gradient({.dy = dy.row_range(segment.rows),
                                                 .x = x.row_range(segment.rows),
                                                 .dw = dw,
                                                 .output = output},
                                                compute_.stream);
            };
            sum(doutput, activated, down_);
            sum(dgate_up, input, gate_up_);
            if (!segment.ends) continue;
            const MlpSlots& to = slots_[static_cast<std::size_t>(
                (segment.expert - plan_.own().begin) * plan_.chunks() + segment.chunk)];
            const std::int64_t half = gate_up_.rows / 2;
            deliver(compute_, down_, to[0]);
            deliver(compute_, gate_up_.row_range({0, half}), to[1]);
            deliver(compute_, gate_up_.row_range({half, 2 * half}), to[2]);
        }
    }

  private:
    Compute& compute_;
    const DispatchPlan& plan_;
    std::vector<MlpSlots> slots_;  // [expert][chunk]
    Matrix down_, gate_up_;        // of the segment that is summed
};

}  // namespace

DispatchPlan plan_dispatch(const Weights& weights, std::span<const Range> experts) {
    parallel::Communicator& axis = *weights.experts().axis;
    std::vector<std::int64_t> mine = sums::sizes_of(experts);
    std::vector<std::int64_t> all(mine.size() * static_cast<std::size_t>(axis.size()));
    axis.all_gather("activations:experts", mine, all);
    std::int64_t most = weights.experts().rows;
    if (most == 0) {
        for (auto rank = all.begin(); rank != all.end(); rank += std::ssize(mine))
            most = std::max(most, std::accumulate(rank, rank + std::ssize(mine), std::int64_t{0}));
    }
    return {all, axis.size(), axis.rank(), weights.part().place.tensor_ranks_of_group(),
            std::max<std::int64_t>(most, 1)};
}

void dispatched_forward(Compute& compute, const Weights& weights, std::int64_t layer,
                        const DispatchPlan& plan, ConstMatrix x,
                        std::span<const std::int64_t> tokens, Matrix output) {
    const kernels::Arena::Scope scope(compute.arena);
    const ExpertWeights& w = *weights.layer(layer).experts;
    const std::int64_t routed = std::ssize(tokens);
    Ferry ferry(compute, weights, routed, plan.most(), x.cols);
    const Inner inner(compute, plan.most(), weights.config().experts.intermediate);
    const Matrix computed = compute.matrix(plan.most(), x.cols);
    for (std::int64_t index = 0; index < plan.rounds(); ++index) {
        const DispatchPlan::Round round = plan.round(index);
        std::vector<std::int64_t> rows = sent_rows(round);
        for (std::int64_t& row : rows) row = tokens[static_cast<std::size_t>(row)];
        const Matrix input = ferry.there(round, x, rows);
        compute_inner(compute, w, plan, round, input, inner);
        for_experts_of(plan, round, [&](std::size_t expert, Range own) {
            compute.device.matmul({.x = inner.activated.row_range(own),
                                   .w = w.routed[expert].down,
                                   .y = computed.row_range(own)},
                                  compute.stream);
        });
        ferry.back(round, computed.row_range({0, input.rows}), output);
    }
}

void dispatched_backward(Compute& compute, const Weights& weights, std::int64_t layer,
                         const DispatchPlan& plan, ConstMatrix x,
                         std::span<const std::int64_t> tokens, ConstMatrix doutput, Matrix dinput,
                         GradientSink* gradients, const InnerRows* inner_rows) {
    const LayerIds& ids = weights.parameters().layer(layer);
    std::optional<HeldGradients> held;
    if (gradients != nullptr) held.emplace(compute, weights, ids.experts, plan, *gradients);
    const kernels::Arena::Scope scope(compute.arena);
    const ExpertWeights& w = *weights.layer(layer).experts;
    const std::int64_t width = weights.config().experts.intermediate;
    const std::int64_t routed = std::ssize(tokens);
    Ferry inputs(compute, weights, routed, plan.most(), x.cols);
    Ferry outputs(compute, weights, routed, plan.most(), x.cols);
    const Inner inner(compute, plan.most(), width);
    const Matrix dactivated = compute.matrix(plan.most(), width);
    const Matrix dgate_up = compute.matrix(plan.most(), 2 * width);
    const Matrix computed = compute.matrix(plan.most(), x.cols);
    std::optional<Ferry> activated, dgate_ups;
    if (inner_rows != nullptr) {
        activated.emplace(compute, weights, routed, plan.most(), width);
        dgate_ups.emplace(compute, weights, routed, plan.most(), 2 * width);
    }
    for (std::int64_t index = 0; index < plan.rounds(); ++index) {
        const DispatchPlan::Round round = plan.round(index);
        std::vector<std::int64_t> rows = sent_rows(round);
        const Matrix dout = outputs.there(round, doutput, rows);
        for (std::int64_t& row : rows) row = tokens[static_cast<std::size_t>(row)];
        const Matrix input = inputs.there(round, x, rows);
        compute_inner(compute, w, plan, round, input, inner);
        for_experts_of(plan, round, [&](std::size_t expert, Range own) {
            compute.device.matmul({.x = dout.row_range(own),
                                   .w = w.routed[expert].down_back,
                                   .y = dactivated.row_range(own)},
                                  compute.stream);
        });
        const Range all{0, input.rows};
        compute.device.swiglu_backward({.gate_up = inner.gate_up.row_range(all),
                                        .dout = dactivated.row_range(all),
                                        .dgate_up = dgate_up.row_range(all)},
                                       compute.stream);
        if (held) held->add(round, input, inner.activated, dgate_up, dout);
        if (inner_rows != nullptr) {
            activated->back(round, inner.activated.row_range(all), inner_rows->activated);
            dgate_ups->back(round, dgate_up.row_range(all), inner_rows->dgate_up);
        }
        if (dinput.cols == 0) continue;
        for_experts_of(plan, round, [&](std::size_t expert, Range own) {
            compute.device.matmul({.x = dgate_up.row_range(own),
                                   .w = w.routed[expert].gate_up_back,
                                   .y = computed.row_range(own)},
                                  compute.stream);
        });
        inputs.back(round, computed.row_range(all), dinput);
    }
}

}  // namespace rankwise::model
