#include "src/stages/retrace.hpp"

#include "src/rollout/generator.hpp"
#include "src/stages/ratio_check.hpp"
#include "tests/unit/stages/toy_run.hpp"

namespace rankwise::stages {
namespace {

rollout::SamplingOptions sampling() {
    return {.max_new_tokens = 6, .stop_ids = {test::kToyEos}, .seed = 5};
}

/// An answer that this rank generates, disputed at its last token.
DisputedAnswer generated(test::ToyRun& run) {
    const rollout::Request request{.prompt_id = 3, .samples = 2, .prompt = {2, 6, 6}};
    rollout::Generator generator(run.model.compute, run.models.at("policy"), {.slots = 2},
                                 &run.task.tokenizer, test::kToyIds);
    rollout::LocalWork work(std::span(&request, 1));
    const Trajectory last = generator.run(std::span(&request, 1), sampling(), work, 0, {}).back();
    return {.request = request,
            .sample = last.sample,
            .tokens = {last.answer().begin(), last.answer().end()},
            .token = last.answer_size() - 1,
            .sampled = last.logprobs.back(),
            .computed = last.logprobs.back()};
}

std::string found(test::ToyRun& run, const DisputedAnswer& answer) {
    return retrace(run.environment, run.models.at("policy"), {.ids = test::kToyIds}, sampling(),
                   answer);
}

TEST(Retrace, NamesTheRankLayerAndOperationInWhichRanksPart) {
    parallel::ThreadWorld world(3);
    world.run([&](parallel::Communicator& communicator) {
        test::ToyRun run(communicator);
        DisputedAnswer answer = generated(run);
        answer.generated_by = 0;
        answer.computed_by = 2;
        if (communicator.rank() != 2) answer.tokens.clear();  // only the other rank has them
        if (communicator.rank() == 2)
            flip_bit(run.models.at("policy"), run.model.compute, WeightCopy::packed);
        EXPECT_EQ(found(run, answer),
                  "computed again, data rank 2 differs from most first in layer 0, gate_up");
    });
}

TEST(Retrace, SaysThatWhatTheSamplerReadHasChangedSince) {
    test::on_one_rank([](test::ToyRun& run) {
        const DisputedAnswer answer = generated(run);
        flip_bit(run.models.at("policy"), run.model.compute, WeightCopy::packed);
        const std::string text = found(run, answer);
        EXPECT_NE(text.find("generated again on data rank 0 it is "), std::string::npos) << text;
    });
}

TEST(Retrace, SaysThatTheUpdatesValueCannotBeHadAgain) {
    test::on_one_rank([](test::ToyRun& run) {
        DisputedAnswer answer = generated(run);
        answer.computed += 1.0F;
        const std::string text = found(run, answer);
        EXPECT_NE(text.find("computed again alone on data rank 0 it is "), std::string::npos)
            << text;
    });
}

TEST(Retrace, LeavesNoProbeBehind) {
    test::on_one_rank([](test::ToyRun& run) {
        const std::string text = found(run, generated(run));
        EXPECT_NE(text.find("they part in the head"), std::string::npos) << text;
        EXPECT_FALSE(run.model.compute.probe);
    });
}

}  // namespace
}  // namespace rankwise::stages
