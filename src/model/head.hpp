// The head: hidden states to log-probabilities, entropies and their gradients (NUMERICS N6). Logits
// are fp32 whatever the model computes in; their gradient, which products take again, has its type.
#pragma once

#include <functional>
#include <span>

#include "src/model/mtp.hpp"

namespace rankwise::model {

/// What becomes of logits between the forward and the backward pass. Physical: the same bits.
enum class LogitsUse : std::uint8_t {
    automatic,  ///< buffer where those of a micro-batch take no more than 4 block_bytes
    buffer,     ///< kept: [R, vocabulary] in fp32, for less work
    recompute,  ///< computed again, a tile of the vocabulary at a time
};

/// How logits become probabilities.
struct HeadOptions {
    std::int64_t ids = 0;      ///< ids of the tokenizer; padded vocabulary rows beyond are excluded
    float temperature = 1.0F;  ///< 0 counts as 1
    std::int64_t block_bytes = 32 << 20;  ///< most bytes of logits held at a time (physical)
    LogitsUse logits = LogitsUse::automatic;
    bool break_order = false;  ///< for tests: leaves are merged left to right, without the tree
};

/// What log-softmax leaves of each row; `entropy` and `maximum` may be empty.
struct LogprobSpans {
    DeviceSpan<float> logprob;  ///< [R]
    DeviceSpan<float> entropy;
    DeviceSpan<float> maximum;
    DeviceSpan<float> sum;
};

/// Targets of some rows, given their logits [rows, this rank's vocabulary]: known ones, or drawn
/// there. Asked once a block of rows, ascending; the ranks of a tensor axis answer alike.
using ChooseTargets =
    std::function<std::span<const TokenId>(Range rows, kernels::ConstMatrix logits)>;

/// Log-probabilities of targets under log-softmax(logits / temperature): the one function that
/// sampler, scorer, reference and update share (N6). Goes by blocks of rows, so that the logits of
/// all rows are never held.
/// @param hidden  [R, hidden] normed
/// @param kept  [R, this rank's vocabulary] fp32, where all logits go; empty: a block of rows at a
/// time is held in scratch memory
void head_logprobs(Compute& compute, const Weights& weights, const HeadOptions& options,
                   kernels::ConstMatrix hidden, const ChooseTargets& choose,
                   const LogprobSpans& out, kernels::Matrix kept = {});

/// Logits [R, vocabulary] in scratch memory, from those of each rank's part. Collective over the
/// tensor axis of split weights.
[[nodiscard]] kernels::Matrix gather_logits(Compute& compute, const Weights& weights,
                                            kernels::ConstMatrix logits);

/// Log-probabilities of the head rows' targets, and what the backward pass needs.
struct HeadOutputs : LogprobSpans {
    kernels::Matrix hidden;     ///< [R, hidden]: normed, gathered
    kernels::Matrix normed;     ///< [T, hidden]
    DeviceSpan<float> inv_rms;  ///< [T] of the final norm
    kernels::Matrix logits;     ///< [R, this rank's vocabulary] where they are kept; else empty
    MtpActivations mtp;         ///< of a module that predicts further
};

// Where a module predicts further, its rows follow those of the decoder: in all values, and in the
// one sum that is the head's gradient.

/// Final norm, gather, log-softmax in blocks of rows. x: [T, hidden], the last layer's output.
/// Keeps logits as the options say (a pass without a backward one: LogitsUse::recompute).
HeadOutputs head_forward(Compute& compute, const Weights& weights, const HeadOptions& options,
                         const Microbatch& batch, kernels::ConstMatrix x);

/// coefficient[r] = d loss / d logprob[r] (host). Writes the gradients of head and final norm, and
/// dx [T, hidden]. The vocabulary is walked in tiles, so that no second [vocabulary, hidden]
/// gradient is ever held, nor [R, vocabulary] logits unless they were kept, which become their
/// gradient.
void head_backward(Compute& compute, const Weights& weights, const HeadOptions& options,
                   const Microbatch& batch, kernels::ConstMatrix x, const HeadOutputs& kept,
                   std::span<const float> coefficient, kernels::Matrix dx, GradientSink& gradients);

}  // namespace rankwise::model
