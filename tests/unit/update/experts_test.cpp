// Updates with routed experts that are shared out over ranks: the bits of one rank.
#include "tests/unit/update/updates_on.hpp"

namespace rankwise::update {
namespace {

using namespace test_updates;
using parallel::Schedule;

constexpr auto kOneByOne = Schedule::one_forward_one_backward;

/// Experts over tensor ranks, over data ranks, over both; with others that hold the same ones, or
/// alone; with waves of which some data ranks have no chunk; in rounds of few rows.
std::vector<Layout> expert_layouts() {
    return {
        {{.tensor = 2, .expert = 2}},
        {{.data = 2, .expert = 2}},
        {{.data = 3, .expert = 3}, kOneByOne, true, 0},
        {{.data = 2, .tensor = 2, .expert = 2}, kOneByOne, true},
        {{.data = 2, .tensor = 2, .expert = 4}, kOneByOne, false, 1, 5},
        {{.data = 4, .expert = 2}, kOneByOne, false, 1, 3},
        {{.data = 4, .expert = 2}, kOneByOne, true, 0},
        {{.data = 4, .expert = 2}, kOneByOne, false, 3},
        {{.data = 4, .expert = 4}, kOneByOne, true, 3, 7},
        {{.data = 4, .tensor = 2, .expert = 4}, kOneByOne, false, 0, 2},
        {{.data = 2, .tensor = 2, .expert = 4}, kOneByOne, false, 3},
        {{.pipeline = 2, .tensor = 2, .expert = 2}, Schedule::zero_bubble, false, 1, 1},
        {{.data = 2, .pipeline = 2, .tensor = 2, .expert = 2}, Schedule::interleaved, true, 3},
        {{.data = 2, .pipeline = 2, .expert = 2}, Schedule::zero_bubble, true, 1, 4},
        {{.data = 4, .pipeline = 2, .expert = 2}, Schedule::zero_bubble, false, 0},
    };
}

TEST(SharedOutExperts, UpdatesAreThoseOfOneRankOnEveryMesh) {
    for (const model::Family family : {model::Family::deepseek_v2, model::Family::deepseek_v3}) {
        model::ModelConfig config = config_of(family, 4);
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

}  // namespace
}  // namespace rankwise::update
