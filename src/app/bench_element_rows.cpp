// Rows of `rankwise bench`: what goes through memory row by row or element by element.
#include <fmt/format.h>

#include "src/app/bench_rows.hpp"
#include "src/model/head.hpp"

namespace rankwise::app {
namespace {

using kernels::ConstMatrix;
using kernels::Matrix;

constexpr std::int64_t kHidden = 512;
constexpr double kElement = sizeof(float);

/// Times `op`, which moves so many arrays of `elements` floats to or from memory.
RowFacts measure_moves(Meter& meter, std::int64_t elements, double arrays, const auto& op) {
    const BenchWork work{.bytes = arrays * kElement * static_cast<double>(elements)};
    meter.expect({work});
    while (meter.more()) meter.time(op);
    return {.work = work};
}

BenchRow norm_row(std::int64_t elements, bool backward) {
    return {.name = fmt::format("norm/{}", backward ? "backward" : "forward"),
            .what = fmt::format("RMSNorm of rows of {}{}", kHidden,
                                backward ? ": gradients of input and weight" : ""),
            .run = [=](BenchContext& context, Meter& meter) -> RowFacts {
                const std::int64_t rows = std::max<std::int64_t>(1, elements / kHidden);
                const auto x = context.random(rows * kHidden);
                const auto weight = context.random(kHidden);
                const auto y = context.zeros(rows * kHidden);
                const auto inv_rms = context.zeros(rows);
                const Matrix in(x.span(), rows, kHidden);
                const Matrix out(y.span(), rows, kHidden);
                const auto forward = [&] {
                    context.device().rms_norm({.x = in,
                                               .weight = weight.span(),
                                               .eps = 1e-6F,
                                               .y = out,
                                               .inv_rms = inv_rms.span()},
                                              context.stream());
                };
                forward();
                if (!backward) return measure_moves(meter, rows * kHidden, 2.0, forward);
                const auto dy = context.random(rows * kHidden);
                const auto dw = context.zeros(kHidden);
                std::vector<std::int64_t> blocks;
                for (std::int64_t row = 0; row < rows; row += 64) blocks.push_back(row);
                blocks.push_back(rows);
                return measure_moves(meter, rows * kHidden, 5.0, [&] {
                    context.device().rms_norm_backward({.dy = Matrix(dy.span(), rows, kHidden),
                                                        .x = in,
                                                        .weight = weight.span(),
                                                        .inv_rms = inv_rms.span(),
                                                        .dx = out},
                                                       context.stream());
                    context.device().rms_norm_weight_gradient(
                        {.dy = Matrix(dy.span(), rows, kHidden),
                         .x = in,
                         .inv_rms = inv_rms.span(),
                         .blocks = blocks,
                         .dw = dw.span()},
                        context.stream());
                });
            }};
}

BenchRow swiglu_row(std::int64_t elements, bool backward) {
    return {.name = fmt::format("swiglu/{}", backward ? "backward" : "forward"),
            .what = fmt::format("rows of {} gates and as many values", kHidden),
            .run = [=](BenchContext& context, Meter& meter) -> RowFacts {
                const std::int64_t rows = std::max<std::int64_t>(1, elements / kHidden);
                const auto gate_up = context.random(2 * rows * kHidden);
                const auto out = context.random(rows * kHidden);
                const auto gradient = context.zeros(2 * rows * kHidden);
                const Matrix in(gate_up.span(), rows, 2 * kHidden);
                if (backward) {
                    return measure_moves(meter, rows * kHidden, 5.0, [&] {
                        context.device().swiglu_backward(
                            {.gate_up = in,
                             .dout = Matrix(out.span(), rows, kHidden),
                             .dgate_up = Matrix(gradient.span(), rows, 2 * kHidden)},
                            context.stream());
                    });
                }
                return measure_moves(meter, rows * kHidden, 3.0, [&] {
                    context.device().swiglu(
                        {.gate_up = in, .out = Matrix(out.span(), rows, kHidden)},
                        context.stream());
                });
            }};
}

/// Logits, log-softmax and entropy of rows, with a vocabulary of a real model.
BenchRow head_row(std::int64_t vocabulary) {
    return {.name = "head",
            .what = "logits and log-softmax of 256 rows over a vocabulary",
            .run = [=](BenchContext& context, Meter& meter) -> RowFacts {
                constexpr std::int64_t kRows = 256;
                model::ModelConfig config;
                config.vocab_size = vocabulary;
                config.hidden = kHidden;
                config.layers = 1;
                config.heads = config.kv_heads = 8;
                config.head_dim = kHidden / config.heads;
                config.intermediate = 16;
                config.max_position = 16;
                config.tied = true;
                model::Weights weights(context.device(), config, model::Passes::forward);
                fill_for_bench(weights, context.compute());
                const auto hidden = context.random(kRows * kHidden);
                const auto out = context.zeros(2 * kRows);
                const std::vector<TokenId> targets(static_cast<std::size_t>(kRows), 1);
                const BenchWork work{.flop = 2.0 * static_cast<double>(kRows * kHidden) *
                                             static_cast<double>(vocabulary),
                                     .bytes = kElement * static_cast<double>(kHidden * vocabulary)};
                meter.expect({work});
                while (meter.more()) {
                    meter.time([&] {
                        model::head_logprobs(
                            context.compute(), weights,
                            {.ids = vocabulary, .block_bytes = context.physical().head_bytes},
                            ConstMatrix(hidden.span(), kRows, kHidden),
                            [&](Range some, ConstMatrix) {
                                return std::span(targets).subspan(
                                    static_cast<std::size_t>(some.begin),
                                    static_cast<std::size_t>(some.size()));
                            },
                            {.logprob = out.span().subspan(0, kRows),
                             .sum = out.span().subspan(kRows, kRows)});
                    });
                }
                return {.work = work, .units = kRows, .unit = "tokens"};
            }};
}

BenchRow adamw_row(std::int64_t elements) {
    return {.name = "adamw",
            .what = "one step: reads parameter, gradient and moments, writes all but the gradient",
            .run = [=](BenchContext& context, Meter& meter) -> RowFacts {
                const auto parameter = context.random(elements);
                const auto grad = context.random(elements);
                const auto m = context.zeros(elements);
                const auto v = context.zeros(elements);
                return measure_moves(meter, elements, 7.0, [&] {
                    context.device().adamw({.parameter = parameter.span(),
                                            .grad = grad.span(),
                                            .m = m.span(),
                                            .v = v.span(),
                                            .lr = 1e-6F,
                                            .correction1 = 0.1F,
                                            .correction2 = 0.001F},
                                           context.stream());
                });
            }};
}

BenchRow sample_row(std::int64_t vocabulary) {
    return {.name = "sampling",
            .what = "one token of each of 64 rows of logits, temperature 1",
            .run = [=](BenchContext& context, Meter& meter) -> RowFacts {
                constexpr std::int64_t kRows = 64;
                const auto logits = context.random(kRows * vocabulary);
                std::vector<kernels::SampleRow> rows(static_cast<std::size_t>(kRows));
                for (std::uint32_t i = 0; i < kRows; ++i) rows[i] = {.key = {i, 7}, .position = 3};
                std::vector<std::int32_t> tokens(static_cast<std::size_t>(kRows));
                RowFacts facts = measure_moves(meter, kRows * vocabulary, 1.0, [&] {
                    context.device().sample(
                        {.logits = ConstMatrix(logits.span(), kRows, vocabulary),
                         .ids = vocabulary,
                         .rows = rows,
                         .tokens = tokens},
                        context.stream());
                });
                facts.units = kRows;
                facts.unit = "tokens";
                return facts;
            }};
}

BenchRow digest_row(std::int64_t elements) {
    return {.name = "digest",
            .what = "of a matrix of rows of 512",
            .run = [=](BenchContext& context, Meter& meter) -> RowFacts {
                const std::int64_t rows = std::max<std::int64_t>(1, elements / kHidden);
                const auto values = context.random(rows * kHidden);
                const std::vector<Range> pieces{{0, kHidden}};
                return measure_moves(meter, rows * kHidden, 1.0, [&] {
                    (void)context.device().digest({.x = ConstMatrix(values.span(), rows, kHidden),
                                                   .name = "bench",
                                                   .pieces = pieces},
                                                  context.stream());
                });
            }};
}

}  // namespace

void append_element_rows(const BenchSizes& sizes, std::vector<BenchRow>& rows) {
    for (const bool backward : {false, true}) rows.push_back(norm_row(sizes.elements, backward));
    for (const bool backward : {false, true}) rows.push_back(swiglu_row(sizes.elements, backward));
    rows.push_back(head_row(sizes.head_vocabulary));
    rows.push_back(adamw_row(sizes.elements));
    rows.push_back(sample_row(sizes.head_vocabulary));
    rows.push_back(digest_row(sizes.elements));
}

}  // namespace rankwise::app
