// Multi-token prediction (DeepSeek-V3 (2024) section 2.2) of depth 1: a module behind the last
// layer that predicts, of each row, the token after the next. Forward and backward.
#pragma once

#include "src/model/decoder_layer.hpp"

namespace rankwise::model {

/// What the backward pass reads. Matrices in scratch memory, T rows of the micro-batch.
struct MtpActivations {
    kernels::Matrix embedded;  ///< [T, hidden] of the following tokens
    kernels::Matrix joined;    ///< [T, 2 hidden] what eh_proj reads
    DeviceSpan<float> inv_rms_embedded, inv_rms_hidden;
    LayerActivations layer;
    kernels::Matrix top;  ///< [T, hidden] the layer's output
    DeviceSpan<float> inv_rms_top;
};

// The module's row of token t reads the decoder's hidden state of t and the embedding of the token
// after it (equations 21 to 23):
//
//   x = eh_proj([enorm(embedding of the following token), hnorm(hidden state after the final
//   norm)])
//
// then its decoder layer and shared_head.norm, and last the model's own head. The embedding's half
// stands first, as weights in public files have it (the report's equation names it second), and the
// hidden state is the one that the head reads, as those who infer with such files take it. All rows
// go through it, also the last of a sequence, from which nothing is predicted: attention lets no
// other see it, and its gradient is zero.
//
// Every rank of the tensor axis computes the norms of all rows and eh_proj of its own; what it
// shares with others is summed as a router's gradient is (N2). Collective over the tensor axis of
// split weights and the axis of experts that are shared out. On the last pipeline rank.

/// @param hidden      [T, hidden] after the final norm
/// @param predicting  [rows of batch.further, hidden]: overwritten with what the head reads
MtpActivations mtp_forward(Compute& compute, const Weights& weights, const Microbatch& batch,
                           kernels::ConstMatrix hidden, kernels::Matrix predicting);

/// Adds to dhidden [T, hidden] the gradient of `hidden`; parameter gradients go to `gradients`, the
/// layer's first (layer_done()). Takes scratch memory that it does not give back.
/// @param dpredicting  gradient of `predicting`
/// @return [T, hidden] the gradient of the following tokens' embeddings
[[nodiscard]] kernels::Matrix mtp_backward(Compute& compute, const Weights& weights,
                                           const Microbatch& batch, const MtpActivations& kept,
                                           kernels::ConstMatrix hidden,
                                           kernels::ConstMatrix dpredicting,
                                           kernels::Matrix dhidden, GradientSink& gradients);

/// Brings together what the backward pass reads, where rows of weights are shared out.
void gather_mtp_backward(Compute& compute, const Weights& weights);

}  // namespace rankwise::model
