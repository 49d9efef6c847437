// Rotary position embedding, half-split pairs (x[i], x[i + d/2]).
#pragma once

#include <cstdint>
#include <span>

#include "kernels/stream.hpp"
#include "kernels/tensor.hpp"

namespace rankwise::kernels {

/// Rotates each head of each row in place: y[i] = x[i] c - x[i+d/2] s, y[i+d/2] = x[i+d/2] c + x[i]
/// s, with one fma each (fma(x[i], c, -(x[i+d/2] * s))). `inverse` rotates back (the backward
/// pass).
struct RopeArgs {
    Matrix x;  ///< [T, heads * head_dim] f32 or bf16 (computed in fp32, rounded once)
    std::int64_t heads = 0;
    std::int64_t head_dim = 0;
    std::span<const std::int32_t> positions;  ///< [T], host
    DeviceSpan<const float> cosine;           ///< [positions, head_dim / 2]
    DeviceSpan<const float> sine;
    bool inverse = false;
};

class RopeOps {
  public:
    virtual ~RopeOps() = default;
    virtual void rope(const RopeArgs& args, Stream& stream) = 0;
};

}  // namespace rankwise::kernels
