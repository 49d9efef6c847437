// The whole decoder over a micro-batch: log-probabilities, and gradients of them.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "src/model/decoder_layer.hpp"
#include "src/model/head.hpp"

namespace rankwise::model {

class TokenSplit;

/// Values of the head rows of a micro-batch, in their order.
struct Logprobs {
    std::vector<float> logprob;
    std::vector<float> entropy;
};

/// x [T, hidden] = the embedding's rows of ids [T]. Collective over the tensor axis of split
/// weights.
void embed(Compute& compute, const Weights& weights, std::span<const TokenId> ids,
           kernels::Matrix x);

/// Brings together what the forward pass through a layer reads, and begins with the next one's.
void gather_forward(Compute& compute, const Weights& weights, std::int64_t layer);

/// Forward pass without a backward pass: reference scoring, evaluation of text.
[[nodiscard]] Logprobs score(Compute& compute, const Weights& weights, const HeadOptions& head,
                             const Microbatch& batch);

/// What ranks that have nothing to score do while others score, where rows of the weights are
/// shared out: they bring theirs.
void follow_score(Compute& compute, const Weights& weights);

/// A forward pass that keeps what its backward pass needs. The micro-batch and the weights must
/// outlive it; its memory is given back to the arena when it is destroyed, so passes are destroyed
/// in the reverse of the order of their making.
class TrainingPass {
  public:
    /// @param recompute  keep only each layer's input, and compute the rest again in the backward
    /// pass: the same bits for less
    ///                   memory (physical)
    TrainingPass(Compute& compute, const Weights& weights, const HeadOptions& head,
                 const Microbatch& batch, bool recompute);
    TrainingPass(const TrainingPass&) = delete;
    TrainingPass& operator=(const TrainingPass&) = delete;

    /// Waits for the device.
    [[nodiscard]] Logprobs logprobs();

    /// coefficient[r] = d loss / d logprob of head row r. Once.
    void backward(std::span<const float> coefficient, GradientSink& gradients);

    ~TrainingPass();

  private:
    Compute& compute_;
    const Weights& weights_;
    HeadOptions head_options_;
    const Microbatch& batch_;
    bool recompute_;
    kernels::Arena::Scope scope_;
    std::unique_ptr<TokenSplit> tokens_;   // whose rows the residual stream holds
    kernels::Matrix x_;                    // the residual stream
    kernels::Matrix top_;                  // all its rows after the last layer
    std::vector<kernels::Matrix> inputs_;  // recompute: of each layer
    std::vector<LayerActivations> kept_;   // otherwise
    HeadOutputs head_;
};

/// The same for a training pass: what a rank without a micro-batch does. `gradients` learns of
/// every group, with no gradient of this rank.
void follow_training_pass(Compute& compute, const Weights& weights, bool recompute,
                          GradientSink& gradients);

}  // namespace rankwise::model
