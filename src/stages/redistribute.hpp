// Answers travel from the ranks that generated them to the ranks that learn from them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "src/stages/answers.hpp"
#include "src/update/plan.hpp"

namespace rankwise::stages {

/// One answer where it is needed.
struct AnswerTokens {
    std::vector<TokenId> tokens;
    std::vector<float> logprobs;  ///< as the sampler used them
};

/// Collective over the data axis.
/// @param members  indices into answers.records of the minibatch's samples, in the plan's order
/// @return for each sample of the plan: its answer if this rank computes it, else empty
[[nodiscard]] std::vector<AnswerTokens> redistribute(parallel::Communicator& data,
                                                     const Answers& answers,
                                                     std::span<const std::size_t> members,
                                                     const update::MinibatchPlan& plan);

}  // namespace rankwise::stages
