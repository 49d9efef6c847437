// Where the gradients of a micro-batch go.
#pragma once

#include "kernels/matmul.hpp"
#include "src/base/parameter_table.hpp"

namespace rankwise::model {

/// Destination of the gradient of this rank's part of a parameter: `output` says whether a finished
/// sum is stored or added to what is there.
struct GradientSlot {
    kernels::Matrix matrix;  ///< [rows, cols] f32; a vector is one row
    kernels::Output output = kernels::Output::store;

    [[nodiscard]] DeviceSpan<float> vector() const {
        return {reinterpret_cast<float*>(matrix.handle), matrix.cols};
    }
};

/// Gives out destinations for the gradients of one backward pass over one micro-batch, and learns
/// when a group of parameters (a layer; the head; the embedding) is complete. NUMERICS N3: the
/// micro-batch's gradient is one sum from zero an element, which is then added to the parameter's
/// total.
class GradientSink {
  public:
    virtual ~GradientSink() = default;
    virtual GradientSlot slot(ParameterId id) = 0;
    /// Of a routed expert that is shared out, for one of the chunks whose tokens it computes: those
    /// of consecutive data ranks, this one's among them. Nothing where there is no such chunk.
    virtual GradientSlot expert_slot(ParameterId id, int /*chunk*/) { return slot(id); }
    /// All parameters of `layer` are written. Layers come in descending order.
    virtual void layer_done(std::int64_t layer) = 0;
    /// Rows that each expert of `layer` took of this micro-batch; before its layer_done().
    virtual void expert_load(std::int64_t /*layer*/, std::span<const Range> /*rows*/) {}
    /// Final norm and head are written; before the layers. Where a module predicts further: the
    /// head alone, then the module's layer is done, then mtp_done().
    virtual void head_done() = 0;
    /// The rest of the module is written, and the final norm.
    virtual void mtp_done() {}
    /// As embedding(), of the tokens that the module reads; a sum of its own. After mtp_done().
    virtual void mtp_embedding(std::span<const std::int32_t> /*unique*/,
                               kernels::ConstMatrix /*rows*/) {}
    /// Gradient rows of the input embedding: row u belongs to row unique[u] (ascending) of this
    /// rank's part of it. Last.
    virtual void embedding(std::span<const std::int32_t> unique, kernels::ConstMatrix rows) = 0;
};

}  // namespace rankwise::model
