// Sixteen virtual lanes of float (and of double), whatever the register width: NUMERICS N9. Included only by sources of this
// folder, which are compiled once for each instruction set into a namespace of its own, RANKWISE_ISA. They use no
// standard-library templates and define nothing outside that namespace: a function compiled for AVX-512 must never be the
// copy that the linker keeps for everybody.
#pragma once

#define HWY_COMPILE_ONLY_STATIC
#include <hwy/highway.h>

#include <cstdint>

namespace rankwise::kernels::cpu::RANKWISE_ISA {

namespace hn = hwy::HWY_NAMESPACE;

constexpr int kLanes = 16;

/// 16 floats in 16 / N registers of N lanes. All operations are lane-wise; `sum` and `max` reduce by a fixed tree.
struct F16 {
    using D = hn::CappedTag<float, 16>;
    using V = hn::Vec<D>;
    static constexpr int kRegisters = kLanes / static_cast<int>(HWY_MAX_LANES_D(D));
    V v[kRegisters];
};

}  // namespace rankwise::kernels::cpu::RANKWISE_ISA
