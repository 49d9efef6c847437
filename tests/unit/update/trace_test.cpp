// Records of updates: the same in every layout, and the first to differ where a value does.
#include "src/update/update_trace.hpp"

#include "tests/support/whole_trace.hpp"
#include "tests/unit/update/updates_on.hpp"

namespace rankwise::update {
namespace {

using namespace test_updates;
using model::ModelConfig;
using parallel::Communicator;
using parallel::Schedule;

using test::WholeTrace;

std::map<WholeTrace::Place, UInt128> traced_on(const ModelConfig& config, const Layout& layout) {
    WholeTrace whole;
    parallel::ThreadWorld world(narrow<int>(layout.shape.ranks()));
    world.run([&](Communicator& axis) {
        (void)updates_on(axis, config, layout,
                         [&](std::span<const TraceRecord> records) { whole.add(records); });
    });
    return whole.values();
}

/// The values of `some` are among those of `all`, which says `all` has no others unless `fewer`.
void expect_within(const std::map<WholeTrace::Place, UInt128>& some,
                   const std::map<WholeTrace::Place, UInt128>& all, bool fewer) {
    ASSERT_GT(some.size(), 100U);
    for (const auto& [place, digest] : some) {
        const std::string& op = std::get<std::string>(place);
        ASSERT_TRUE(all.contains(place)) << op;
        ASSERT_EQ(all.at(place), digest) << op << " of layer " << std::get<3>(place);
    }
    if (fewer) {
        EXPECT_LT(some.size(), all.size());
    } else {
        EXPECT_EQ(some.size(), all.size());
    }
}

TEST(UpdateTraces, AreTheSameInEveryLayoutButForPartsOfTensorRanks) {
    constexpr Schedule kPlain = Schedule::one_forward_one_backward;
    for (const ModelConfig& config :
         {config_of(model::Family::qwen2, 8), config_of(model::Family::qwen3, 8),
          config_of(model::Family::deepseek_v3, 8),
          test::in_bf16(config_of(model::Family::llama, 8))}) {
        const auto expected = traced_on(config, {});
        std::vector<Layout> layouts{
            {{.data = 3}, kPlain, 8},
            {{.data = 2}, kPlain, 3, 3},
            {{.pipeline = 2}, Schedule::zero_bubble},
            {{.data = 2, .pipeline = 2}, Schedule::zero_bubble, 0, 3},
            {{.data = 2, .pipeline = 2}, Schedule::interleaved, 1, 0},
        };
        if (config.experts.routed > 0) layouts.push_back({{.data = 2, .expert = 2}, kPlain});
        for (const Layout& layout : layouts) {
            SCOPED_TRACE(fmt::format("{} in {}", name_of(config.family), to_string(layout.shape)));
            expect_within(traced_on(config, layout), expected, false);
        }
        // Parts of tensor ranks are left out.
        SCOPED_TRACE(fmt::format("{} on tensor ranks", name_of(config.family)));
        expect_within(traced_on(config, {{.data = 2, .tensor = 2}}), expected, true);
    }
}

TEST(UpdateTraces, AModuleThatPredictsFurtherIsALayerOfItsOwn) {
    ModelConfig config = config_of(model::Family::deepseek_v3, 8);
    config.extra_layers = 1;
    const Layout alone{.shape = {}, .mtp = true};
    const Layout split{.shape = {.data = 2, .pipeline = 2}, .zero = 3, .mtp = true};
    const auto expected = traced_on(config, alone);
    expect_within(traced_on(config, split), expected, false);
    EXPECT_TRUE(std::ranges::any_of(expected, [&](const auto& value) {
        return std::get<TracePass>(value.first) == TracePass::forward &&
               std::get<3>(value.first) == config.layers;
    }));
}

TEST(UpdateTraces, HoldEveryPassOfEveryChunkAndChangeNothing) {
    const ModelConfig config = config_of(model::Family::llama, 4);
    WholeTrace whole;
    parallel::ThreadWorld world(1);
    Result watched;
    Result unwatched;
    world.run([&](Communicator& axis) {
        watched = updates_on(axis, config, {},
                             [&](std::span<const TraceRecord> records) { whole.add(records); });
        unwatched = updates_on(axis, config, {});
    });
    EXPECT_EQ(watched, unwatched);
    const auto chunks = std::ssize(batches_of(plan_minibatch(Data().sizes, kPlan)));
    constexpr std::int64_t kUpdates = 2;
    EXPECT_EQ(whole.count(TracePass::head), kUpdates * chunks * 3);
    EXPECT_EQ(whole.count(TracePass::forward), kUpdates * chunks * config.layers * 5);
    EXPECT_EQ(whole.count(TracePass::backward), kUpdates * chunks * config.layers * 2);
    test::SmallModel model(config);
    EXPECT_EQ(whole.count(TracePass::gradient), kUpdates * model.weights.table().count());
}

TEST(UpdateTraces, ALayerThatIsComputedAgainWithOtherBitsIsAFault) {
    test::SmallModel model(config_of(model::Family::llama, 2));
    UpdateTrace trace(model.weights);
    trace.begin_update();
    trace.enter_chunk(3);
    const kernels::Arena::Scope scope(model.compute.arena);
    const kernels::Matrix value = model.compute.matrix(2, 4);
    const auto set = [&](float number) {
        const std::vector<float> numbers(8, number);
        model.compute.device.upload(std::as_bytes(std::span(numbers)),
                                    DeviceSpan<std::byte>(value.handle, 8 * size_of(DType::f32)),
                                    model.compute.stream);
    };
    set(1.0F);
    trace.layer({1, "o_proj", value}, model.compute);
    trace.layer({1, "o_proj", value}, model.compute);
    EXPECT_EQ(trace.records().size(), 1U);
    set(2.0F);
    EXPECT_THROW(trace.layer({1, "o_proj", value}, model.compute), BadNumbers);
}

}  // namespace
}  // namespace rankwise::update
