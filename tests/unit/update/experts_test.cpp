// Updates with routed experts that are shared out over ranks: the bits of one rank.
#include <set>

#include "tests/unit/update/updates_on.hpp"

namespace rankwise::update {
namespace {

using namespace test_updates;
using parallel::Schedule;

constexpr auto kOneByOne = Schedule::one_forward_one_backward;

/// Experts over tensor ranks, over some of them, over data ranks, over both; with others that hold
/// the same ones, or alone; with waves of which some data ranks have no chunk; in rounds of few
/// rows.
std::vector<Layout> expert_layouts() {
    return {
        {{.tensor = 2, .expert = 2}},
        {{.tensor = 4, .expert = 2}},
        {{.tensor = 4, .expert = 2}, kOneByOne, model::kAllLayers, 1, 3},
        {{.data = 2, .tensor = 4, .expert = 2}, kOneByOne, 0, 0, 5},
        {{.data = 2, .tensor = 4, .expert = 2}, kOneByOne, model::kAllLayers, 3},
        {{.pipeline = 2, .tensor = 4, .expert = 2}, Schedule::zero_bubble, model::kAllLayers},
        {{.pipeline = 2, .tensor = 4, .expert = 2}, Schedule::interleaved, 0, 1, 2},
        {{.data = 2, .expert = 2}},
        {{.data = 3, .expert = 3}, kOneByOne, model::kAllLayers, 0},
        {{.data = 2, .tensor = 2, .expert = 2}, kOneByOne, model::kAllLayers},
        {{.data = 2, .tensor = 2, .expert = 4}, kOneByOne, 0, 1, 5},
        {{.data = 4, .expert = 2}, kOneByOne, 0, 1, 3},
        {{.data = 4, .expert = 2}, kOneByOne, model::kAllLayers, 0},
        {{.data = 4, .expert = 2}, kOneByOne, 0, 3},
        {{.data = 4, .expert = 4}, kOneByOne, model::kAllLayers, 3, 7},
        {{.data = 4, .tensor = 2, .expert = 4}, kOneByOne, 0, 0, 2},
        {{.data = 2, .tensor = 2, .expert = 4}, kOneByOne, 0, 3},
        {{.pipeline = 2, .tensor = 2, .expert = 2}, Schedule::zero_bubble, false, 1, 1},
        {{.data = 2, .pipeline = 2, .tensor = 2, .expert = 2},
         Schedule::interleaved,
         model::kAllLayers,
         3},
        {{.data = 2, .pipeline = 2, .expert = 2}, Schedule::zero_bubble, model::kAllLayers, 1, 4},
        {{.data = 4, .pipeline = 2, .expert = 2}, Schedule::zero_bubble, false, 0},
        {{.data = 2, .pipeline = 2, .expert = 2}, kOneByOne, 0, 3},
        {{.data = 3, .pipeline = 2, .expert = 3}, Schedule::interleaved, model::kAllLayers, 0, 2},
        {{.data = 2, .pipeline = 2, .expert = 2}, Schedule::interleaved, false, 3},
        {{.data = 2, .pipeline = 2, .tensor = 2, .expert = 4}, kOneByOne, model::kAllLayers, 1, 3},
        {{.data = 2, .pipeline = 2, .tensor = 2, .expert = 4}, Schedule::zero_bubble, false, 3},
        {{.data = 2, .pipeline = 2, .tensor = 2, .expert = 4},
         Schedule::interleaved,
         model::kAllLayers,
         3},
        {{.data = 4, .pipeline = 2, .expert = 2}, Schedule::zero_bubble, model::kAllLayers, 3},
        {{.pipeline = 2, .tensor = 2, .expert = 2}, Schedule::zero_bubble, model::kAllLayers, 3},
    };
}

TEST(SharedOutExperts, UpdatesAreThoseOfOneRankOnEveryMesh) {
    for (const model::Family family : {model::Family::deepseek_v2, model::Family::deepseek_v3}) {
        model::ModelConfig config = config_of(family, 7);
        config.experts.first_dense = 1;
        test::SmallModel alone(config);
        const Result expected = updates(alone.compute, alone.weights, *alone.self,
                                        {.head = {.ids = config.vocab_size}});
        for (const Layout& layout : expert_layouts()) {
            const std::string name = fmt::format(
                "{}, {}, {}, zero {}, rounds of {}", name_of(family), to_string(layout.shape),
                parallel::name_of(layout.schedule), layout.zero, layout.expert_rows);
            parallel::ThreadWorld world(narrow<int>(layout.shape.ranks()));
            world.run([&](parallel::Communicator& axis) {
                EXPECT_EQ(updates_on(axis, config, layout), expected) << name;
            });
        }
    }
}

/// parallel/README.md: rows there and back, of which those that stay are as many as if all experts
/// were chosen alike.
TEST(SharedOutExperts, BytesSentOverTheExpertAxisAreThoseOfTheFormula) {
    model::ModelConfig config = config_of(model::Family::deepseek_v3, 7);
    config.experts.first_dense = 1;
    const MinibatchPlan plan = plan_minibatch(Data().sizes, kPlan);
    std::int64_t rows = 0;
    for (const model::Microbatch& batch : batches_of(plan)) rows += batch.rows();
    for (const Layout& layout :
         {Layout{{.data = 2, .expert = 2}},
          Layout{{.data = 3, .expert = 3}, kOneByOne, model::kAllLayers, 3},
          Layout{{.data = 4, .expert = 2}, kOneByOne, 0, 0, 3},
          Layout{{.data = 2, .tensor = 2, .expert = 4}}, Layout{{.tensor = 4, .expert = 2}},
          Layout{{.data = 2, .pipeline = 2, .expert = 2}},
          Layout{
              {.data = 2, .pipeline = 2, .expert = 2}, Schedule::zero_bubble, model::kAllLayers}}) {
        const auto ranks = narrow<int>(layout.shape.ranks());
        parallel::ThreadWorld world(ranks);
        world.run([&](parallel::Communicator& axis) { (void)updates_on(axis, config, layout); });
        const std::int64_t experts = layout.shape.expert;
        const std::int64_t layers = config.layers - config.experts.first_dense;
        const std::int64_t forward = layout.recompute ? 2 : 1;
        const std::int64_t waves = plan.waves(layout.shape.data);
        const std::int64_t counts = ranks / layout.shape.pipeline * forward * waves *
                                    (experts - 1) * 8 * config.experts.routed;
        const std::int64_t turns =
            2 * forward + 3 + (layout.schedule == Schedule::zero_bubble ? 2 : 0);
        const bool groups = layout.shape.tensor > experts;
        const std::int64_t inner = groups ? 3 * config.experts.intermediate : 0;
        const std::int64_t moved = rows * config.experts.chosen * 4 *
                                   (turns * config.hidden + inner) * (experts - 1) / experts;
        const auto expected = static_cast<double>(2 * layers * (counts + moved));  // two updates
        EXPECT_NEAR(static_cast<double>(test::sent(world, {.over = "expert"}).bytes), expected,
                    0.05 * expected)
            << to_string(layout.shape);
    }
}

/// Gradients of experts go to the ranks of other groups that hold them too; all others to all.
TEST(SharedOutExperts, BytesSentOverTheDataAxisAreThoseOfTheFormula) {
    model::ModelConfig config = config_of(model::Family::deepseek_v3, 4);
    config.experts.first_dense = 1;
    const MinibatchPlan plan = plan_minibatch(Data().sizes, kPlan);
    const std::vector<model::Microbatch> batches = batches_of(plan);
    const auto chunks = static_cast<double>(batches.size());
    double ids = 0;  // of rows of the embedding that chunks contribute to
    for (const model::Microbatch& batch : batches)
        ids += static_cast<double>(std::set(batch.ids.begin(), batch.ids.end()).size());
    const auto bytes_of = [&](auto&& counts) {
        std::int64_t size = 0;
        const model::DecoderParameters parameters = model::decoder_parameters(config);
        for (ParameterId id = 0; id < parameters.table.count(); ++id) {
            const Parameter& parameter = parameters.table[id];
            if (parameter.trained && counts(id, parameter)) size += 4 * parameter.shape.size();
        }
        return static_cast<double>(size);
    };
    const ParameterId embedding = model::decoder_parameters(config).embedding;
    const double routed =
        bytes_of([](ParameterId, const Parameter& one) { return one.expert >= 0; });
    const double rest = bytes_of([](ParameterId, const Parameter& one) { return one.expert < 0; });
    const double table =
        bytes_of([&](ParameterId id, const Parameter&) { return id == embedding; });
    for (const Layout& layout :
         {Layout{{.data = 2, .expert = 2}}, Layout{{.data = 4, .expert = 2}},
          Layout{{.data = 4, .expert = 2}, kOneByOne, 0, 0},
          Layout{{.data = 4, .expert = 2}, kOneByOne, 0, 3}, Layout{{.data = 4, .expert = 4}}}) {
        const int ranks = layout.shape.data;
        const double groups = static_cast<double>(ranks) / layout.shape.expert;
        const auto others = static_cast<double>(ranks - 1);
        parallel::ThreadWorld world(ranks);
        world.run([&](parallel::Communicator& axis) { (void)updates_on(axis, config, layout); });
        double expected =
            chunks * (others / ranks * (rest - table) + (groups - 1) / groups * routed);
        expected += others / ranks * ids * 4 * static_cast<double>(config.hidden + 1);
        expected += others * ranks * 8 * static_cast<double>(plan.waves(ranks));
        if (layout.zero != 3) expected += others * rest + (groups - 1) * routed;
        expected *= 2;  // updates
        test::Sent what{.over = "data", .kinds = {"gradients"}};
        if (layout.zero != 3) what.kinds.emplace_back("weights");
        const std::int64_t sent = test::sent(world, what).bytes;
        EXPECT_NEAR(static_cast<double>(sent), expected, 0.05 * expected)
            << to_string(layout.shape) << ", zero " << layout.zero;
    }
}

}  // namespace
}  // namespace rankwise::update
