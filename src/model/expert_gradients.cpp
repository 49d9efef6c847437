#include "src/model/expert_gradients.hpp"

#include <algorithm>
#include <array>

#include "src/model/linear_gradients.hpp"
#include "src/model/split_linear.hpp"

namespace rankwise::model {
namespace {

using kernels::ConstMatrix;
using kernels::Matrix;
using kernels::Output;

MlpRows row_range(const MlpRows& rows, Range range) {
    return {rows.input.row_range(range), rows.activated.row_range(range),
            rows.dgate_up.row_range(range), rows.doutput.row_range(range)};
}

MlpSlots slots_of(const MlpIds& ids, GradientSink& gradients) {
    return {gradients.slot(ids.down), gradients.slot(ids.gate), gradients.slot(ids.up)};
}

/// Where tensor ranks have tokens of their own.
class Rounds {
  public:
    /// Takes scratch memory that does not depend on the rows of any expert.
    Rounds(Compute& compute, parallel::Communicator& axis, std::span<const Range> experts,
           const MlpRows& rows, std::int64_t tokens)
        : compute_(compute),
          axis_(axis),
          experts_(experts),
          rows_(rows),
          hidden_(rows.input.cols),
          inner_(rows.activated.cols),
          rows_of_ranks_(experts.size() * static_cast<std::size_t>(axis.size())),
          input_(compute.matrix(tokens, hidden_)),
          activated_(compute.matrix(tokens, inner_)),
          dgate_up_(compute.matrix(tokens, 2 * inner_)),
          doutput_(compute.matrix(tokens, hidden_)),
          own_(compute.matrix(3 * inner_, hidden_)),
          all_(compute.matrix(3 * inner_ * axis.size(), hidden_)) {
        const std::vector<std::int64_t> mine = sums::sizes_of(experts);
        axis.all_gather("gradients:experts", mine, rows_of_ranks_);
        // A rank that plans takes the others for images of itself: of more rows than there are.
        for (std::size_t expert = 0; expert < experts.size(); ++expert) {
            std::int64_t left = tokens;
            for (std::size_t at = expert; at < rows_of_ranks_.size(); at += experts.size()) {
                rows_of_ranks_[at] = std::min(rows_of_ranks_[at], left);
                left -= rows_of_ranks_[at];
            }
        }
    }

    /// Experts [first, first + ranks), or those that there are.
    void round(std::int64_t first, std::span<const MlpSlots> slots) {
        const std::int64_t end = std::min(first + axis_.size(), std::ssize(experts_));
        std::vector<std::int64_t> blocks(static_cast<std::size_t>(axis_.size()), 0);
        bool any = false;
        for (std::int64_t expert = first; expert < end; ++expert) {
            if (rows_of(expert) == 0) continue;
            blocks[static_cast<std::size_t>(expert - first)] = own_.rows * own_.cols;
            any = true;
        }
        if (any) {
            const bool here = sum(first, end);
            const Matrix mine = own_.row_range({0, here ? own_.rows : 0});
            sums::gather_blocks(compute_.tools(), axis_, "gradients:experts", mine, blocks,
                                {reinterpret_cast<float*>(all_.handle), sums::total_of(blocks)});
        }
        std::int64_t at = 0;
        for (std::int64_t expert = first; expert < end; ++expert) {
            const MlpSlots& to = slots[static_cast<std::size_t>(expert)];
            if (rows_of(expert) == 0) {
                no_gradient(compute_, to);
                continue;
            }
            const std::int64_t size = inner_ * hidden_;
            for (const GradientSlot& slot : to) {
                if (slot.matrix.rows > 0) {  // else this rank has not this expert
                    const Matrix from(
                        DeviceSpan<float>(reinterpret_cast<float*>(all_.handle) + at, size),
                        slot.matrix.rows, slot.matrix.cols);
                    deliver(compute_, from, slot);
                }
                at += size;
            }
        }
    }

  private:
    [[nodiscard]] std::int64_t rows_of(std::int64_t expert, int rank) const {
        return rows_of_ranks_[static_cast<std::size_t>(rank) * experts_.size() +
                              static_cast<std::size_t>(expert)];
    }
    [[nodiscard]] std::int64_t rows_of(std::int64_t expert) const {
        std::int64_t rows = 0;
        for (int rank = 0; rank < axis_.size(); ++rank) rows += rows_of(expert, rank);
        return rows;
    }

    /// The gradient of this rank's expert of a round; whether it has one with rows.
    bool sum(std::int64_t first, std::int64_t end) {
        const auto range = [&](std::int64_t expert) {
            return experts_[static_cast<std::size_t>(expert)];
        };
        std::vector<std::int64_t> sent(static_cast<std::size_t>(axis_.size()), 0);
        std::vector<std::int64_t> from(sent.size(), 0);
        for (std::int64_t expert = first; expert < end; ++expert)
            sent[static_cast<std::size_t>(expert - first)] = range(expert).size();
        const std::int64_t own = first + axis_.rank();
        for (int rank = 0; own < end && rank < axis_.size(); ++rank)
            from[static_cast<std::size_t>(rank)] = rows_of(own, rank);
        const std::int64_t count = own < end ? rows_of(own) : 0;
        const MlpRows mine = row_range(rows_, {range(first).begin, range(end - 1).end});
        const auto bring = [&](ConstMatrix part, Matrix to) {
            const Matrix received = to.row_range({0, count});
            sums::exchange_rows(compute_.tools(), axis_, "activations:experts", part, sent, from,
                                received);
            return received;
        };
        const MlpRows all{bring(mine.input, input_), bring(mine.activated, activated_),
                          bring(mine.dgate_up, dgate_up_), bring(mine.doutput, doutput_)};
        if (count == 0) return false;
        // As the slots follow each other: down, which is [hidden, I], then gate and up.
        float* const begin = reinterpret_cast<float*>(own_.handle);
        const std::int64_t size = inner_ * hidden_;
        const Matrix down(DeviceSpan<float>(begin, size), hidden_, inner_);
        const Matrix gate_up(DeviceSpan<float>(begin + size, 2 * size), 2 * inner_, hidden_);
        compute_.device.weight_gradient({.dy = all.doutput, .x = all.activated, .dw = down},
                                        compute_.stream);
        compute_.device.weight_gradient({.dy = all.dgate_up, .x = all.input, .dw = gate_up},
                                        compute_.stream);
        return true;
    }

    Compute& compute_;
    parallel::Communicator& axis_;
    std::span<const Range> experts_;
    const MlpRows& rows_;
    std::int64_t hidden_, inner_;
    std::vector<std::int64_t> rows_of_ranks_;        // [rank][expert]
    Matrix input_, activated_, dgate_up_, doutput_;  // of this rank's expert
    Matrix own_;                                     // its gradient
    Matrix all_;                                     // those of a round
};

}  // namespace

void no_gradient(Compute& compute, const MlpSlots& slots) {
    for (const GradientSlot& slot : slots) {
        if (slot.output == Output::store && slot.matrix.rows > 0)
            compute.device.fill({.to = slot.matrix, .value = -0.0F}, compute.stream);
    }
}

void mlp_gradients(Compute& compute, const MlpIds& ids, const MlpRows& rows,
                   GradientSink& gradients) {
    const std::int64_t inner = rows.activated.cols;
    linear_gradients(compute, std::array{Linear{ids.down, -1, {0, rows.doutput.cols}}},
                     rows.doutput, rows.activated, gradients);
    linear_gradients(
        compute,
        std::array{Linear{ids.gate, -1, {0, inner}}, Linear{ids.up, -1, {inner, 2 * inner}}},
        rows.dgate_up, rows.input, gradients);
}

void routed_gradients(Compute& compute, const Weights& weights, std::span<const MlpIds> ids,
                      std::span<const Range> experts, const MlpRows& rows, std::int64_t tokens,
                      GradientSink& gradients) {
    if (!weights.split()) {
        for (std::size_t expert = 0; expert < ids.size(); ++expert) {
            if (experts[expert].empty()) {
                no_gradient(compute, slots_of(ids[expert], gradients));
            } else {
                mlp_gradients(compute, ids[expert], row_range(rows, experts[expert]), gradients);
            }
        }
        return;
    }
    std::vector<MlpSlots> slots;  // before scratch memory that is given back sooner
    for (const MlpIds& expert : ids) slots.push_back(slots_of(expert, gradients));
    const kernels::Arena::Scope scope(compute.arena);
    Rounds rounds(compute, weights.tensor(), experts, rows, tokens);
    for (std::int64_t first = 0; first < std::ssize(ids); first += weights.part().place.degree)
        rounds.round(first, slots);
}

}  // namespace rankwise::model
