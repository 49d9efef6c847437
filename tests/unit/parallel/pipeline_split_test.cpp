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

TEST(PipelineSplit, EqualLayersAreSplitEvenlyTheFirstStagesHavingFewer) {
    EXPECT_EQ(sizes(split_layers(8, 1, {})), (Sizes{8}));
    EXPECT_EQ(sizes(split_layers(8, 4, {})), (Sizes{2, 2, 2, 2}));
    EXPECT_EQ(sizes(split_layers(10, 4, {})), (Sizes{2, 2, 3, 3}));
    EXPECT_EQ(sizes(split_layers(3, 3, {})), (Sizes{1, 1, 1}));
}

TEST(PipelineSplit, AHeadAsDearAsEightLayersLeavesItsStageEightLayersLess) {
    EXPECT_EQ(sizes(split_layers(30, 2, {.layer = 10, .last = 80})), (Sizes{19, 11}));
    EXPECT_EQ(sizes(split_layers(30, 2, {.layer = 10, .first = 80})), (Sizes{11, 19}));
}

TEST(PipelineSplit, AStageHasALayerHoweverDearTheRestOfItIs) {
    EXPECT_EQ(sizes(split_layers(4, 3, {.layer = 1, .last = 100})), (Sizes{1, 2, 1}));
}

/// Every split of some layers, by trying.
std::int64_t least_bottleneck(std::int64_t layers, std::int64_t stages, const StageCosts& costs) {
    std::int64_t least = std::numeric_limits<std::int64_t>::max();
    std::vector<std::int64_t> own(static_cast<std::size_t>(stages), 1);
    const std::function<void(std::size_t, std::int64_t)> fill = [&](std::size_t stage,
                                                                    std::int64_t left) {
        if (stage + 1 == own.size()) {
            own[stage] = left;
            std::int64_t dearest = 0;
            for (std::size_t s = 0; s < own.size(); ++s) {
                dearest = std::max(dearest, own[s] * costs.layer + (s == 0 ? costs.first : 0) +
                                                (s + 1 == own.size() ? costs.last : 0));
            }
            least = std::min(least, dearest);
            return;
        }
        const auto after = static_cast<std::int64_t>(own.size() - stage - 1);
        for (own[stage] = 1; left - own[stage] >= after; ++own[stage])
            fill(stage + 1, left - own[stage]);
    };
    fill(0, layers);
    return least;
}

TEST(PipelineSplit, NoSplitHasACheaperDearestStage) {
    for (std::int64_t layers = 1; layers <= 9; ++layers) {
        for (std::int64_t stages = 1; stages <= std::min<std::int64_t>(layers, 5); ++stages) {
            for (const StageCosts& costs :
                 {StageCosts{}, StageCosts{3, 1, 5}, StageCosts{7, 20, 9}, StageCosts{2, 0, 11}}) {
                std::int64_t dearest = 0;
                const Sizes own = sizes(split_layers(layers, stages, costs));
                for (std::size_t s = 0; s < own.size(); ++s) {
                    EXPECT_GE(own[s], 1);
                    dearest = std::max(dearest, own[s] * costs.layer + (s == 0 ? costs.first : 0) +
                                                    (s + 1 == own.size() ? costs.last : 0));
                }
                EXPECT_EQ(std::accumulate(own.begin(), own.end(), std::int64_t{0}), layers);
                EXPECT_EQ(dearest, least_bottleneck(layers, stages, costs))
                    << layers << " layers, " << stages << " stages";
            }
        }
    }
}

TEST(PipelineSplit, MoreStagesThanLayersAreAnError) {
    EXPECT_THROW((void)split_layers(2, 3, {}), InternalError);
}

}  // namespace
}  // namespace rankwise::parallel
