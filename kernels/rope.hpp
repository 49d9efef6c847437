// Rotary position embedding (Su et al. 2021) of pairs of a head's elements.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/stream.hpp"
#include "kernels/tensor.hpp"

namespace rankwise::kernels {

/// Which elements of a head of size d make up pair i.
enum class RopePairs : std::uint8_t {
    halves,    ///< (x[i], x[i + d/2])
    adjacent,  ///< (x[2i], x[2i + 1])
};

/// Rotates each head of each row in place: of a pair (a, b) = (a c - b s, b c + a s), with one fma
/// each: fma(a, c, -(b * s)), fma(b, c, a * s). `inverse` rotates back (the backward pass).
struct RopeArgs {
    Matrix x;  ///< [T, heads * head_dim], head_dim even: f32; with `halves` also bf16 (computed in
               ///< fp32, rounded once)
    std::int64_t heads = 0;
    std::int64_t head_dim = 0;
    std::span<const std::int32_t> positions;  ///< [T], host
    DeviceSpan<const float> cosine;           ///< [positions, head_dim / 2]
    DeviceSpan<const float> sine;
    bool inverse = false;
    RopePairs pairs = RopePairs::halves;
};

class RopeOps {
  public:
    virtual ~RopeOps() = default;
    virtual void rope(const RopeArgs& args, Stream& stream) = 0;
};

}  // namespace rankwise::kernels
