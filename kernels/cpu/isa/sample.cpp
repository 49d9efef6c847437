#include "kernels/cpu/sample_kernels.hpp"

#include "kernels/cpu/isa/maths.hpp"

namespace rankwise::kernels::cpu::RANKWISE_ISA {
namespace {

constexpr int kDraws = 64;  // words that one call of philox gives

/// The largest value so far in each lane, and where it was.
struct Best {
    F16 value;
    U16 index;
};

alignas(64) constexpr std::uint32_t kAscending[kLanes] = {0, 1, 2,  3,  4,  5,  6,  7,
                                                          8, 9, 10, 11, 12, 13, 14, 15};
/// Lane 4g + k holds block 4k + g: after the 4 x 4 transposes result k holds words 16k … 16k + 15
/// in order.
alignas(64) constexpr std::uint32_t kBlocks[kLanes] = {0, 4, 8,  12, 1, 5, 9,  13,
                                                       2, 6, 10, 14, 3, 7, 11, 15};

HWY_INLINE Best nothing_yet() {
    return {set(-__builtin_inff()), load(kAscending)};
}

HWY_INLINE void take(Best& best, F16 value, std::int64_t first) {
    const M16 better = less(best.value, value);
    best.value = select(better, value, best.value);
    best.index =
        select(better, load(kAscending) + set(static_cast<std::uint32_t>(first)), best.index);
}

HWY_INLINE Choice winner(const Best& best) {
    float value[kLanes];
    std::uint32_t index[kLanes];
    store(best.value, value);
    store(best.index, index);
    int lane = 0;
    for (int i = 1; i < kLanes; ++i) {
        const bool better =
            value[i] > value[lane] || (value[i] == value[lane] && index[i] < index[lane]);
        if (better) lane = i;
    }
    return {index[lane], value[lane]};
}

/// Words 4 * block … 4 * block + 63, sixteen in each of `out`.
HWY_INLINE void philox(const GumbelNoise& noise, std::uint32_t block, U16* out) {
    const U16 multiplier0 = set(std::uint32_t{0xD2511F53U});
    const U16 multiplier1 = set(std::uint32_t{0xCD9E8D57U});
    U16 c0 = load(kBlocks) + set(block);
    U16 c1 = set(noise.position);
    U16 c2 = set(std::uint32_t{0});
    U16 c3 = c2;
    std::uint32_t key0 = noise.key0;
    std::uint32_t key1 = noise.key1;
    for (int round = 0; round < 10; ++round) {
        U16 high0;
        U16 low0;
        U16 high1;
        U16 low1;
        multiply_wide(multiplier0, c0, high0, low0);
        multiply_wide(multiplier1, c2, high1, low1);
        c0 = high1 ^ c1 ^ set(key0);
        c1 = low1;
        c2 = high0 ^ c3 ^ set(key1);
        c3 = low0;
        key0 += 0x9E3779B9U;
        key1 += 0xBB67AE85U;
    }
    transpose_groups(c0, c1, c2, c3);
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/// log(-log(u)) of the uniform numbers that the words stand for.
HWY_INLINE F16 noise_of(U16 words) {
    const U16 odd = shift_left<1>(shift_right<9>(words)) + set(std::uint32_t{1});
    return log(-log(float_of_signed(odd) * set(0x1p-24F)));
}

Choice argmax(const float* logits, std::int64_t count) {
    Best best = nothing_yet();
    for (std::int64_t i = 0; i < count; i += kLanes) {
        take(best, keep_first_or(load_first(logits + i, count - i), count - i, -__builtin_inff()),
             i);
    }
    return winner(best);
}

/// The largest of `count` logits, infinity if one is none.
HWY_INLINE float largest(const float* logits, std::int64_t count) {
    const F16 infinity = set(__builtin_inff());
    F16 most = set(-__builtin_inff());
    const auto see = [&](F16 x) RANKWISE_INLINE {
        most = max(most, select(less_equal(x, infinity), x, infinity));
    };
    std::int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) see(load(logits + i));
    if (i < count)
        see(keep_first_or(load_first(logits + i, count - i), count - i, -__builtin_inff()));
    return max_lane(most);
}

/// Whether with one of these words the noise g = -log(-log u) may become more than `below`:
/// u = exp(-exp(-g)) >= 1 - exp(-g), so 1 - u < exp(-below) is necessary; 1 - u has 24 bits.
HWY_INLINE bool may_win(const U16* words, float below) {
    const float least = 0x1p23F - 2.0F - max_lane(exp(set(-below))) * 0x1p23F;
    F16 most = set(0.0F);
    for (int k = 0; k < 4; ++k) most = max(most, float_of_signed(shift_right<9>(words[k])));
    return max_lane(most) >= least;
}

/// Most ids cannot win any more once some have been drawn: their noise is not even computed, and
/// where no noise is large enough not even drawn.
Choice gumbel_argmax(const GumbelNoise& noise, const float* logits, std::int64_t count,
                     float temperature) {
    constexpr float kMostNoise = 16.7F;  // -log(-log(1 - 2^-24)) = 24 ln 2
    const F16 divisor = set(temperature);
    Best best = nothing_yet();
    float top = -__builtin_inff();
    for (std::int64_t first = 0; first < count; first += kDraws) {
        const std::int64_t here = count - first < kDraws ? count - first : kDraws;
        const float most = largest(logits + first, here) / temperature;  // rounded, it is so too
        if (most == -__builtin_inff()) continue;
        // Less what rounding may hide.
        const float below =
            top - most - 1e-3F - 0x1p-20F * (__builtin_fabsf(top) + __builtin_fabsf(most));
        if (below > kMostNoise) continue;
        U16 words[4];
        philox(noise, noise.first_block + static_cast<std::uint32_t>(first / 4), words);
        if (below > 0.0F && !may_win(words, below)) continue;
        for (int k = 0; k * kLanes < here; ++k) {
            const std::int64_t left = here - k * kLanes;
            const std::int64_t i = first + k * kLanes;
            const F16 x = load_first(logits + i, left) / divisor;
            take(best, keep_first_or(x - noise_of(words[k]), left, -__builtin_inff()), i);
        }
        top = max_lane(best.value);
    }
    return winner(best);
}

void first_words(const GumbelNoise& noise, std::uint32_t* words) {
    U16 drawn[4];
    philox(noise, noise.first_block, drawn);
    for (int k = 0; k < 4; ++k) store(drawn[k], words + k * kLanes);
}

}  // namespace

const SampleKernels& sample_kernels() {
    static constexpr SampleKernels kernels{argmax, gumbel_argmax, first_words};
    return kernels;
}

}  // namespace rankwise::kernels::cpu::RANKWISE_ISA
