// What an instruction set provides for the sample family.
#pragma once

#include <cstdint>

namespace rankwise::kernels::cpu {

/// u_i = uniform_open of word i of a row's random stream: Philox({i / 4, position, 0, 0}, key)[i %
/// 4].
struct GumbelNoise {
    std::uint32_t key0;
    std::uint32_t key1;
    std::uint32_t position;
    std::uint32_t first_block;  ///< i counts from 4 * first_block on
};

/// An index and the value that it was chosen for.
struct Choice {
    std::int64_t index;
    float value;
};

struct SampleKernels {
    /// The index of the largest logit, ties to the lower; NaN is never chosen. 0 if none is above
    /// -infinity.
    Choice (*argmax)(const float* logits, std::int64_t count);
    /// The same of logits[i] / temperature - log(-log(u_i)).
    Choice (*gumbel_argmax)(const GumbelNoise& noise, const float* logits, std::int64_t count,
                            float temperature);
    /// words[i] = word i of the noise, i in [0, 64).
    void (*words)(const GumbelNoise& noise, std::uint32_t* words);
};

namespace avx2 {
const SampleKernels& sample_kernels();
}
namespace avx512 {
const SampleKernels& sample_kernels();
}

}  // namespace rankwise::kernels::cpu
