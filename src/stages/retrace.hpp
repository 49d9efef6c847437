// Finding where two computations of one answer part: layer, operation and ranks.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "src/model/head.hpp"
#include "src/rollout/sampling.hpp"
#include "src/stages/stage.hpp"

namespace rankwise::stages {

/// An answer whose log-probabilities the update did not reproduce.
struct DisputedAnswer {
    rollout::Request request;     ///< its prompt; the same on every rank
    std::int32_t sample = 0;      ///< which of the prompt's samples
    std::vector<TokenId> tokens;  ///< the answer, on the rank that computed it; else empty
    std::int64_t token = 0;       ///< the first that differs
    int generated_by = 0;         ///< data ranks
    int computed_by = 0;
    float sampled = 0.0F;   ///< the token's log-probability as it was drawn
    float computed = 0.0F;  ///< and as the update computed it
};

/// Computes the answer again: on every data rank as the update does, and on the one that generated
/// it as the sampler does, and compares what every layer's operations gave. Collective.
/// @return what was found, as a clause, the same on every rank: the first layer and operation in
/// which ranks or passes differ; else which of the two values cannot be had again.
[[nodiscard]] std::string retrace(const Environment& environment, const model::Weights& weights,
                                  const model::HeadOptions& head,
                                  const rollout::SamplingOptions& sampling, DisputedAnswer answer);

}  // namespace rankwise::stages
