#include "kernels/gating.hpp"

#include <algorithm>
#include <limits>
#include <vector>

#include "kernels/cpu/checks.hpp"
#include "kernels/cpu/cpu_device.hpp"
#include "kernels/cpu/gating_kernels.hpp"
#include "kernels/cpu/isa_choice.hpp"
#include "kernels/cpu/row_split.hpp"

namespace rankwise::kernels::cpu {
namespace {

const GatingKernels& kernels_of(Isa isa) {
    return has_avx512(isa) ? avx512::gating_kernels() : avx2::gating_kernels();
}

void ensure_routing(const char* op, const Routing& routing) {
    ensure(routing.experts > 0 && routing.groups > 0 && routing.experts % routing.groups == 0 &&
               routing.kept_groups > 0 && routing.kept_groups <= routing.groups &&
               routing.chosen > 0 &&
               routing.chosen <= routing.kept_groups * (routing.experts / routing.groups),
           "{}: {} of {} experts, from {} of {} groups", op, routing.chosen, routing.experts,
           routing.kept_groups, routing.groups);
}

void ensure_experts(const char* op, std::span<const std::int32_t> experts, const Routing& routing) {
    for (std::int32_t expert : experts) {
        ensure(expert >= 0 && expert < routing.experts, "{}: expert {} of {}", op, expert,
               routing.experts);
    }
}

/// One row's choice; memory is kept for the next.
class Choice {
  public:
    /// The chosen ids, ascending.
    std::span<const std::int32_t> choose(const float* scores, const float* bias,
                                         const Routing& routing) {
        const std::int64_t size = routing.experts / routing.groups;
        values_.resize(static_cast<std::size_t>(routing.experts));
        for (std::size_t e = 0; e < values_.size(); ++e)
            values_[e] = bias == nullptr ? scores[e] : scores[e] + bias[e];
        open_.assign(values_.size(), 1);
        if (routing.kept_groups < routing.groups) {
            worth_.clear();
            for (std::int64_t g = 0; g < routing.groups; ++g)
                worth_.push_back(worth({g * size, (g + 1) * size}, routing.group_score));
            open_groups_.assign(worth_.size(), 1);
            std::ranges::fill(open_, 0);
            for (std::int64_t i = 0; i < routing.kept_groups; ++i) {
                const auto best = static_cast<std::ptrdiff_t>(take(worth_, open_groups_));
                std::fill_n(open_.begin() + best * size, size, 1);
            }
        }
        chosen_.clear();
        for (std::int64_t i = 0; i < routing.chosen; ++i) chosen_.push_back(take(values_, open_));
        std::ranges::sort(chosen_);
        return chosen_;
    }

  private:
    /// The first of the largest values that are open; it is closed.
    static std::int32_t take(const std::vector<float>& values, std::vector<char>& open) {
        std::int64_t best = -1;
        for (std::size_t i = 0; i < values.size(); ++i) {
            if (open[i] == 0) continue;
            if (best < 0 || values[i] > values[static_cast<std::size_t>(best)])
                best = static_cast<std::int64_t>(i);
        }
        open[static_cast<std::size_t>(best)] = 0;
        return narrow<std::int32_t>(best);
    }

    [[nodiscard]] float worth(Range group, GroupScore score) const {
        float first = -std::numeric_limits<float>::infinity();
        float second = first;
        for (std::int64_t e = group.begin; e < group.end; ++e) {
            const float value = values_[static_cast<std::size_t>(e)];
            if (value > first) {
                second = first;
                first = value;
            } else if (value > second) {
                second = value;
            }
        }
        return score == GroupScore::largest ? first : first + second;
    }

    std::vector<float> values_, worth_;
    std::vector<char> open_, open_groups_;
    std::vector<std::int32_t> chosen_;
};

constexpr float kTiny = 1e-20F;

/// The divisor of normalised weights.
float sum_of_chosen(const float* scores, std::span<const std::int32_t> experts) {
    float sum = scores[experts.front()];
    for (const std::int32_t expert : experts.subspan(1)) sum += scores[expert];
    return sum + kTiny;
}

void weigh(const float* scores, std::span<const std::int32_t> experts, const Routing& routing,
           float* weights) {
    const float sum = routing.normalise ? sum_of_chosen(scores, experts) : 1.0F;
    for (std::size_t i = 0; i < experts.size(); ++i) {
        const float share = routing.normalise ? scores[experts[i]] / sum : scores[experts[i]];
        weights[i] = share * routing.scale;
    }
}

/// ds of the chosen, in the order of `experts`.
void score_gradients(const float* scores, const float* dweights,
                     std::span<const std::int32_t> experts, const Routing& routing, float* ds) {
    if (!routing.normalise) {
        for (std::size_t i = 0; i < experts.size(); ++i) ds[i] = dweights[i] * routing.scale;
        return;
    }
    const float sum = sum_of_chosen(scores, experts);
    float dot = 0.0F;
    for (std::size_t i = 0; i < experts.size(); ++i)
        dot += dweights[i] * (scores[experts[i]] / sum);
    for (std::size_t i = 0; i < experts.size(); ++i)
        ds[i] = (dweights[i] - dot) * routing.scale / sum;
}

void logit_gradients(const float* scores, const float* ds, std::span<const std::int32_t> experts,
                     const Routing& routing, float* dlogits) {
    std::fill_n(dlogits, routing.experts, 0.0F);
    if (routing.scoring == Scoring::sigmoid) {
        for (std::size_t i = 0; i < experts.size(); ++i) {
            const float s = scores[experts[i]];
            dlogits[experts[i]] = ds[i] * (s * (1.0F - s));
        }
        return;
    }
    float dot = 0.0F;
    for (std::size_t i = 0; i < experts.size(); ++i) {
        dlogits[experts[i]] = ds[i];
        dot += ds[i] * scores[experts[i]];
    }
    for (std::int64_t e = 0; e < routing.experts; ++e) dlogits[e] = scores[e] * (dlogits[e] - dot);
}

/// Checks what both directions of combining share; the number of rows a token, K.
std::int64_t ensure_rows(const char* op, const ConstMatrix& tokens, std::int64_t from_rows,
                         std::span<const std::int64_t> rows) {
    const auto size = static_cast<std::int64_t>(rows.size());
    ensure(tokens.rows == 0 ? size == 0 : size % tokens.rows == 0,
           "{}: {} rows for {} tokens, expected as many for each", op, size, tokens.rows);
    for (std::int64_t row : rows)
        ensure(row >= 0 && row < from_rows, "{}: row {} of {}", op, row, from_rows);
    return tokens.rows == 0 ? 0 : size / tokens.rows;
}

}  // namespace

void CpuDevice::gating(const GatingArgs& args, Stream& /*stream*/) {
    const Routing& routing = args.routing;
    ensure_routing("gating", routing);
    const std::int64_t rows = args.logits.rows;
    ensure_matrix("gating", "logits", args.logits, rows, routing.experts);
    ensure_matrix("gating", "scores", args.scores, rows, routing.experts);
    ensure_matrix("gating", "weights", args.weights, rows, routing.chosen);
    ensure_size("gating", "experts", static_cast<std::int64_t>(args.experts.size()),
                rows * routing.chosen);
    if (!args.bias.empty()) ensure_size("gating", "bias", args.bias.size(), routing.experts);
    const GatingKernels& kernels = kernels_of(isa_);
    const auto score = routing.scoring == Scoring::sigmoid ? kernels.sigmoid : kernels.softmax;
    const float* logits = floats(args.logits);
    const float* bias = args.bias.empty() ? nullptr : at(args.bias);
    float* scores = floats(args.scores);
    float* weights = floats(args.weights);
    for_row_ranges(*team_, rows, routing.chosen * routing.experts, [&](Range range) {
        static thread_local Choice choice;
        for (std::int64_t t = range.begin; t < range.end; ++t) {
            float* own = scores + t * args.scores.stride;
            score(logits + t * args.logits.stride, routing.experts, own);
            const std::span<const std::int32_t> chosen = choice.choose(own, bias, routing);
            weigh(own, chosen, routing, weights + t * args.weights.stride);
            std::ranges::copy(chosen, args.experts.begin() + t * routing.chosen);
        }
    });
}

void CpuDevice::gating_backward(const GatingBackwardArgs& args, Stream& /*stream*/) {
    const Routing& routing = args.routing;
    ensure_routing("gating_backward", routing);
    const std::int64_t rows = args.scores.rows;
    ensure_matrix("gating_backward", "scores", args.scores, rows, routing.experts);
    ensure_matrix("gating_backward", "dweights", args.dweights, rows, routing.chosen);
    ensure_matrix("gating_backward", "dlogits", args.dlogits, rows, routing.experts);
    ensure_size("gating_backward", "experts", static_cast<std::int64_t>(args.experts.size()),
                rows * routing.chosen);
    ensure_experts("gating_backward", args.experts, routing);
    const float* scores = floats(args.scores);
    const float* dweights = floats(args.dweights);
    float* dlogits = floats(args.dlogits);
    for_row_ranges(*team_, rows, 4 * routing.experts, [&](Range range) {
        static thread_local std::vector<float> ds;
        ds.resize(static_cast<std::size_t>(routing.chosen));
        for (std::int64_t t = range.begin; t < range.end; ++t) {
            const auto experts = args.experts.subspan(static_cast<std::size_t>(t * routing.chosen),
                                                      static_cast<std::size_t>(routing.chosen));
            const float* own = scores + t * args.scores.stride;
            score_gradients(own, dweights + t * args.dweights.stride, experts, routing, ds.data());
            logit_gradients(own, ds.data(), experts, routing, dlogits + t * args.dlogits.stride);
        }
    });
}

void CpuDevice::combine_rows(const CombineRowsArgs& args, Stream& /*stream*/) {
    const std::int64_t rows = args.to.rows;
    const std::int64_t cols = args.to.cols;
    ensure_matrix("combine_rows", "to", args.to, rows, cols);
    ensure_matrix("combine_rows", "from", args.from, args.from.rows, cols);
    const std::int64_t each = ensure_rows("combine_rows", args.to, args.from.rows, args.rows);
    const bool weighted = args.weights.cols > 0;
    if (weighted && rows > 0) ensure_matrix("combine_rows", "weights", args.weights, rows, each);
    ensure(args.output != Output::add, "combine_rows: adds to a sum only by going on with it");
    const GatingKernels& kernels = kernels_of(isa_);
    const float* from = floats(args.from);
    const float* weights = floats(args.weights);
    float* to = floats(args.to);
    for_row_ranges(*team_, rows, (each + 1) * cols, [&](Range range) {
        for (std::int64_t t = range.begin; t < range.end; ++t) {
            kernels.combine(from, args.from.stride, args.rows.data() + t * each,
                            weighted ? weights + t * args.weights.stride : nullptr, each, cols,
                            args.output == Output::resume, to + t * args.to.stride);
        }
    });
}

void CpuDevice::combine_rows_backward(const CombineRowsBackwardArgs& args, Stream& /*stream*/) {
    const std::int64_t rows = args.dto.rows;
    const std::int64_t cols = args.dto.cols;
    const std::int64_t each =
        ensure_rows("combine_rows_backward", args.dto, args.from.rows, args.rows);
    ensure_matrix("combine_rows_backward", "dto", args.dto, rows, cols);
    ensure_matrix("combine_rows_backward", "from", args.from, rows * each, cols);
    ensure_matrix("combine_rows_backward", "dfrom", args.dfrom, rows * each, cols);
    ensure_matrix("combine_rows_backward", "weights", args.weights, rows, args.weights.cols);
    ensure(rows == 0 || args.weights.cols == each,
           "combine_rows_backward: {} weights a token, expected {}", args.weights.cols, each);
    ensure_matrix("combine_rows_backward", "dweights", args.dweights, rows, args.weights.cols);
    const GatingKernels& kernels = kernels_of(isa_);
    const float* dto = floats(args.dto);
    const float* from = floats(args.from);
    const float* weights = floats(args.weights);
    float* dfrom = floats(args.dfrom);
    float* dweights = floats(args.dweights);
    for_row_ranges(*team_, rows, 3 * each * cols, [&](Range range) {
        for (std::int64_t t = range.begin; t < range.end; ++t) {
            for (std::int64_t i = 0; i < each; ++i) {
                const std::int64_t row = args.rows[static_cast<std::size_t>(t * each + i)];
                dweights[t * args.dweights.stride + i] = kernels.combine_backward(
                    dto + t * args.dto.stride, from + row * args.from.stride,
                    weights[t * args.weights.stride + i], cols, dfrom + row * args.dfrom.stride);
            }
        }
    });
}

}  // namespace rankwise::kernels::cpu
