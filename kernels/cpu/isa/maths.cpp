#include "kernels/cpu/isa/maths.hpp"

#include "kernels/cpu/maths_kernels.hpp"

namespace rankwise::kernels::cpu::RANKWISE_ISA {
namespace {

void exp_array(const float* from, float* to, std::int64_t count) {
    for (std::int64_t i = 0; i < count; i += kLanes) {
        store_first(exp(load_first(from + i, count - i)), to + i, count - i);
    }
}

void log_array(const float* from, float* to, std::int64_t count) {
    for (std::int64_t i = 0; i < count; i += kLanes) {
        store_first(log(load_first(from + i, count - i)), to + i, count - i);
    }
}

void exp_double_array(const double* from, double* to, std::int64_t count) {
    std::int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) store(exp(load(from + i)), to + i);
    if (i == count) return;
    double last[kLanes] = {};
    for (std::int64_t j = i; j < count; ++j) last[j - i] = from[j];
    store(exp(load(last)), last);
    for (std::int64_t j = i; j < count; ++j) to[j] = last[j - i];
}

float sum_lanes(const float* lanes) {
    return sum(load(lanes));
}
double sum_wide_lanes(const float* lanes) {
    return sum(widen(load(lanes)));
}
float max_of_lanes(const float* lanes) {
    return max_lane(load(lanes));
}
void copy_lanes(const float* from, float* to, std::int64_t count) {
    store_first(load_first(from, count), to, count);
}

}  // namespace

const MathsKernels& maths_kernels() {
    static constexpr MathsKernels kernels{exp_array,      log_array,    exp_double_array, sum_lanes,
                                          sum_wide_lanes, max_of_lanes, copy_lanes};
    return kernels;
}

}  // namespace rankwise::kernels::cpu::RANKWISE_ISA
