// The next token of each row: what the last layer gave through norm and head, and a draw from it.
#pragma once

#include <span>
#include <vector>

#include "src/model/head.hpp"

namespace rankwise::rollout {

/// Tokens drawn, and their log-probabilities under the model at the temperature of the draw.
struct Drawn {
    std::vector<TokenId> tokens;
    std::vector<float> logprobs;
};

/// Draws a token for each row of x [rows, hidden], which is overwritten. Collective over the tensor
/// ranks, each of which has all of them afterwards. A row's token depends on nothing but the row,
/// its key and its options (NUMERICS N6, N7): Gumbel maxima, of equal ones the lower id.
/// @param rows  one for each row of x; options, but for key and position, are the same for all
/// @param head  of the same temperature; so many bytes of logits are held at a time
void draw(model::Compute& compute, const model::Weights& weights, const model::HeadOptions& head,
          std::span<const kernels::SampleRow> rows, kernels::Matrix x, Drawn& drawn);

}  // namespace rankwise::rollout
