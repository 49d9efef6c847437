#include "kernels/cpu/limit_kernels.hpp"

#include "kernels/cpu/isa/lanes.hpp"

namespace rankwise::kernels::cpu::RANKWISE_ISA {
namespace {

// Enough to hide the latency of a multiply-add (4 cycles, two a cycle), few enough for registers.
constexpr int kChains = 12;

std::int64_t spin(std::int64_t rounds) {
    FloatRegister chain[kChains];
    const FloatRegister half = hn::Set(FloatTag(), 0.5F);
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) {
        chain[i] = hn::Set(FloatTag(), static_cast<float>(i));
        asm volatile("" : "+v"(chain[i].raw));  // so that no two chains are known to be one
    }
    for (std::int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
        for (int i = 0; i < kChains; ++i) chain[i] = hn::MulAdd(half, chain[i], half);
    }
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) asm volatile("" : : "v"(chain[i].raw));
    return rounds * kChains * kWidth;
}

/// kStreams stretches, each with as many sums of its own as it takes to wait for no addition.
template <int kStreams>
float read_streams(const float* from, std::int64_t count, std::int64_t distance,
                   std::int64_t ahead) {
    constexpr int kSums = kStreams >= 4 ? 1 : 4 / kStreams;
    F16 sums[kStreams * kSums];
    for (F16& sum : sums) sum = zero();
    const std::int64_t step = kSums * kLanes;
    std::int64_t at = 0;
    for (; at + step <= count; at += step) {
#pragma GCC unroll 8
        for (int s = 0; s < kStreams; ++s) {
            const float* here = from + s * distance + at;
#pragma GCC unroll 4
            for (int i = 0; i < kSums; ++i) {
                if (ahead > 0) __builtin_prefetch(here + i * kLanes + ahead);
                sums[s * kSums + i] = sums[s * kSums + i] + load(here + i * kLanes);
            }
        }
    }
    for (; at < count; at += kLanes) {
        for (int s = 0; s < kStreams; ++s) sums[s] = sums[s] + load(from + s * distance + at);
    }
    F16 total = zero();
    for (const F16& sum : sums) total = total + sum;
    float lanes[kLanes];
    store(total, lanes);
    float all = 0.0F;
    for (const float lane : lanes) all += lane;
    return all;
}

float read(const float* from, std::int64_t count, std::int64_t streams, std::int64_t distance,
           std::int64_t ahead) {
    if (streams == 8) return read_streams<8>(from, count, distance, ahead);
    if (streams == 4) return read_streams<4>(from, count, distance, ahead);
    if (streams == 2) return read_streams<2>(from, count, distance, ahead);
    return read_streams<1>(from, count, distance, ahead);
}

}  // namespace

const LimitKernels& limit_kernels() {
    static constexpr LimitKernels kernels{spin, read};
    return kernels;
}

}  // namespace rankwise::kernels::cpu::RANKWISE_ISA
