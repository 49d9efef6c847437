// Rows of `rankwise bench`: whole GRPO steps, by the stage that a recipe runs.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "src/app/bench_rows.hpp"
#include "src/base/philox.hpp"
#include "src/stages/grpo.hpp"

namespace rankwise::app {
namespace {

/// A token a character, for a vocabulary of `size`; no token ends an answer, so that all have the
/// same length.
text::Tokenizer character_tokenizer(std::int64_t size) {
    using nlohmann::json;
    static const std::string kCharacters =
        "\n 0123456789abcdefghijklmnopqrstuvwxyz+-*/()=[],.<>:?_'UAST";
    json vocabulary = {{"<unk>", 0}};
    for (std::size_t i = 0; i < kCharacters.size(); ++i)
        vocabulary[std::string(1, kCharacters[i])] = i + 1;
    for (std::int64_t id = std::ssize(kCharacters) + 1; id < size; ++id)
        vocabulary[fmt::format("<unused{}>", id)] = id;
    const json file = {{"version", "1.0"},
                       {"truncation", nullptr},
                       {"padding", nullptr},
                       {"added_tokens", json::array()},
                       {"normalizer", nullptr},
                       {"pre_tokenizer", nullptr},
                       {"post_processor", nullptr},
                       {"decoder", {{"type", "Fuse"}}},
                       {"model",
                        {{"type", "BPE"},
                         {"unk_token", "<unk>"},
                         {"vocab", vocabulary},
                         {"merges", json::array()}}}};
    return text::Tokenizer::from_json(file.dump(), "bench");
}

/// "Using the numbers [3, 5, 7], make 22." without end, of about as many characters as are asked
/// for.
class NumberProblems final : public tasks::Dataset {
  public:
    explicit NumberProblems(std::int64_t characters) : characters_(characters) {}
    [[nodiscard]] std::optional<std::int64_t> size() const override { return std::nullopt; }
    [[nodiscard]] tasks::Problem problem(std::int64_t index) const override {
        RandomSequence random(
            RandomStream(1, Purpose::data_generation, static_cast<std::uint64_t>(index)));
        tasks::Problem problem{.id = static_cast<std::uint64_t>(index), .task = "bench"};
        problem.prompt =
            fmt::format("Using the numbers [{}, {}, {}], make {}.\nAnswer: ", random.below(100),
                        random.below(100), random.below(100), random.below(100));
        problem.prompt.resize(static_cast<std::size_t>(characters_), ' ');
        return problem;
    }

  private:
    std::int64_t characters_;
};

BenchRow grpo_row(const BenchModel& model) {
    return {
        .name = "grpo/" + model.name,
        .what = fmt::format("a step of GRPO with a reference: {} prompts of {} tokens, {} samples "
                            "of {} each, one update",
                            model.prompts, model.prompt_tokens, model.samples, model.new_tokens),
        .run = [=](BenchContext& context, Meter& meter) -> RowFacts {
            model::ModelSet& models = context.models(model);
            stages::TaskData task{.kind = "bench",
                                  .tokenizer = character_tokenizer(model.config.vocab_size),
                                  .train = std::make_unique<NumberProblems>(model.prompt_tokens)};
            const Log log;
            const stages::Environment environment{.compute = context.compute(),
                                                  .mesh = context.mesh(),
                                                  .models = models,
                                                  .task = task,
                                                  .log = log,
                                                  .clock = context.clock(),
                                                  .seed = 1,
                                                  .physical = context.physical()};
            stages::GrpoOptions options{.steps = 1'000'000,
                                        .num_prompts_per_step = model.prompts,
                                        .num_generations = model.samples,
                                        .beta = 0.001};
            options.sampling.max_completion_length = model.new_tokens;
            options.rewards.reward_funcs = {"repetition_penalty"};
            options.optimizer.lr_scheduler_type = "constant";
            options.optimizer.chunk_multiple = context.world().size();
            const auto stage = stages::make_grpo(environment, options);
            // Prompts once, answers once: of the policy forward and backward, of the reference.
            const double ranks = context.world().size();
            const auto prompts = static_cast<double>(model.prompts);
            const double answers = prompts * static_cast<double>(model.samples);
            const double tokens = prompts * static_cast<double>(model.prompt_tokens) +
                                  answers * static_cast<double>(model.new_tokens);
            BenchModel mine = model;
            mine.prompts = ceil_div(model.prompts, context.world().size());
            std::vector<BenchWork> work = generation_work(mine);
            const double context_length = static_cast<double>(model.prompt_tokens) +
                                          static_cast<double>(model.new_tokens) / 2.0;
            work.push_back(
                {.flop = 4.0 * forward_work(model.config, tokens / ranks, context_length).flop});
            meter.expect(work);
            std::int64_t index = 0;
            const auto step = [&] {
                const stages::StepResult result = stage->step(index++);
                for (const auto& [name, value] : result.metrics) {
                    constexpr std::string_view kTime = "time/";
                    if (name.starts_with(kTime) && std::holds_alternative<double>(value))
                        meter.part(name.substr(kTime.size()), std::get<double>(value));
                }
            };
            step();
            while (meter.more()) meter.time(step);
            RowFacts facts{.units = answers * static_cast<double>(model.new_tokens),
                           .unit = "sampled tokens"};
            for (const BenchWork& part : work) {
                facts.work.flop += part.flop;
                facts.work.bytes += part.bytes;
            }
            return facts;
        }};
}

}  // namespace

void append_step_rows(const BenchSizes& sizes, std::vector<BenchRow>& rows) {
    for (const BenchModel& model : sizes.models) {
        if (model.whole_steps) rows.push_back(grpo_row(model));
    }
}

}  // namespace rankwise::app
