#include "parallel/pipeline_split.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <numeric>

namespace rankwise::parallel {
namespace {

std::vector<std::int64_t> sizes(const std::vector<Range>& ranges) {
    std::vector<std::int64_t> out;
    std::int64_t end = 0;
    for (const Range range : ranges) {
        EXPECT_EQ(range.begin, end);
        end = range.end;
        out.push_back(range.size());
    }
    return out;
}

using Sizes = std::vector<std::int64_t>;

/// Layers that cost the same.
StageCosts equal(std::int64_t layers, std::int64_t layer = 1, std::int64_t first = 0,
                 std::int64_t last = 0) {
    return {std::vector<std::int64_t>(static_cast<std::size_t>(layers), layer), first, last};
}

/// The dearest stage, of these many layers each.
std::int64_t bottleneck(const Sizes& own, const StageCosts& costs) {
    std::int64_t dearest = 0;
    auto layer = costs.layers.begin();
    for (std::size_t s = 0; s < own.size(); ++s) {
        const auto end = layer + own[s];
        dearest = std::max(dearest, std::accumulate(layer, end, std::int64_t{0}) +
                                        (s == 0 ? costs.first : 0) +
                                        (s + 1 == own.size() ? costs.last : 0));
        layer = end;
    }
    return dearest;
}

TEST(PipelineSplit, EqualLayersAreSplitEvenlyTheFirstStagesHavingFewer) {
    EXPECT_EQ(sizes(split_layers(equal(8), 1)), (Sizes{8}));
    EXPECT_EQ(sizes(split_layers(equal(8), 4)), (Sizes{2, 2, 2, 2}));
    EXPECT_EQ(sizes(split_layers(equal(10), 4)), (Sizes{2, 2, 3, 3}));
    EXPECT_EQ(sizes(split_layers(equal(3), 3)), (Sizes{1, 1, 1}));
}

TEST(PipelineSplit, AHeadAsDearAsEightLayersLeavesItsStageEightLayersLess) {
    EXPECT_EQ(sizes(split_layers(equal(30, 10, 0, 80), 2)), (Sizes{19, 11}));
    EXPECT_EQ(sizes(split_layers(equal(30, 10, 80), 2)), (Sizes{11, 19}));
}

TEST(PipelineSplit, AStageHasALayerHoweverDearTheRestOfItIs) {
    EXPECT_EQ(sizes(split_layers(equal(4, 1, 0, 100), 3)), (Sizes{1, 2, 1}));
}

/// Every split of some layers, by trying.
std::int64_t least_bottleneck(std::int64_t stages, const StageCosts& costs) {
    std::int64_t least = std::numeric_limits<std::int64_t>::max();
    std::vector<std::int64_t> own(static_cast<std::size_t>(stages), 1);
    const std::function<void(std::size_t, std::int64_t)> fill = [&](std::size_t stage,
                                                                    std::int64_t left) {
        if (stage + 1 == own.size()) {
            own[stage] = left;
            least = std::min(least, bottleneck(own, costs));
            return;
        }
        const auto after = static_cast<std::int64_t>(own.size() - stage - 1);
        for (own[stage] = 1; left - own[stage] >= after; ++own[stage])
            fill(stage + 1, left - own[stage]);
    };
    fill(0, std::ssize(costs.layers));
    return least;
}

/// Each layer dearer than the one before.
StageCosts rising(std::int64_t layers) {
    StageCosts costs{.first = 2, .last = 5};
    for (std::int64_t layer = 0; layer < layers; ++layer) costs.layers.push_back(1 + 3 * layer);
    return costs;
}

TEST(PipelineSplit, NoSplitHasACheaperDearestStage) {
    for (std::int64_t layers = 1; layers <= 9; ++layers) {
        for (std::int64_t stages = 1; stages <= std::min<std::int64_t>(layers, 5); ++stages) {
            for (const StageCosts& costs :
                 {equal(layers), equal(layers, 3, 1, 5), equal(layers, 7, 20, 9),
                  equal(layers, 2, 0, 11), rising(layers)}) {
                const Sizes own = sizes(split_layers(costs, stages));
                EXPECT_GE(*std::ranges::min_element(own), 1);
                EXPECT_EQ(std::accumulate(own.begin(), own.end(), std::int64_t{0}), layers);
                EXPECT_EQ(bottleneck(own, costs), least_bottleneck(stages, costs))
                    << layers << " layers, " << stages << " stages";
            }
        }
    }
}

TEST(PipelineSplit, MoreStagesThanLayersAreAnError) {
    EXPECT_THROW((void)split_layers(equal(2), 3), InternalError);
}

}  // namespace
}  // namespace rankwise::parallel
