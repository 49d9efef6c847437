// Which instruction set the CPU device uses.
#pragma once

#include <span>

#include "kernels/device.hpp"

namespace rankwise::kernels::cpu {

/// `wanted`, or the widest of `available` (narrowest first) if automatic.
/// @throws EnvironmentError if `available` lacks it, saying what it has and what to do.
[[nodiscard]] Isa choose_isa(Isa wanted, std::span<const Isa> available);

/// Whether a chosen instruction set has the kernels of AVX-512.
[[nodiscard]] constexpr bool has_avx512(Isa isa) {
    return isa == Isa::avx512 || isa == Isa::avx512_bf16;
}

}  // namespace rankwise::kernels::cpu
