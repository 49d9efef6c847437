#include <algorithm>
#include <cstring>

#include "kernels/cpu/checks.hpp"
#include "kernels/cpu/cpu_device.hpp"
#include "kernels/cpu/isa_choice.hpp"
#include "kernels/cpu/row_split.hpp"
#include "kernels/cpu/softmax_kernels.hpp"
#include "src/base/maths.hpp"
#include "src/base/tree_sum.hpp"

namespace rankwise::kernels::cpu {
namespace {

constexpr int kMaxLeaves = 16;

template <class Element>
const SoftmaxKernels<Element>& kernels_of(Isa isa) {
    return has_avx512(isa) ? avx512::softmax_kernels<Element>() : avx2::softmax_kernels<Element>();
}

float widen(float value) {
    return value;
}
float widen(std::uint16_t value) {
    return float_from_bf16(value);
}

}  // namespace

void CpuDevice::vocabulary_statistics(const VocabularyStatisticsArgs& args, Stream& /*stream*/) {
    const char* const op = "vocabulary_statistics";
    const std::int64_t rows = args.logits.rows;
    const auto leaves = static_cast<std::int64_t>(args.leaves.size());
    const Range columns{args.first_column, args.first_column + args.logits.cols};
    ensure_matrix(op, "logits", args.logits, rows, args.logits.cols, args.logits.dtype);
    ensure_size(op, "inverse_temperature",
                static_cast<std::int64_t>(args.inverse_temperature.size()), rows);
    ensure_size(op, "targets", static_cast<std::int64_t>(args.targets.size()), rows);
    ensure_size(op, "statistics", args.statistics.size(), rows * leaves * 3);
    ensure_size(op, "target", args.target.size(), rows);
    for (Range leaf : args.leaves) {
        ensure(leaf.empty() || (leaf.begin >= columns.begin && leaf.end <= columns.end),
               "{}: a leaf of columns {} to {}, the logits are of columns {} to {}", op, leaf.begin,
               leaf.end, columns.begin, columns.end);
        ensure(leaf.empty() || leaf.begin % 16 == 0,
               "{}: a leaf begins at column {}, expected a multiple of 16", op, leaf.begin);
    }
    float* statistics = at(args.statistics);
    float* target = at(args.target);
    with_elements(args.logits.dtype, [&]<class Element>(Element /*element*/) {
        const SoftmaxKernels<Element>& kernels = kernels_of<Element>(isa_);
        const auto* logits = elements<Element>(args.logits);
        for_row_ranges(*team_, rows, 8 * args.logits.cols, [&](Range range) {
            for (std::int64_t t = range.begin; t < range.end; ++t) {
                const Element* row = logits + t * args.logits.stride;
                const float scale = args.inverse_temperature[static_cast<std::size_t>(t)];
                for (std::int64_t l = 0; l < leaves; ++l) {
                    const Range leaf =
                        intersect(args.leaves[static_cast<std::size_t>(l)], {0, args.ids});
                    kernels.leaf_statistics(row + (leaf.empty() ? 0 : leaf.begin - columns.begin),
                                            leaf.empty() ? 0 : leaf.size(), scale,
                                            statistics + (t * leaves + l) * 3);
                }
                const std::int64_t id = args.targets[static_cast<std::size_t>(t)];
                if (columns.contains(id)) target[t] = widen(row[id - columns.begin]) * scale;
            }
        });
    });
}

void CpuDevice::merge_statistics(const MergeStatisticsArgs& args, Stream& /*stream*/) {
    const char* const op = "merge_statistics";
    const std::int64_t rows = args.rows;
    const int leaves = args.tree.leaves();
    ensure(leaves <= kMaxLeaves, "{}: {} leaves, expected at most {}", op, leaves, kMaxLeaves);
    ensure_size(op, "statistics", args.statistics.size(), rows * leaves * 3);
    ensure_size(op, "target", args.target.size(), rows);
    ensure_size(op, "logprob", args.logprob.size(), rows);
    ensure_size(op, "sum", args.sum.size(), rows);
    if (!args.entropy.empty()) ensure_size(op, "entropy", args.entropy.size(), rows);
    if (!args.maximum.empty()) ensure_size(op, "maximum", args.maximum.size(), rows);
    const SoftmaxKernels<float>& kernels = kernels_of<float>(isa_);
    const float* statistics = at(args.statistics);
    const float* target = at(args.target);
    float* logprob = at(args.logprob);
    float* entropy = args.entropy.empty() ? nullptr : at(args.entropy);
    float* maximum = args.maximum.empty() ? nullptr : at(args.maximum);
    float* sum = at(args.sum);
    for_row_ranges(*team_, rows, 256, [&](Range range) {
        float s[kMaxLeaves];
        float t[kMaxLeaves];
        for (std::int64_t row = range.begin; row < range.end; ++row) {
            const float* const here = statistics + row * leaves * 3;
            const float m = kernels.rescale_leaves(here, leaves, s, t);
            const int total = tree_sum(
                args.tree, [&](int leaf) { return here[3 * leaf + 1] != 0.0F; },
                [&](int to, int from) {
                    s[to] = s[to] + s[from];
                    t[to] = t[to] + t[from];
                });
            const float whole = total < 0 ? 0.0F : s[total];
            const auto log_sum = static_cast<float>(maths::log(static_cast<double>(whole)));
            sum[row] = whole;
            logprob[row] = (target[row] - m) - log_sum;
            if (entropy != nullptr) {
                entropy[row] = log_sum - (total < 0 ? 0.0F : t[total]) / whole;
            }
            if (maximum != nullptr) maximum[row] = m;
        }
    });
}

void CpuDevice::logprob_gradient(const LogprobGradientArgs& args, Stream& /*stream*/) {
    const char* const op = "logprob_gradient";
    const std::int64_t rows = args.logits.rows;
    const std::int64_t columns = args.logits.cols;
    ensure_matrix(op, "logits", args.logits, rows, columns, args.logits.dtype);
    ensure_size(op, "inverse_temperature",
                static_cast<std::int64_t>(args.inverse_temperature.size()), rows);
    ensure_size(op, "targets", static_cast<std::int64_t>(args.targets.size()), rows);
    ensure_size(op, "coefficient", static_cast<std::int64_t>(args.coefficient.size()), rows);
    ensure_size(op, "maximum", args.maximum.size(), rows);
    ensure_size(op, "sum", args.sum.size(), rows);
    const std::int64_t count = std::clamp(args.ids - args.first_column, std::int64_t{0}, columns);
    const float* maximum = at(args.maximum);
    const float* sum = at(args.sum);
    with_elements(args.logits.dtype, [&]<class Element>(Element /*element*/) {
        const SoftmaxKernels<Element>& kernels = kernels_of<Element>(isa_);
        auto* logits = elements<Element>(args.logits);
        for_row_ranges(*team_, rows, 4 * columns, [&](Range range) {
            for (std::int64_t t = range.begin; t < range.end; ++t) {
                Element* const row = logits + t * args.logits.stride;
                const auto i = static_cast<std::size_t>(t);
                const float scale = args.inverse_temperature[i];
                kernels.gradient(row, count, scale, maximum[t], sum[t], args.coefficient[i] * scale,
                                 args.targets[i] - args.first_column);
                std::memset(row + count, 0,
                            static_cast<std::size_t>(columns - count) * sizeof(Element));
            }
        });
    });
}

}  // namespace rankwise::kernels::cpu
