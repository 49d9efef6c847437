// Rotary frequencies and their tables.
#pragma once

#include <cstdint>
#include <vector>

#include "src/model/config.hpp"

namespace rankwise::model {

/// Inverse frequencies, [head_dim / 2], in double, for a longest sequence of `positions`; and the
/// factor that cosines and sines are multiplied by (yarn).
struct RopeFrequencies {
    std::vector<double> inverse;
    double attention_factor = 1.0;
};
[[nodiscard]] RopeFrequencies rope_frequencies(const RopeConfig& rope, std::int64_t head_dim,
                                               std::int64_t positions);

/// cos and sin of position * inverse frequency, [positions, head_dim / 2], computed in double and
/// rounded once.
struct RopeTable {
    std::int64_t positions = 0;
    std::vector<float> cosine;
    std::vector<float> sine;
};
[[nodiscard]] RopeTable rope_table(const RopeConfig& rope, std::int64_t head_dim,
                                   std::int64_t positions);

}  // namespace rankwise::model
