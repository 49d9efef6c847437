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
BenchRow segment_row(std::int64_t tokens, bool backward) {
    return {.name = fmt::format("attention/{}/{}", backward ? "backward" : "forward", tokens),
            .what = fmt::format("one sequence, {} heads of {} over {} KV heads, as in training",
                                kHeads, kHeadDim, kKvHeads),
            .run = [=](BenchContext& context, Meter& meter) -> RowFacts {
                const auto q = context.random(tokens * kHeads * kHeadDim);
                const auto k = context.random(tokens * kKvHeads * kHeadDim);
                const auto v = context.random(tokens * kKvHeads * kHeadDim);
                const auto out = context.zeros(tokens * kHeads * kHeadDim);
                const auto maximum = context.zeros(tokens * kHeads);
                const auto denominator = context.zeros(tokens * kHeads);
                const std::vector<kernels::AttentionSegment> segments{{.rows = tokens}};
                const auto wide = [&](const kernels::DeviceBuffer<float>& buffer) {
                    return Matrix(buffer.span(), tokens, buffer.size() / tokens);
                };
                const auto run_forward = [&] {
                    context.device().segment_attention({.q = wide(q),
                                                        .k = wide(k),
                                                        .v = wide(v),
                                                        .heads = kHeads,
                                                        .kv_heads = kKvHeads,
                                                        .segments = segments,
                                                        .scale = kScale,
                                                        .out = wide(out),
                                                        .maximum = maximum.span(),
                                                        .denominator = denominator.span()},
                                                       context.stream());
                };
                const auto t = static_cast<double>(tokens);
                const BenchWork work{.flop = (backward ? 10.0 : 4.0) * t * (t + 1.0) / 2.0 *
                                             static_cast<double>(kHeads * kHeadDim)};
                meter.expect({work});
                if (!backward) {
                    while (meter.more()) meter.time(run_forward);
                    return {.work = work, .units = t, .unit = "tokens"};
                }
                const auto dout = context.random(tokens * kHeads * kHeadDim);
                const auto dq = context.zeros(tokens * kHeads * kHeadDim);
                const auto dk = context.zeros(tokens * kKvHeads * kHeadDim);
                const auto dv = context.zeros(tokens * kKvHeads * kHeadDim);
                run_forward();
                while (meter.more()) {
                    meter.time([&] {
                        context.device().segment_attention_backward(
                            {.q = wide(q),
                             .k = wide(k),
                             .v = wide(v),
                             .out = wide(out),
                             .dout = wide(dout),
                             .maximum = maximum.span(),
                             .denominator = denominator.span(),
                             .heads = kHeads,
                             .kv_heads = kKvHeads,
                             .head_order = Contraction::straight(kHeads),
                             .segments = segments,
                             .scale = kScale,
                             .dq = wide(dq),
                             .dk = wide(dk),
                             .dv = wide(dv)},
                            context.stream());
                    });
                }
                return {.work = work, .units = t, .unit = "tokens"};
            }};
}

/// Eight sequences that each decode one token: the cache is read once.
BenchRow paged_row(std::int64_t tokens) {
    return {
        .name = fmt::format("attention/decode/{}", tokens),
        .what = "the next token of eight sequences of so many keys, from the paged cache",
        .run = [=](BenchContext& context, Meter& meter) -> RowFacts {
            constexpr std::int64_t kSequences = 8;
            const std::int64_t each = ceil_div(tokens, kKeyBlock);
            kernels::KvPages pages{.pages = kSequences * each,
                                   .kv_heads = kKvHeads,
                                   .head_dim = kHeadDim,
                                   .value_dim = kHeadDim};
            const auto cache = context.random(pages.pages * pages.page_elements());
            pages.handle = reinterpret_cast<std::byte*>(cache.span().handle());
            std::vector<std::int32_t> table(static_cast<std::size_t>(pages.pages));
            std::iota(table.begin(), table.end(), 0);
            std::vector<kernels::PagedRun> runs;
            for (std::int64_t i = 0; i < kSequences; ++i) {
                runs.push_back(
                    {.row_begin = i, .rows = 1, .position = tokens - 1, .page_begin = i * each});
            }
            const auto q = context.random(kSequences * kHeads * kHeadDim);
            const auto out = context.zeros(kSequences * kHeads * kHeadDim);
            const auto keys = static_cast<double>(kSequences * tokens);
            const BenchWork work{
                .flop = 4.0 * keys * static_cast<double>(kHeads * kHeadDim),
                .bytes = keys * 2.0 * static_cast<double>(kKvHeads * kHeadDim) * sizeof(float)};
            meter.expect({work});
            while (meter.more()) {
                meter.time([&] {
                    context.device().paged_attention(
                        {.q = Matrix(q.span(), kSequences, kHeads * kHeadDim),
                         .heads = kHeads,
                         .pages = pages,
                         .runs = runs,
                         .page_table = table,
                         .scale = kScale,
                         .out = Matrix(out.span(), kSequences, kHeads * kHeadDim)},
                        context.stream());
                });
            }
            return {.work = work};
        }};
}

}  // namespace

void append_attention_rows(const BenchSizes& sizes, std::vector<BenchRow>& rows) {
    for (const bool backward : {false, true}) {
        for (const std::int64_t tokens : sizes.attention_tokens)
            rows.push_back(segment_row(tokens, backward));
    }
    for (const std::int64_t tokens : sizes.attention_tokens) rows.push_back(paged_row(tokens));
}

}  // namespace rankwise::app
