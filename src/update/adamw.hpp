// The optimizer: AdamW over rows that are owned (zero = 1) or over all rows on every rank (zero =
// 0).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "src/model/weights.hpp"
#include "src/sums/gradient_owners.hpp"

namespace rankwise::update {

struct AdamwOptions {
    double beta1 = 0.9;
    double beta2 = 0.999;
    double eps = 1e-8;
    double weight_decay = 0.0;
    bool decay_vectors = false;  ///< decay norms and biases too
    double max_grad_norm = 1.0;  ///< 0: no clipping
    /// How far routers' biases move a step toward an even load of the minibatch's tokens
    /// (level_router_biases); 0: they stay.
    double router_bias_rate = 0.0;
};

/// L2 norm of all gradients, exact in any order (N8): per row squares in double, row sums as
/// 128-bit integers. Collective.
/// @throws BadNumbers if it is not finite.
[[nodiscard]] double gradient_norm(const sums::GradientOwners& gradients,
                                   const model::Weights& weights, model::Compute& compute);

/// First and second moments, fp32. Not safe for use by several threads.
class Adamw {
  public:
    /// @param zero  0: every rank holds all moments; otherwise each holds those of the rows that it
    /// owns. The same bits.
    Adamw(model::Compute& compute, model::Weights& weights, const parallel::ShardMap& owners,
          parallel::Communicator& data, int zero, AdamwOptions options);

    /// Forgets the moments: a new stage.
    void reset();
    /// Collective. One step with the totals of a minibatch; afterwards masters are up to date on
    /// every rank that holds them, and packed.
    /// @return the gradient norm before clipping.
    double step(const sums::GradientOwners& gradients, double lr);

    [[nodiscard]] std::int64_t steps() const { return steps_; }
    void set_steps(std::int64_t steps) { steps_ = steps; }
    [[nodiscard]] const AdamwOptions& options() const { return options_; }

    /// Rows whose moments this rank holds, and the moments in that order.
    [[nodiscard]] std::span<const parallel::ShardPiece> pieces() const;
    [[nodiscard]] DeviceSpan<float> first_moments() const { return m_.span(); }
    [[nodiscard]] DeviceSpan<float> second_moments() const { return v_.span(); }

  private:
    model::Compute& compute_;
    model::Weights& weights_;
    const parallel::ShardMap& owners_;
    parallel::Communicator& data_;
    AdamwOptions options_;
    parallel::ShardMap held_;  // whose moments: the owners, or one rank that holds all
    int held_rank_;
    kernels::DeviceBuffer<float> m_, v_;
    std::int64_t steps_ = 0;
};

}  // namespace rankwise::update
