// The lanes and their elementary functions seen from outside an instruction set: what tests
// compare.
#pragma once

#include <cstdint>

namespace rankwise::kernels::cpu {

struct MathsKernels {
    /// to[i] = exp(from[i]), for i in [0, count).
    void (*exp)(const float* from, float* to, std::int64_t count);
    /// The same for log, of positive normal numbers.
    void (*log)(const float* from, float* to, std::int64_t count);
    /// exp of double, x <= 709; results that are no normal numbers are 0. to may be from.
    void (*exp_double)(const double* from, double* to, std::int64_t count);
    /// Sixteen lanes reduced by the fixed tree, as float and (of the widened lanes) as double.
    float (*sum)(const float* lanes);
    double (*sum_double)(const float* lanes);
    float (*max_lane)(const float* lanes);
    /// The first `count` of sixteen lanes from `from` to `to`; nothing else is read or written.
    void (*copy)(const float* from, float* to, std::int64_t count);
};

namespace avx2 {
const MathsKernels& maths_kernels();
}
namespace avx512 {
const MathsKernels& maths_kernels();
}

}  // namespace rankwise::kernels::cpu
