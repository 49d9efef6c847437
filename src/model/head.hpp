// The head: hidden states to log-probabilities, entropies and their gradients (NUMERICS N6).
#pragma once

#include <span>

#include "src/model/gradients.hpp"
#include "src/model/microbatch.hpp"
#include "src/model/weights.hpp"

namespace rankwise::model {

/// How logits become probabilities.
struct HeadOptions {
    std::int64_t ids = 0;      ///< ids of the tokenizer; padded vocabulary rows beyond are excluded
    float temperature = 1.0F;  ///< 0 counts as 1
    std::int64_t block_bytes = 32 << 20;  ///< most bytes of logits held at a time (physical)
};

/// Log-probabilities of the head rows' targets; the two last for the backward pass.
struct HeadOutputs {
    DeviceSpan<float> logprob;  ///< [R]
    DeviceSpan<float> entropy;
    DeviceSpan<float> maximum;
    DeviceSpan<float> sum;
    kernels::Matrix hidden;     ///< [R, hidden]: normed, gathered
    kernels::Matrix normed;     ///< [T, hidden]
    DeviceSpan<float> inv_rms;  ///< [T] of the final norm
};

/// Logits of some rows of normed hidden states: [rows, vocabulary].
void head_logits(Compute& compute, const Weights& weights, kernels::ConstMatrix hidden,
                 kernels::Matrix logits);

/// Final norm, gather, log-softmax in blocks of rows. x: [T, hidden], the last layer's output.
HeadOutputs head_forward(Compute& compute, const Weights& weights, const HeadOptions& options,
                         const Microbatch& batch, kernels::ConstMatrix x);

/// coefficient[r] = d loss / d logprob[r] (host). Writes the gradients of head and final norm, and
/// dx [T, hidden]. The vocabulary is walked in tiles, so that neither [R, vocabulary] logits nor a
/// second [vocabulary, hidden] gradient are ever held.
void head_backward(Compute& compute, const Weights& weights, const HeadOptions& options,
                   const Microbatch& batch, kernels::ConstMatrix x, const HeadOutputs& kept,
                   std::span<const float> coefficient, kernels::Matrix dx, GradientSink& gradients);

}  // namespace rankwise::model
