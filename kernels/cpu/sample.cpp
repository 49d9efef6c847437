#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/cpu/checks.hpp"
#include "kernels/cpu/cpu_device.hpp"
#include "kernels/cpu/isa_choice.hpp"
#include "kernels/cpu/maths_kernels.hpp"
#include "kernels/cpu/row_split.hpp"
#include "kernels/cpu/sample_filter.hpp"
#include "kernels/cpu/sample_kernels.hpp"

namespace rankwise::kernels::cpu {
namespace {

const SampleKernels& kernels_of(Isa isa) {
    return has_avx512(isa) ? avx512::sample_kernels() : avx2::sample_kernels();
}

SampleFilter::Exp exp_of(Isa isa) {
    return (has_avx512(isa) ? avx512::maths_kernels() : avx2::maths_kernels()).exp_double;
}

bool filtered(const SampleRow& row, std::int64_t ids) {
    return (row.top_k > 0 && row.top_k < ids) || row.top_p < 1.0 || row.min_p > 0.0;
}

void ensure_rows(const char* op, std::span<const SampleRow> rows, const ConstMatrix& logits,
                 std::int64_t ids, std::int64_t first = 0) {
    ensure(ids > 0 && ids <= logits.cols, "{}: {} ids in {} columns", op, ids, logits.cols);
    ensure_size(op, "rows", static_cast<std::int64_t>(rows.size()), logits.rows);
    for (std::size_t t = 0; t < rows.size(); ++t) {
        const SampleRow& row = rows[t];
        ensure(row.forced < first + ids, "{}: row {} forces id {} of {}", op, t, row.forced, ids);
        ensure(row.temperature >= 0.0 && std::isfinite(row.temperature) && row.top_k >= 0 &&
                   row.top_p >= 0.0 && row.top_p <= 1.0 && row.min_p >= 0.0 && row.min_p <= 1.0,
               "{}: row {} has temperature {}, top_k {}, top_p {}, min_p {}: expected no negative "
               "ones, and shares up to 1",
               op, t, row.temperature, row.top_k, row.top_p, row.min_p);
    }
}

/// The same as SampleKernels::argmax, for either precision.
template <class Float>
std::int64_t first_largest(std::span<const Float> logits) {
    std::int64_t best = 0;
    Float value = -std::numeric_limits<Float>::infinity();
    for (std::size_t i = 0; i < logits.size(); ++i) {
        if (logits[i] > value) {
            value = logits[i];
            best = static_cast<std::int64_t>(i);
        }
    }
    return best;
}

template <class Float>
void row_probabilities(std::span<const Float> logits, const SampleRow& row, SampleFilter::Exp exp,
                       std::span<double> out) {
    std::ranges::fill(out, 0.0);
    if (row.forced >= 0 || row.temperature == 0.0) {
        const std::int64_t id = row.forced >= 0 ? row.forced : first_largest(logits);
        out[static_cast<std::size_t>(id)] = 1.0;
        return;
    }
    static thread_local SampleFilter filter;
    filter.apply(logits, row, exp);
    for (std::size_t i = 0; i < logits.size(); ++i) out[i] = filter.probability(i);
}

}  // namespace

void CpuDevice::sample(const SampleArgs& args, Stream& /*stream*/) {
    const std::int64_t rows = args.logits.rows;
    const std::int64_t from_here = args.ids - args.first_column;
    // Of a part of the vocabulary the rest is elsewhere.
    const std::int64_t ids =
        args.scores.empty() ? from_here : std::min(from_here, args.logits.cols);
    const bool whole = args.first_column == 0 && ids == args.ids;
    ensure_matrix("sample", "logits", args.logits, rows, args.logits.cols);
    ensure(args.first_column % 4 == 0, "sample: columns from {} on, expected a multiple of 4",
           args.first_column);
    ensure_rows("sample", args.rows, args.logits, ids, args.first_column);
    ensure_size("sample", "tokens", static_cast<std::int64_t>(args.tokens.size()), rows);
    if (!args.scores.empty())
        ensure_size("sample", "scores", static_cast<std::int64_t>(args.scores.size()), rows);
    const SampleKernels& kernels = kernels_of(isa_);
    const SampleFilter::Exp exp = exp_of(isa_);
    const float* logits = floats(args.logits);
    const auto first_block = narrow<std::uint32_t>(args.first_column / 4);
    const auto draw = [&](const float* values, const SampleRow& row) {
        const GumbelNoise noise{row.key[0], row.key[1], row.position, first_block};
        return kernels.gumbel_argmax(noise, values, ids, static_cast<float>(row.temperature));
    };
    const auto choose = [&](const float* values, const SampleRow& row) -> Choice {
        if (row.forced >= 0) return {row.forced - args.first_column, 0.0F};
        if (row.temperature == 0.0) return kernels.argmax(values, ids);
        if (!filtered(row, args.ids)) return draw(values, row);
        ensure(whole, "sample: a row with a filter, but columns {} to {} of {} ids",
               args.first_column, args.first_column + ids, args.ids);
        static thread_local SampleFilter filter;
        static thread_local std::vector<float> kept;
        filter.apply(std::span(values, static_cast<std::size_t>(ids)), row, exp);
        kept.assign(values, values + ids);
        for (std::size_t i = 0; i < kept.size(); ++i) {
            if (!filter.kept(i)) kept[i] = -std::numeric_limits<float>::infinity();
        }
        return draw(kept.data(), row);
    };
    for_row_ranges(*team_, rows, 16 * ids, [&](Range range) {
        for (std::int64_t t = range.begin; t < range.end; ++t) {
            const auto i = static_cast<std::size_t>(t);
            const Choice choice = choose(logits + t * args.logits.stride, args.rows[i]);
            args.tokens[i] = narrow<std::int32_t>(args.first_column + choice.index);
            if (!args.scores.empty()) args.scores[i] = choice.value;
        }
    });
}

void CpuDevice::filtered_probabilities(const FilteredProbabilitiesArgs& args, Stream& /*stream*/) {
    const char* const op = "filtered_probabilities";
    const std::int64_t rows = args.logits.rows;
    const std::int64_t columns = args.logits.cols;
    const auto ids = static_cast<std::size_t>(args.ids);
    const bool is_double = args.logits.dtype == DType::f64;
    if (!is_double) ensure_matrix(op, "logits", args.logits, rows, columns);
    ensure_rows(op, args.rows, args.logits, args.ids);
    ensure_size(op, "probabilities", args.probabilities.size(), rows * columns);
    const SampleFilter::Exp exp = exp_of(isa_);
    double* probabilities = at(args.probabilities);
    for_row_ranges(*team_, rows, 16 * columns, [&](Range range) {
        for (std::int64_t t = range.begin; t < range.end; ++t) {
            const SampleRow& row = args.rows[static_cast<std::size_t>(t)];
            const std::byte* at_row =
                at(args.logits.handle) + t * args.logits.stride * size_of(args.logits.dtype);
            const std::span out(probabilities + t * columns, static_cast<std::size_t>(columns));
            if (is_double) {
                row_probabilities(std::span(reinterpret_cast<const double*>(at_row), ids), row, exp,
                                  out);
            } else {
                row_probabilities(std::span(reinterpret_cast<const float*>(at_row), ids), row, exp,
                                  out);
            }
        }
    });
}

}  // namespace rankwise::kernels::cpu
