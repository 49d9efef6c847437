// RMSNorm (Zhang and Sennrich 2019) of rows, and of the heads of a row (QK-norm). Activations are
// f32 or bf16, all of a call alike; bf16 is computed in fp32 and each result rounded once, to
// nearest even.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/matmul.hpp"

namespace rankwise::kernels {

/// y = w * (x * r), r = 1 / sqrt(mean(x^2) + eps), for each of `groups` groups of columns of each
/// row (1: the whole row; QK-norm: the heads). The mean's sum: 16 lanes by index mod 16, ascending,
/// fma; fixed lane tree (N9: halves of 16, 8, 4, 2 lanes added).
struct RmsNormArgs {
    ConstMatrix x;  ///< [T, groups * size]
    std::int64_t groups = 1;
    DeviceSpan<const float> weight;  ///< [size]
    float eps = 0.0F;
    Matrix y;                   ///< as x; may be x itself
    DeviceSpan<float> inv_rms;  ///< [T * groups], r; empty if not wanted
};

/// dx (+)= r w dy - x r^3 / size * sum(w dy x): fma(-x, c, (w dy) r), c = r r r (S / size), S = the
/// sum of (w dy) x in 16 lanes as above. Output::store or add.
struct RmsNormBackwardArgs {
    ConstMatrix dy;
    ConstMatrix x;  ///< the input of the forward pass
    std::int64_t groups = 1;
    DeviceSpan<const float> weight;
    DeviceSpan<const float> inv_rms;
    Matrix dx;  ///< may be dy
    Output output = Output::store;
};

/// dw[i] (+)= sum over rows and groups of dy (x r). Rows in blocks (N2): inside a block, per group
/// fma with rows ascending from zero, then groups by `group_order` (leaves left to right, tree
/// above); block sums ascending from zero (Output::resume: from dw).
struct RmsNormWeightGradientArgs {
    ConstMatrix dy;
    ConstMatrix x;
    std::int64_t groups = 1;
    Contraction group_order = Contraction::straight(1);  ///< over the groups
    DeviceSpan<const float> inv_rms;
    std::span<const std::int64_t>
        blocks;  ///< row borders, ascending, first 0, last T: 64 rows each, aligned in a segment
    DeviceSpan<float> dw;  ///< [size]
    Output output = Output::store;
};

class NormOps {
  public:
    virtual ~NormOps() = default;
    virtual void rms_norm(const RmsNormArgs& args, Stream& stream) = 0;
    virtual void rms_norm_backward(const RmsNormBackwardArgs& args, Stream& stream) = 0;
    virtual void rms_norm_weight_gradient(const RmsNormWeightGradientArgs& args,
                                          Stream& stream) = 0;
};

}  // namespace rankwise::kernels
