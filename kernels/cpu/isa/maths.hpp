// Elementary functions of float in sixteen lanes, the same bits on every instruction set. NUMERICS
// N9.
#pragma once

#include "kernels/cpu/isa/lanes.hpp"

namespace rankwise::kernels::cpu::RANKWISE_ISA {

/// e^x, within 1 unit of the last place. exp(-inf) = 0; results below the smallest normal number
/// are 0, with denormals flushed or not; above the largest: infinity; NaN stays NaN. x = n ln2 + r,
/// |r| <= ln2 / 2; e^r = 1 + (r + r^2 q(r)), q minimax of degree 4 (relative error 3e-9); 2^n by
/// the exponent.
HWY_INLINE F16 exp(F16 x) {
    const F16 shift = set(0x1.8p23F);  // adding it rounds to an integer
    const F16 shifted = fma(x, set(0x1.715476p+0F), shift);
    const F16 n = shifted - shift;
    F16 r = fnma(n, set(0x1.62e4p-1F), x);
    r = fnma(n, set(0x1.7f7d1cp-20F), r);
    F16 q = set(0x1.6a2432p-10F);
    q = fma(q, r, set(0x1.1239e2p-7F));
    q = fma(q, r, set(0x1.5558f2p-5F));
    q = fma(q, r, set(0x1.555492p-3F));
    q = fma(q, r, set(0x1.fffffcp-2F));
    const F16 p = set(1.0F) + fma(q, r * r, r);
    const F16 scaled = from_bits(bits_of(p) + shift_left<23>(bits_of(shifted)));
    const F16 normal = keep(less_equal(set(-0x1.5d589ep+6F), x), scaled);  // -126 ln2
    const M16 finite = less(x, set(0x1.62e43p+6F));                        // 128 ln2
    // -inf and everything below the range is 0 by now; NaN and what overflows give x + inf.
    return select(finite, normal, x + set(__builtin_inff()));
}

/// ln x for positive finite normal x (others: unspecified), within 1 unit of the last place.
/// x = 2^k (1 + f), 1 + f in [sqrt(1/2), sqrt(2)); ln(1 + f) = f - f^2 / 2 + f^3 q(f), q minimax of
/// degree 8 (7e-10).
HWY_INLINE F16 log(F16 x) {
    const U16 root_half = set(std::uint32_t{0x3F3504F3U});
    const U16 bits = bits_of(x) + (set(std::uint32_t{0x3F800000U}) - root_half);
    const F16 k = float_of_signed(shift_right<23>(bits) - set(std::uint32_t{127U}));
    const F16 f = from_bits((bits & set(std::uint32_t{0x007FFFFFU})) + root_half) - set(1.0F);
    F16 q = set(0x1.1457a8p-4F);
    q = fma(q, f, set(-0x1.de3c16p-4F));
    q = fma(q, f, set(0x1.e6f06ap-4F));
    q = fma(q, f, set(-0x1.fc2208p-4F));
    q = fma(q, f, set(0x1.233768p-3F));
    q = fma(q, f, set(-0x1.555c4ep-3F));
    q = fma(q, f, set(0x1.99a4b6p-3F));
    q = fma(q, f, set(-0x1.000006p-2F));
    q = fma(q, f, set(0x1.555548p-2F));
    const F16 square = f * f;
    F16 small = fma(q * f, square, k * set(-0x1.bd0106p-13F));  // ln2 = 0.693359375 - 2.1e-4
    small = fma(set(-0.5F), square, small);
    return fma(k, set(0x1.63p-1F), f + small);
}

/// e^x of double for x <= 709, the bits of rankwise::maths::exp (the same sequence) where that is a
/// normal number; 0 below (and for NaN).
HWY_INLINE D16 exp(D16 x) {
    const D16 shift = set(0x1.8p52);
    const D16 shifted = x * set(0x1.71547652b82fep+0) + shift;
    const D16 n = shifted - shift;
    const D16 high = fnma(n, set(0x1.62e42fee00000p-1), x);
    const D16 rest = fnma(n, set(0x1.a39ef35793c76p-33), zero_double());
    const D16 r = high + rest;
    const D16 lost = (high - r) + rest;
    D16 q = set(1.0 / 6227020800.0);
    q = fma(q, r, set(1.0 / 479001600.0));
    q = fma(q, r, set(1.0 / 39916800.0));
    q = fma(q, r, set(1.0 / 3628800.0));
    q = fma(q, r, set(1.0 / 362880.0));
    q = fma(q, r, set(1.0 / 40320.0));
    q = fma(q, r, set(1.0 / 5040));
    q = fma(q, r, set(1.0 / 720));
    q = fma(q, r, set(1.0 / 120));
    q = fma(q, r, set(1.0 / 24));
    q = fma(q, r, set(1.0 / 6));
    q = fma(q, r, set(1.0 / 2));
    const D16 p = set(1.0) + (r + fma(r * r, q, lost));
    return keep_from(set(-708.0), x, scale_by_shifted(p, shifted));
}

}  // namespace rankwise::kernels::cpu::RANKWISE_ISA
