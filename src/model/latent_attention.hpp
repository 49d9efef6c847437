// Multi-head latent attention (DeepSeek-V2 (2024) section 2.1.2) in its absorbed form, forward and
// backward: heads attend to the latents themselves, with queries that W_k has brought there, and
// W_v brings back what they find. What is kept of a token is its latent and one rotated key.
// Tensor ranks have some of the heads, and all of them the latents: what compresses is computed by
// each.
#pragma once

#include <span>

#include "src/model/attention_pass.hpp"
#include "src/model/token_split.hpp"
#include "src/model/weight_gradients.hpp"

namespace rankwise::model {

/// What the backward pass reads. Matrices in scratch memory.
struct LatentActivations {
    kernels::Matrix q_a;  ///< [T, q_rank]; only with compressed queries, as the next two
    DeviceSpan<float> inv_rms_q;
    kernels::Matrix q_normed;  ///< [T, q_rank]
    kernels::Matrix q;         ///< [T, H (nope + rope)], not rotated
    kernels::Matrix kv_a;      ///< [T, kv_rank + rope], neither normed nor rotated
    DeviceSpan<float> inv_rms_kv;
    kernels::Matrix key;       ///< [T, kv_rank + rope]: normed latent, rotated key
    kernels::Matrix absorbed;  ///< [T, H (kv_rank + rope)]: queries of the latent, rotated
    kernels::Matrix found;     ///< [T, H kv_rank]: what attention gives
};

/// Allocates what the forward pass writes for `rows` rows. Without `keep` only what it needs
/// itself.
[[nodiscard]] LatentActivations allocate_latent(Compute& compute, const Weights& weights,
                                                std::int64_t rows, bool keep);

/// values [T, H value_dim] of the rows' normed input x [T, hidden].
void latent_forward(Compute& compute, const Weights& weights, std::int64_t layer,
                    std::span<const std::int32_t> positions, AttentionPass attention,
                    kernels::ConstMatrix x, const LatentActivations& at, kernels::Matrix values);

/// What attention kept of a pass over segments.
struct AttentionStatistics {
    DeviceSpan<const float> maximum, denominator;  ///< [T * H]
};

/// dvalues: gradient of the values. dx [own rows, hidden] is overwritten with the gradient of the
/// normed input: queries first, then what kv_a gives is added (each a finished sum, rounded). The
/// latent's gradient: as key, then as value is added (N5). Parameter gradients go to `gradients`,
/// for which `kept` and the matrices given stay as they are; those of kv_b are W_k's of its queries
/// and W_v's of its values.
void latent_backward(Compute& compute, const Weights& weights, std::int64_t layer,
                     const Microbatch& batch, const TokenSplit& tokens,
                     const LatentActivations& kept, const AttentionStatistics& statistics,
                     kernels::ConstMatrix x, kernels::ConstMatrix dvalues,
                     WeightGradients& gradients, kernels::Matrix dx);

}  // namespace rankwise::model
