// Routers kept level without a loss: each expert's bias moves toward an even load (DeepSeek-V3
// (2024) section 2.1.2).
#pragma once

#include <cstdint>
#include <vector>

#include "src/model/weights.hpp"

namespace rankwise::update {

/// Tokens that each expert of each layer got: [layer][expert]; empty where a layer has none. The
/// layer of a module that is trained comes last.
using ExpertLoads = std::vector<std::vector<std::int64_t>>;

/// Adds `rate` to the bias of an expert that got fewer tokens than the mean of its layer, and takes
/// it away where it got more (one fp32 addition); layers without bias or tokens stay as they are.
/// Collective over the data axis and the tensor axis, whose loads are added.
/// @param loads  of this rank
void level_router_biases(model::Compute& compute, model::Weights& weights,
                         parallel::Communicator& data, ExpertLoads loads, double rate);

}  // namespace rankwise::update
