// Rows of `rankwise bench`: update, generation and decoding of whole models.
#include <fmt/format.h>

#include <algorithm>

#include "src/app/bench_rows.hpp"
#include "src/app/bench_update.hpp"
#include "src/rollout/generator.hpp"

namespace rankwise::app {
namespace {

std::string row_name(const char* row, const BenchModel& model) {
    return fmt::format("{}{}/{}", row, suffix_of(model.config.dtype), model.name);
}

BenchRow update_row(const BenchModel& model) {
    return {.name = row_name("update", model),
            .what = fmt::format("forward, backward and AdamW over {} sequences of {} tokens",
                                model.update_rows, model.update_tokens),
            .run = [=](BenchContext& context, Meter& meter) -> RowFacts {
                BenchUpdate update(context, model, context.models(model).at("policy"));
                meter.expect({update.work(context)});
                context.expect_peak(model.config.dtype, meter);
                update.step();  // memory grows to its size
                while (meter.more()) meter.time([&] { update.step(); });
                return update.facts(context);
            }};
}

/// What one answer for every layout costs: the same update with as few leaves as the tensor ranks
/// leave, and chunks added in another order. The share is that of the plain one's time.
BenchRow canonical_row(const BenchModel& model) {
    return {.name = "canonical/" + model.name,
            .what =
                "an update with sums in canonical order, beside plain ones: a leaf a tensor "
                "rank, chunks in another order",
            .run = [=](BenchContext& context, Meter& meter) -> RowFacts {
                BenchModel plain = model;
                plain.config.reduction = {context.mesh().degree(parallel::Axis::tensor)};
                model::Weights& policy = context.models(model).at("policy");
                model::Weights plain_policy(context.device(), plain.config,
                                            model::Passes::forward_and_backward,
                                            stages::model_axes(context.mesh(), context.physical()));
                fill_for_bench(plain_policy, context.compute());
                BenchUpdate ours(context, model, policy);
                BenchUpdate theirs(context, plain, plain_policy);
                theirs.trainer().gradient_owners().break_order(true);
                const auto timed = [&](BenchUpdate& update) {
                    context.world().barrier("bench");
                    const double begin_s = context.clock().now_s();
                    update.step();
                    context.world().barrier("bench");
                    return context.clock().now_s() - begin_s;
                };
                (void)timed(ours);
                (void)timed(theirs);
                while (meter.more()) {
                    const double ours_s = timed(ours);
                    meter.sample_against(ours_s, timed(theirs), "plain sums");
                }
                return ours.facts(context);
            }};
}

/// Prompts that differ, each with some samples.
std::vector<rollout::Request> requests_of(const BenchModel& model, std::int64_t prompts,
                                          std::int64_t samples, std::int64_t prompt_tokens) {
    std::vector<rollout::Request> requests;
    for (std::int64_t i = 0; i < prompts; ++i) {
        requests.push_back({.prompt_id = static_cast<std::uint64_t>(i),
                            .group = i,
                            .samples = narrow<std::int32_t>(samples),
                            .prompt = bench_tokens(prompt_tokens, model.config.vocab_size, i + 1)});
    }
    return requests;
}

/// Generates without an end of sequence, so that every answer has all its tokens.
std::size_t generate(BenchContext& context, rollout::Generator& generator,
                     std::span<const rollout::Request> requests, std::int64_t new_tokens,
                     const rollout::Generator::Callbacks& callbacks) {
    const parallel::Mesh& mesh = context.mesh();
    const rollout::SamplingOptions sampling{.max_new_tokens = new_tokens, .seed = 3};
    rollout::DealtWork dealt(requests, mesh.axis(parallel::Axis::data),
                             context.physical().deal_interval);
    rollout::GroupWork work(dealt, mesh.axis(parallel::Axis::tensor));
    return generator.run(requests, sampling, work, 0, callbacks).size();
}

rollout::GeneratorOptions generator_options(const BenchContext& context, std::int64_t slots) {
    return {.slots = slots,
            .prefill_tokens = context.physical().prefill_tokens,
            .logits_bytes = context.physical().head_bytes};
}

BenchRow generation_row(const BenchModel& model) {
    return {
        .name = row_name("generate", model),
        .what = fmt::format("{} prompts of {} tokens, {} samples of {} tokens each", model.prompts,
                            model.prompt_tokens, model.samples, model.new_tokens),
        .run = [=](BenchContext& context, Meter& meter) -> RowFacts {
            model::Weights& policy = context.models(model).at("policy");
            const std::int64_t groups = context.mesh().degree(parallel::Axis::data);
            const auto shares = static_cast<double>(context.mesh().degree(parallel::Axis::tensor));
            const std::int64_t answers = model.prompts * model.samples;
            rollout::Generator generator(
                context.compute(), policy,
                generator_options(context,
                                  std::min(context.physical().slots, ceil_div(answers, groups))),
                nullptr, model.config.vocab_size);
            const auto requests =
                requests_of(model, model.prompts, model.samples, model.prompt_tokens);
            BenchModel mine = model;
            mine.prompts = ceil_div(model.prompts, groups);
            std::vector<BenchWork> work = generation_work(mine);
            for (BenchWork& part : work) {  // tensor ranks share the weights
                part.flop /= shares;
                part.bytes /= shares;
            }
            meter.expect(work);
            context.expect_peak(model.config.dtype, meter);
            const auto run = [&] {
                (void)generate(context, generator, requests, model.new_tokens, {});
            };
            run();
            while (meter.more()) meter.time(run);
            RowFacts facts{.units = static_cast<double>(answers * model.new_tokens),
                           .unit = "tokens"};
            for (const BenchWork& part : work) {
                facts.work.flop += part.flop;
                facts.work.bytes += part.bytes;
            }
            return facts;
        }};
}

/// Prompts, and the first token of an answer to each.
BenchRow prefill_row(const BenchModel& model, std::int64_t prompts, std::int64_t prompt_tokens) {
    const std::int64_t tokens = std::min(prompt_tokens, model.config.max_position / 2);
    return {.name = row_name("prefill", model),
            .what = fmt::format("{} prompts of {} tokens on each rank, and the first token of an "
                                "answer to each",
                                prompts, tokens),
            .run = [=](BenchContext& context, Meter& meter) -> RowFacts {
                model::Weights& policy = context.models(model).at("policy");
                rollout::Generator generator(context.compute(), policy,
                                             generator_options(context, prompts), nullptr,
                                             model.config.vocab_size);
                const auto requests = requests_of(model, prompts, 1, tokens);
                BenchModel once = model;
                once.prompts = prompts;
                once.samples = 1;
                once.prompt_tokens = tokens;
                once.new_tokens = 1;
                const std::vector<BenchWork> work = generation_work(once);
                meter.expect(work);
                context.expect_peak(model.config.dtype, meter);
                const auto run = [&] {
                    rollout::LocalWork units(requests);
                    (void)generator.run(requests, {.max_new_tokens = 1, .seed = 3}, units, 0, {});
                };
                run();
                while (meter.more()) meter.time(run);
                return {.work = {.flop = work[0].flop + work[1].flop},
                        .units = static_cast<double>(prompts * tokens * context.world().size()),
                        .unit = "tokens"};
            }};
}

/// Steps of decoding, each timed by itself: prompts are computed before the first.
BenchRow decode_row(const BenchModel& model, std::int64_t batch) {
    return {
        .name = fmt::format("{}/{}", row_name("decode", model), batch),
        .what = fmt::format("one token more for {} answers on each rank, sampling included", batch),
        .run = [=](BenchContext& context, Meter& meter) -> RowFacts {
            constexpr std::int64_t kPrompt = 128;
            constexpr std::int64_t kMostTokens = 128;
            constexpr std::int64_t kWarm = 3;
            const std::int64_t room = model.config.max_position;
            const std::int64_t prompt = std::min(kPrompt, room / 2);
            const std::int64_t new_tokens = std::min(kMostTokens, room - prompt);
            const std::int64_t prompts = std::min<std::int64_t>(batch, 32);
            const std::int64_t samples = batch / prompts;
            const auto answers = static_cast<double>(prompts * samples);
            model::Weights& policy = context.models(model).at("policy");
            rollout::Generator generator(context.compute(), policy,
                                         generator_options(context, prompts * samples), nullptr,
                                         model.config.vocab_size);
            const auto requests = requests_of(model, prompts, samples, prompt);
            const BenchWork work =
                decode_work(model.config, answers, static_cast<double>(prompts),
                            static_cast<double>(prompt), static_cast<double>(prompt + 16));
            meter.expect({work});
            context.expect_peak(model.config.dtype, meter);
            // Every rank decodes a batch of its own.
            bool more = meter.more();
            while (more) {
                std::int64_t step = 0;
                double begin_s = 0.0;
                rollout::LocalWork units(requests);
                (void)generator.run(requests, {.max_new_tokens = new_tokens, .seed = 3}, units, 0,
                                    {.stop = [&] {
                                        if (step > kWarm) {
                                            meter.sample(context.clock().now_s() - begin_s);
                                            more = meter.more();
                                        }
                                        ++step;
                                        begin_s = context.clock().now_s();
                                        // What a whole run of answers takes of the cache grows too
                                        // far from what is expected: a new one begins.
                                        return !more || step > kWarm + 32;
                                    }});
            }
            return {.work = work,
                    .units = answers * static_cast<double>(context.world().size()),
                    .unit = "tokens"};
        }};
}

}  // namespace

void append_phase_rows(const BenchSizes& sizes, std::vector<BenchRow>& rows) {
    for (BenchModel model : sizes.models) {
        for (const DType type : {DType::f32, DType::bf16}) {
            model.config.dtype = type;
            rows.push_back(update_row(model));
            if (type == DType::f32 && model.config.tree().leaves() > 1)
                rows.push_back(canonical_row(model));
            rows.push_back(prefill_row(model, sizes.prefill_prompts, sizes.prefill_tokens));
            rows.push_back(generation_row(model));
            for (const std::int64_t batch : sizes.decode_batches)
                rows.push_back(decode_row(model, batch));
        }
    }
}

}  // namespace rankwise::app
