#include "parallel/pipeline_split.hpp"

#include <algorithm>
#include <limits>

namespace rankwise::parallel {
namespace {

/// How good a split of the first layers over the first stages is; less is better.
struct Quality {
    std::int64_t dearest = std::numeric_limits<std::int64_t>::max();
    double squares = 0.0;  // a tie-break: rounding decides alike on every rank
    friend auto operator<=>(const Quality&, const Quality&) = default;
};

}  // namespace

std::vector<Range> split_layers(const StageCosts& costs, std::int64_t stages) {
    const std::int64_t layers = std::ssize(costs.layers);
    ensure(stages >= 1 && stages <= layers, "{} layers over {} stages", layers, stages);
    std::vector<std::int64_t> before{0};  // what the layers before one cost together
    for (const std::int64_t layer : costs.layers) before.push_back(before.back() + layer);
    // Of a stage whose last layer is n - 1.
    const auto cost = [&](std::int64_t stage, std::int64_t size, std::int64_t n) {
        return before[static_cast<std::size_t>(n)] - before[static_cast<std::size_t>(n - size)] +
               (stage == 0 ? costs.first : 0) + (stage + 1 == stages ? costs.last : 0);
    };
    // best[s][n]: of n layers over stages 0 … s, and how many of them the last of these has.
    const auto width = static_cast<std::size_t>(layers + 1);
    std::vector<std::vector<Quality>> best(static_cast<std::size_t>(stages),
                                           std::vector<Quality>(width));
    std::vector<std::vector<std::int64_t>> own(static_cast<std::size_t>(stages),
                                               std::vector<std::int64_t>(width, 0));
    for (std::int64_t stage = 0; stage < stages; ++stage) {
        const auto s = static_cast<std::size_t>(stage);
        for (std::int64_t n = stage + 1; n <= layers - (stages - 1 - stage); ++n) {
            const auto at = static_cast<std::size_t>(n);
            const std::int64_t most = stage == 0 ? n : n - stage;
            // Larger last parts first: of equals those with fewer layers before it stay.
            for (std::int64_t size = most; size >= (stage == 0 ? n : 1); --size) {
                const std::int64_t here = cost(stage, size, n);
                Quality others{0, 0.0};
                if (stage > 0) others = best[s - 1][static_cast<std::size_t>(n - size)];
                const Quality quality{
                    std::max(others.dearest, here),
                    others.squares + static_cast<double>(here) * static_cast<double>(here)};
                if (quality < best[s][at]) {
                    best[s][at] = quality;
                    own[s][at] = size;
                }
            }
        }
    }
    std::vector<Range> ranges(static_cast<std::size_t>(stages));
    std::int64_t end = layers;
    for (std::size_t s = ranges.size(); s-- > 0;) {
        const std::int64_t size = own[s][static_cast<std::size_t>(end)];
        ranges[s] = {end - size, end};
        end -= size;
    }
    return ranges;
}

}  // namespace rankwise::parallel
