// Losses of the GRPO family, in double, sample by sample.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

namespace rankwise::update {

/// GRPO (DeepSeekMath 2024, eq. 3), BNPO, Dr. GRPO (Liu et al. 2025), DAPO (Yu et al. 2025, eq. 8),
/// CISPO (MiniMax-M1 2025), SAPO (soft gate), LUSPO. They differ in the weight of a token and in
/// how the ratio is bounded.
enum class LossType : std::uint8_t { grpo, bnpo, dr_grpo, dapo, cispo, sapo, luspo };

/// @throws BadInput for an unknown name (lists the known ones).
[[nodiscard]] LossType loss_type(const std::string& name);
[[nodiscard]] std::vector<std::string> loss_type_names();

struct PolicyLossSettings {
    LossType type = LossType::dapo;
    bool sequence_ratio =
        false;  ///< one ratio a sample: exp of the masked mean of the log-ratios (GSPO)
    double epsilon = 0.2;
    double epsilon_high = 0.2;  ///< cispo: the cap of the ratio itself
    double delta =
        std::numeric_limits<double>::infinity();  ///< dual clip: ratios count as at most this
    double beta = 0.0;                            ///< weight of the KL term to the reference
    bool kl_bias_correction = true;               ///< k3 times the ratio (unbiased off policy)
    double sapo_temperature_pos = 1.0;
    double sapo_temperature_neg = 1.05;
};

/// Counts that weights are made of. NUMERICS N8: integers of the whole minibatch, the same on every
/// rank.
struct LossCounts {
    std::int64_t samples = 0;               ///< B, fully masked ones included
    std::int64_t tokens = 0;                ///< that count, of all samples of the minibatch (bnpo)
    std::int64_t items = 0;                 ///< dapo, cispo: tokens of the generation batch ...
    std::int64_t steps_per_generation = 1;  ///< ... which so many updates share
    std::int64_t accumulation = 1;
    std::int64_t max_completion_length = 0;  ///< dr_grpo
};

/// Weight of each token's loss of a sample with `tokens` counted tokens: grpo, sapo 1 / (tokens B);
/// bnpo 1 / all tokens; dr_grpo 1 / (B max length); luspo 1 / B; each over `accumulation`; dapo,
/// cispo steps_per_generation / (items accumulation).
[[nodiscard]] double token_weight(LossType type, const LossCounts& counts, std::int64_t tokens);

/// One sample's answer. Spans of one length; entries whose mask is 0 do not count.
struct SampleTokens {
    std::span<const double> logprob;
    std::span<const double> old_logprob;  ///< empty: on policy, the current values as constants
    std::span<const double> ref_logprob;  ///< empty: no reference
    std::span<const std::uint8_t> mask;
    double advantage = 0.0;
};

struct SampleLoss {
    double loss = 0.0;               ///< sum of weight * per-token loss over counted tokens
    std::vector<double> token_loss;  ///< with the KL term, times mask
    std::vector<double> gradient;    ///< d loss / d logprob
    std::vector<double> ratio;
    std::int64_t tokens = 0;  ///< counted
    std::int64_t clipped_low =
        0;  ///< tokens (sequence_ratio: samples) with r < 1 - epsilon and A < 0
    std::int64_t clipped_high = 0;  ///< r > 1 + epsilon_high and A > 0, r after the delta cap
    std::int64_t capped = 0;        ///< cispo: r > epsilon_high and A > 0
    double kl_sum = 0.0;            ///< of the KL term as used, over counted tokens
    double k3_sum = 0.0;            ///< of plain k3
};

/// Sums run over the tokens ascending.
/// @throws InternalError if spans differ in length, or beta is not 0 and there is no reference.
[[nodiscard]] SampleLoss sample_loss(const PolicyLossSettings& settings, const SampleTokens& sample,
                                     double weight);

}  // namespace rankwise::update
