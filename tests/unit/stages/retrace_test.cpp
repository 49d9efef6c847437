#include "src/stages/retrace.hpp"

#include "src/rollout/generator.hpp"
#include "src/stages/ratio_check.hpp"
#include "tests/support/forwarding_device.hpp"
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

TEST(Retrace, NamesTheTensorRankToo) {
    parallel::ThreadWorld(6).run([&](parallel::Communicator& communicator) {
        test::ToyRun run(communicator, {.data = 3, .tensor = 2}, test::ToyRun::config(), {});
        DisputedAnswer answer = generated(run);
        answer.computed_by = 1;
        if (run.mesh.coordinates().data == 1)  // of which the first tensor rank has the weight
            flip_bit(run.models.at("policy"), run.model.compute, WeightCopy::packed);
        EXPECT_EQ(found(run, answer),
                  "computed again, data rank 1 differs from most first in layer 0, gate_up, on "
                  "tensor rank 0");
    });
}

/// A device that computes products of so many columns wrong, once it is told to: as a processor
/// might that errs, whatever it reads.
class ErringDevice final : public test::ForwardingDevice {
  public:
    ErringDevice(kernels::Device& own, std::int64_t cols) : ForwardingDevice(own), cols_(cols) {}
    void err(bool on) { errs_ = on; }
    void matmul(const kernels::MatmulArgs& a, S& s) override {
        ForwardingDevice::matmul(a, s);
        if (!errs_ || a.y.cols != cols_) return;
        for (std::int64_t row = 0; row < a.y.rows; ++row) {
            const kernels::Matrix first = a.y.row_range({row, row + 1}).col_range({0, 1});
            const DeviceSpan<float> one(reinterpret_cast<float*>(first.handle), 1);
            const float wrong = Memory::download<float>(DeviceSpan<const float>(one), s)[0] + 1.0F;
            Memory::upload<float>(std::span<const float>(&wrong, 1), one, s);
        }
    }

  private:
    std::int64_t cols_;
    bool errs_ = false;
};

/// What is found where products of so many columns go wrong on one data rank after the answer was
/// generated.
std::string found_where_one_errs(parallel::Communicator& communicator,
                                 const parallel::MeshShape& shape, const model::ModelConfig& config,
                                 const PhysicalOptions& physical, std::int64_t cols, int errs) {
    test::ToyRun run(communicator, shape, config, physical);
    ErringDevice device(*run.model.device, cols);
    kernels::Arena arena(device);
    model::Compute compute{device, run.model.device.stream(), arena};
    const Environment environment{.compute = compute,
                                  .mesh = run.mesh,
                                  .models = run.models,
                                  .task = run.task,
                                  .log = run.log,
                                  .clock = run.clock,
                                  .seed = run.environment.seed,
                                  .physical = physical};
    DisputedAnswer answer = generated(run);
    answer.computed_by = errs;
    device.err(run.mesh.coordinates().data == errs);
    return retrace(environment, run.models.at("policy"), {.ids = test::kToyIds}, sampling(),
                   answer);
}

TEST(Retrace, NamesTheRankThatErrsWhereEachHoldsSomeRowsOfEveryWeight) {
    const model::ModelConfig config = test::ToyRun::config();
    parallel::ThreadWorld(3).run([&](parallel::Communicator& communicator) {
        EXPECT_EQ(found_where_one_errs(communicator, {.data = 3}, config, {.zero = 3},
                                       2 * config.intermediate, 2),
                  "computed again, data rank 2 differs from most first in layer 0, gate_up");
    });
}

/// An expert computes for the rows of all ranks that share it out: they part from the others
/// together.
TEST(Retrace, NamesTheRanksThatShareOutAnExpertThatErrs) {
    model::ModelConfig config = test::small_config(model::Family::deepseek_v3);
    config.vocab_size = test::kToyIds + 3;
    config.experts.shared = 2;  // wider than one that is chosen
    const std::int64_t of_an_expert = 2 * config.experts.intermediate;
    for (const std::int64_t zero : {1, 3}) {
        parallel::ThreadWorld(6).run([&](parallel::Communicator& communicator) {
            const parallel::MeshShape shape{.data = 6, .expert = 2};
            EXPECT_EQ(
                found_where_one_errs(communicator, shape, config, {.zero = zero}, of_an_expert, 5),
                "computed again, data ranks 4, 5 differ from most first in layer 1, experts");
            EXPECT_EQ(found_where_one_errs(communicator, shape, config, {.zero = zero},
                                           2 * config.intermediate, 5),
                      "computed again, data rank 5 differs from most first in layer 0, gate_up");
        });
    }
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
