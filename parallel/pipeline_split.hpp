// Layers to pipeline stages.
#pragma once

#include <cstdint>
#include <vector>

#include "src/base/checked.hpp"

namespace rankwise::parallel {

/// What parts of a model cost, in one unit (multiplications a token).
struct StageCosts {
    std::vector<std::int64_t> layers;  ///< of each layer
    std::int64_t first = 0;            ///< what the first stage has besides layers: the embedding
    std::int64_t last = 0;             ///< what the last one has: final norm and head
};

/// Layers of each stage: consecutive, at least one each. The dearest stage is as cheap as can be;
/// of such splits the one of the least sum of squared costs; of these the one with fewer layers in
/// the first stages, which hold more micro-batches at a time.
/// @throws InternalError if there are more stages than layers.
[[nodiscard]] std::vector<Range> split_layers(const StageCosts& costs, std::int64_t stages);

}  // namespace rankwise::parallel
