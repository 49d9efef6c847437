// One decoder layer, forward and backward.
#pragma once

#include <span>
#include <vector>

#include "src/model/expert_layer.hpp"
#include "src/model/latent_attention.hpp"

namespace rankwise::model {

// Where tensor ranks split the model every pass is collective over them: each computes its own
// heads and columns of the MLP, in training for all rows, of which it has its own in the residual
// stream (token_split.hpp); in generation every rank has the whole stream.

/// What the backward pass of a layer reads: q, k, v and the MLP's columns of this rank's part.
/// Matrices in scratch memory; `x_in` is a copy of the layer's input.
struct LayerActivations {
    kernels::Matrix x_in;  ///< [own rows, hidden]
    DeviceSpan<float> inv_rms_in;
    kernels::Matrix normed_in;  ///< [T, hidden]
    kernels::Matrix qkv_raw;    ///< [T, q + k] before QK-norm; only with QK-norm
    DeviceSpan<float> inv_rms_q, inv_rms_k;
    kernels::Matrix qkv;                     ///< [T, q + k + v], normed and rotated
    LatentActivations latent;                ///< of latent attention, in place of the four above
    kernels::Matrix attention;               ///< [T, values of the heads]
    DeviceSpan<float> maximum, denominator;  ///< [T * heads]
    kernels::Matrix x_mid;                   ///< [own rows, hidden] between attention and MLP
    DeviceSpan<float> inv_rms_post;
    kernels::Matrix normed_post;  ///< [T, hidden]
    kernels::Matrix gate_up;      ///< [T, 2 I]
    kernels::Matrix activated;    ///< [T, I]
    ExpertActivations experts;    ///< of a layer with experts, in place of the last two
};

/// x [T, hidden] becomes the layer's output. Generation: nothing is kept.
void layer_forward(Compute& compute, const Weights& weights, std::int64_t layer,
                   std::span<const std::int32_t> positions, AttentionPass attention,
                   kernels::Matrix x);

/// What layers of one shape write on their way in generation: [rows, …] in scratch memory.
[[nodiscard]] LayerActivations forward_scratch(Compute& compute, const Weights& weights,
                                               std::int64_t layer, std::int64_t rows);

/// Some rows of that. Only of layers with a dense MLP and without latent attention, where a rank
/// has all rows.
[[nodiscard]] LayerActivations rows_of(const LayerActivations& all, Range rows, const Part& part);

/// layer_forward() in such memory: several calls may go on side by side, each with its own rows.
void layer_forward(Compute& compute, const Weights& weights, std::int64_t layer,
                   std::span<const std::int32_t> positions, AttentionPass attention,
                   kernels::Matrix x, LayerActivations& scratch);

/// The same over segments, keeping what the backward pass needs in scratch memory. x: this rank's
/// rows of the batch.
LayerActivations layer_forward_keep(Compute& compute, const Weights& weights, std::int64_t layer,
                                    const Microbatch& batch, kernels::Matrix x);

/// dx [own rows, hidden]: gradient of the layer's output in, of its input out. Parameter gradients
/// go to `gradients`.
void layer_backward(Compute& compute, const Weights& weights, std::int64_t layer,
                    const Microbatch& batch, const LayerActivations& kept, kernels::Matrix dx,
                    GradientSink& gradients);

/// The same in two halves: dx now, for which others wait, and the rest when `later` is called, for
/// which `kept` stays where it is.
void layer_backward_input(Compute& compute, const Weights& weights, std::int64_t layer,
                          const Microbatch& batch, const LayerActivations& kept, kernels::Matrix dx,
                          WeightWork& later);

}  // namespace rankwise::model
