// The check that generation and training are one forward pass.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "src/stages/answers.hpp"
#include "src/stages/retrace.hpp"

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

    /// An answer's prompt and, on the rank that computed it, its tokens.
    using AnswerText = std::function<std::pair<rollout::Request, std::vector<TokenId>>(
        std::int64_t group, std::int64_t sample)>;

    /// Collective. @throws BadNumbers if any rank met a difference: names the first token in
    /// canonical order, the ranks that generated and computed it, both values, and the first
    /// parameter that has changed since generation; if none has, the layer and operation in which
    /// the passes part (retrace.hpp).
    void require_exact(const Environment& environment, const model::Weights& weights,
                       const ParameterDigests& at_generation, const model::HeadOptions& head,
                       const rollout::SamplingOptions& sampling, const AnswerText& text) const;

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

/// Which copy of a weight.
enum class WeightCopy : std::uint8_t { master, packed };
/// Changes one bit of one weight, of the master with all that is made from it or of the packed copy
/// alone: a planted fault. Where several ranks share the model, on the first that holds any of it;
/// collective over the shards.
void flip_bit(model::Weights& weights, model::Compute& compute, WeightCopy copy);

}  // namespace rankwise::stages
