// Rows of `rankwise bench`: attention.
#include <fmt/format.h>

#include <numeric>

#include "src/app/bench_rows.hpp"

namespace rankwise::app {
namespace {

using kernels::kKeyBlock;
using kernels::Matrix;

constexpr std::int64_t kHeads = 4;
constexpr std::int64_t kKvHeads = 2;
constexpr std::int64_t kHeadDim = 64;
constexpr float kScale = 0.125F;

/// One sequence of T rows, forward (4 operations a row, head, key and dimension that the causal
/// mask leaves) or backward (10: scores again, dv, dp, dq, dk).
BenchRow segment_row(DType type, std::int64_t tokens, bool backward) {
    return {.name = fmt::format("attention{}/{}/{}", suffix_of(type),
                                backward ? "backward" : "forward", tokens),
            .what = fmt::format("one sequence, {} heads of {} over {} KV heads, as in training",
                                kHeads, kHeadDim, kKvHeads),
            .run = [=](BenchContext& context, Meter& meter) -> RowFacts {
                constexpr std::int64_t kWide = kHeads * kHeadDim;
                constexpr std::int64_t kNarrow = kKvHeads * kHeadDim;
                const auto q = context.random(tokens * kWide, type);
                const auto k = context.random(tokens * kNarrow, type);
                const auto v = context.random(tokens * kNarrow, type);
                const auto out = context.random(tokens * kWide, type);
                const auto maximum = context.zeros(tokens * kHeads);
                const auto denominator = context.zeros(tokens * kHeads);
                const std::vector<kernels::AttentionSegment> segments{{.rows = tokens}};
                const auto rows_of = [&](const kernels::DeviceBuffer<std::byte>& buffer) {
                    const std::int64_t columns = buffer.size() / size_of(type) / tokens;
                    return Matrix(buffer.span().handle(), type, tokens, columns, columns);
                };
                const auto run_forward = [&] {
                    context.device().segment_attention({.q = rows_of(q),
                                                        .k = rows_of(k),
                                                        .v = rows_of(v),
                                                        .heads = kHeads,
                                                        .kv_heads = kKvHeads,
                                                        .segments = segments,
                                                        .scale = kScale,
                                                        .out = rows_of(out),
                                                        .maximum = maximum.span(),
                                                        .denominator = denominator.span()},
                                                       context.stream());
                };
                const auto t = static_cast<double>(tokens);
                const BenchWork work{.flop = (backward ? 10.0 : 4.0) * t * (t + 1.0) / 2.0 *
                                             static_cast<double>(kHeads * kHeadDim)};
                meter.expect({work});
                context.expect_peak(type, meter);
                if (!backward) {
                    while (meter.more()) meter.time(run_forward);
                    return {.work = work, .units = t, .unit = "tokens"};
                }
                const auto dout = context.random(tokens * kWide, type);
                const auto dq = context.random(tokens * kWide, type);
                const auto dk = context.random(tokens * kNarrow, type);
                const auto dv = context.random(tokens * kNarrow, type);
                run_forward();
                while (meter.more()) {
                    meter.time([&] {
                        context.device().segment_attention_backward(
                            {.q = rows_of(q),
                             .k = rows_of(k),
                             .v = rows_of(v),
                             .out = rows_of(out),
                             .dout = rows_of(dout),
                             .maximum = maximum.span(),
                             .denominator = denominator.span(),
                             .heads = kHeads,
                             .kv_heads = kKvHeads,
                             .head_order = Contraction::straight(kHeads),
                             .segments = segments,
                             .scale = kScale,
                             .dq = rows_of(dq),
                             .dk = rows_of(dk),
                             .dv = rows_of(dv)},
                            context.stream());
                    });
                }
                return {.work = work, .units = t, .unit = "tokens"};
            }};
}

/// Eight sequences that each decode one token: the cache is read once.
BenchRow paged_row(DType type, std::int64_t tokens) {
    return {
        .name = fmt::format("attention{}/decode/{}", suffix_of(type), tokens),
        .what = "the next token of eight sequences of so many keys, from the paged cache",
        .run = [=](BenchContext& context, Meter& meter) -> RowFacts {
            constexpr std::int64_t kSequences = 8;
            const std::int64_t each = ceil_div(tokens, kKeyBlock);
            kernels::KvPages pages{.dtype = type,
                                   .pages = kSequences * each,
                                   .kv_heads = kKvHeads,
                                   .head_dim = kHeadDim,
                                   .value_dim = kHeadDim};
            const auto cache = context.random(pages.pages * pages.page_elements(), type);
            pages.handle = cache.span().handle();
            std::vector<std::int32_t> table(static_cast<std::size_t>(pages.pages));
            std::iota(table.begin(), table.end(), 0);
            std::vector<kernels::PagedRun> runs;
            for (std::int64_t i = 0; i < kSequences; ++i) {
                runs.push_back(
                    {.row_begin = i, .rows = 1, .position = tokens - 1, .page_begin = i * each});
            }
            const auto q = context.random(kSequences * kHeads * kHeadDim, type);
            const auto out = context.random(kSequences * kHeads * kHeadDim, type);
            const auto rows_of = [&](const kernels::DeviceBuffer<std::byte>& buffer) {
                return Matrix(buffer.span().handle(), type, kSequences, kHeads * kHeadDim,
                              kHeads * kHeadDim);
            };
            const auto keys = static_cast<double>(kSequences * tokens);
            const BenchWork work{
                .flop = 4.0 * keys * static_cast<double>(kHeads * kHeadDim),
                .bytes = keys * 2.0 * static_cast<double>(kKvHeads * kHeadDim * size_of(type))};
            meter.expect({work});
            context.expect_peak(type, meter);
            while (meter.more()) {
                meter.time([&] {
                    context.device().paged_attention({.q = rows_of(q),
                                                      .heads = kHeads,
                                                      .pages = pages,
                                                      .runs = runs,
                                                      .page_table = table,
                                                      .scale = kScale,
                                                      .out = rows_of(out)},
                                                     context.stream());
                });
            }
            return {.work = work};
        }};
}

}  // namespace

void append_attention_rows(const BenchSizes& sizes, std::vector<BenchRow>& rows) {
    for (const DType type : {DType::f32, DType::bf16}) {
        for (const bool backward : {false, true}) {
            for (const std::int64_t tokens : sizes.attention_tokens)
                rows.push_back(segment_row(type, tokens, backward));
        }
        for (const std::int64_t tokens : sizes.attention_tokens)
            rows.push_back(paged_row(type, tokens));
    }
}

}  // namespace rankwise::app
