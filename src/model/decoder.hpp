// The decoder over a micro-batch: log-probabilities, and gradients of them.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "src/model/decoder_layer.hpp"
#include "src/model/embedding.hpp"
#include "src/model/head.hpp"

namespace rankwise::model {

/// For `recompute` of the passes below.
inline constexpr std::int64_t kAllLayers = std::numeric_limits<std::int64_t>::max();

/// Values of the head rows of a micro-batch, in their order; then those of a module that predicts
/// further.
struct Logprobs {
    std::vector<float> logprob;
    std::vector<float> entropy;
};

/// Brings together what the forward pass through a layer of a stage reads, or the backward pass,
/// and begins with the next one's, where rows of the weights are shared out.
/// @param recompute  as for StagePass
void gather_forward(Compute& compute, const Weights& weights, const LayerStage& stage,
                    std::int64_t layer);
void gather_backward(Compute& compute, const Weights& weights, const LayerStage& stage,
                     std::int64_t layer, std::int64_t recompute);

/// What gradients of weights that are put off read: nothing, but where experts are shared out those
/// who hold them go through them again.
void gather_put_off(Compute& compute, const Weights& weights, const LayerStage& stage,
                    std::int64_t layer);

/// What a rank that has nothing to compute does while others of the data axis go through a stage:
/// it brings its rows of the weights, and computes what they choose of its experts.
class FollowPass {
  public:
    /// @param recompute  as theirs (StagePass)
    /// @param mtp  they go through the module that predicts further too
    FollowPass(Compute& compute, const Weights& weights, const LayerStage& stage,
               std::int64_t recompute = 0, bool mtp = false)
        : compute_(compute),
          weights_(weights),
          stage_(stage),
          recompute_(recompute),
          has_module_(mtp && stage.last) {}

    void forward();
    /// Both halves of the backward pass, or one of them.
    void backward(bool input, bool weight, GradientSink& gradients);

  private:
    void experts_forward(std::int64_t layer);
    void module_backward(GradientSink& gradients);

    Compute& compute_;
    const Weights& weights_;
    LayerStage stage_;
    std::int64_t recompute_;
    bool has_module_;
    std::vector<std::optional<parallel::DispatchPlan>> plans_;  // of each layer, then the module's
};

/// Its way forward alone, without a module that predicts further.
void follow_forward(Compute& compute, const Weights& weights, const LayerStage& stage);

/// Forward passes without backward passes: reference scoring, evaluation of text. Collective over
/// the axes of the model; of a pipeline the last rank alone knows the values. Where data ranks
/// share the model all of them have as many batches; an empty one is none.
[[nodiscard]] std::vector<Logprobs> score(Compute& compute, const Weights& weights,
                                          const HeadOptions& head,
                                          std::span<const Microbatch> batches);
[[nodiscard]] Logprobs score(Compute& compute, const Weights& weights, const HeadOptions& head,
                             const Microbatch& batch);

/// A micro-batch's way through one stage of the model, which keeps what its way back needs. The
/// micro-batch and the weights must outlive it; its memory is given back to where it is kept
/// (Compute::kept) when it is destroyed, so passes that keep in one arena are destroyed in the
/// reverse of the order of their making.
class StagePass {
  public:
    /// @param recompute  so many layers of the stage, from its first (kAllLayers: all), keep their
    /// inputs alone, and the backward pass computes the rest again: the same bits for less memory
    /// (physical)
    StagePass(Compute& compute, const Weights& weights, const HeadOptions& head,
              const Microbatch& batch, const LayerStage& stage, std::int64_t recompute);
    StagePass(const StagePass&) = delete;
    StagePass& operator=(const StagePass&) = delete;

    /// This rank's rows of the residual stream: the stage's input, which the caller fills in before
    /// forward() unless this rank embeds itself; afterwards its output, until the end.
    [[nodiscard]] kernels::Matrix stream() const { return x_; }
    /// The gradient of the stage's output, which the caller fills in before backward() unless the
    /// stage is the last; afterwards of its input. Only where a pipeline has several ranks.
    [[nodiscard]] kernels::Matrix gradient() const { return gradient_; }

    void forward();
    /// Of the last stage, after forward(). Waits for the device.
    [[nodiscard]] Logprobs logprobs();
    /// @param coefficient  of the last stage: [r] = d loss / d logprobs().logprob[r]. Once.
    void backward(std::span<const float> coefficient, GradientSink& gradients);
    /// The same in two halves, of a pipeline of several ranks: the gradient of the stage's input,
    /// and of the head; then those of layers and embedding.
    void backward_input(std::span<const float> coefficient, GradientSink& gradients);
    void backward_weight(GradientSink& gradients);

  private:
    [[nodiscard]] kernels::Matrix output_gradient(std::span<const float> coefficient,
                                                  GradientSink& gradients);
    void embedding_gradient(kernels::Matrix dx, GradientSink& gradients);

    Compute& compute_;
    const Weights& weights_;
    HeadOptions head_options_;
    const Microbatch& batch_;
    LayerStage stage_;
    std::int64_t recompute_;
    kernels::Arena::Scope scope_;
    TokenSplit tokens_;                    // whose rows the residual stream holds
    kernels::Matrix x_;                    // the residual stream
    kernels::Matrix gradient_;             // its gradient
    kernels::Matrix top_;                  // all its rows after the last layer
    std::vector<kernels::Matrix> inputs_;  // of each layer that is computed again
    std::vector<LayerActivations> kept_;   // of the others, ascending
    std::vector<WeightWork> later_;        // after backward_input(), of each layer
    HeadOutputs head_;
};

/// A forward pass through the whole model.
class TrainingPass : public StagePass {
  public:
    TrainingPass(Compute& compute, const Weights& weights, const HeadOptions& head,
                 const Microbatch& batch, std::int64_t recompute)
        : StagePass(compute, weights, head, batch, weights.pipeline_part().stages.front(),
                    recompute) {
        forward();
    }
};

}  // namespace rankwise::model
