// When gradients of weights are computed: with the backward pass that finds what they need, or
// later.
#pragma once

#include <functional>
#include <vector>

#include "src/model/context.hpp"
#include "src/model/gradients.hpp"

namespace rankwise::model {

/// Gradients of weights that are computed later: each a call with their sink, in order. What they
/// read lies among what the pass keeps, and lives as long.
using WeightWork = std::vector<std::function<void(GradientSink&)>>;

/// Where gradients of weights go: at once to their sink, or later, when what they read is kept.
class WeightGradients {
  public:
    WeightGradients(Compute& compute, GradientSink* now, WeightWork* later)
        : compute_(compute), now_(now), later_(later) {}

    /// @param work  (GradientSink&)
    template <class Work>
    void add(Work work) {
        if (later_ != nullptr) {
            later_->emplace_back(std::move(work));
        } else {
            work(*now_);
        }
    }
    /// The sink, where gradients are computed at once; else null.
    [[nodiscard]] GradientSink* now() const { return now_; }
    /// A matrix that such work reads.
    [[nodiscard]] kernels::Matrix matrix(std::int64_t rows, std::int64_t cols,
                                         DType dtype = DType::f32) const {
        return later_ != nullptr ? compute_.kept_matrix(rows, cols, dtype)
                                 : compute_.matrix(rows, cols, dtype);
    }
    /// The same for rows that nobody moves (Compute::matrix_for_products).
    [[nodiscard]] kernels::Matrix matrix_for_products(std::int64_t rows, std::int64_t cols,
                                                      DType dtype) const {
        return compute_.matrix_for_products(later_ != nullptr, rows, cols, dtype);
    }
    /// What such work reads of a matrix that will be written again.
    [[nodiscard]] kernels::ConstMatrix as_it_is(kernels::ConstMatrix matrix) const {
        if (later_ == nullptr) return matrix;
        const kernels::Matrix copy = compute_.kept_matrix(matrix.rows, matrix.cols, matrix.dtype);
        compute_.copy_rows(matrix, copy);
        return copy;
    }
    /// Memory like `matrix`, which such work has read: the same unless it is still to come.
    [[nodiscard]] kernels::Matrix again(kernels::Matrix matrix) const {
        return later_ != nullptr ? compute_.kept_matrix(matrix.rows, matrix.cols, matrix.dtype)
                                 : matrix;
    }

  private:
    Compute& compute_;
    GradientSink* now_;
    WeightWork* later_;
};

}  // namespace rankwise::model
