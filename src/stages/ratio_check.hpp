// The check that generation and training are one forward pass.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "src/stages/answers.hpp"

namespace rankwise::stages {

/// Digest of every parameter, in table order.
using ParameterDigests = std::vector<UInt128>;
[[nodiscard]] ParameterDigests parameter_digests(const model::Weights& weights,
                                                 model::Compute& compute);

/// Compares the log-probabilities of an update with those of the sampler, bit for bit.
class RatioCheck {
  public:
    void add(const AnswerRecord& record, std::span<const float> sampled,
             std::span<const float> computed);

    /// Collective. @throws BadNumbers if any rank met a difference: names the first token in
    /// canonical order, the ranks that generated and computed it, both values, and the first
    /// parameter that has changed since generation, if one has.
    void require_exact(const Environment& environment, const model::Weights& weights,
                       const ParameterDigests& at_generation) const;

  private:
    struct Difference {
        std::int64_t group = 0;
        std::int64_t sample = 0;
        std::int64_t token = 0;
        std::int64_t generated_by = 0;
        std::int64_t computed_by = 0;
        double sampled = 0.0;
        double computed = 0.0;
    };
    std::optional<Difference> first_;
};

/// Changes one bit of one weight: a planted fault.
void flip_bit(model::Weights& weights, model::Compute& compute);

}  // namespace rankwise::stages
