#include <algorithm>

#include "kernels/cpu/cpu_device.hpp"
#include "kernels/cpu/isa_choice.hpp"

namespace rankwise::kernels {

std::vector<Isa> available_isas() {
    std::vector<Isa> isas;
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                      __builtin_cpu_supports("f16c") && __builtin_cpu_supports("bmi") &&
                      __builtin_cpu_supports("bmi2");
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512vl");
    if (avx2) isas.push_back(Isa::avx2);
    if (avx2 && avx512) isas.push_back(Isa::avx512);
    if (avx2 && avx512 && __builtin_cpu_supports("avx512bf16")) isas.push_back(Isa::avx512_bf16);
    return isas;
}

const char* name_of(Isa isa) {
    switch (isa) {
        case Isa::automatic:
            return "automatic";
        case Isa::avx2:
            return "avx2";
        case Isa::avx512:
            return "avx512";
        case Isa::avx512_bf16:
            return "avx512_bf16";
    }
    return "?";
}

std::unique_ptr<Device> make_cpu_device(const CpuOptions& options) {
    return std::make_unique<cpu::CpuDevice>(cpu::choose_isa(options.isa, available_isas()),
                                            options.threads, options.checked);
}

namespace cpu {

Isa choose_isa(Isa wanted, std::span<const Isa> available) {
    if (available.empty()) {
        throw EnvironmentError(
            "this machine's processor lacks AVX2, FMA, F16C or BMI2, which the CPU device needs "
            "(its results are defined with "
            "fused multiply-adds): run on an x86-64 machine of 2013 or later");
    }
    if (wanted == Isa::automatic) return available.back();
    if (std::ranges::find(available, wanted) == available.end()) {
        throw EnvironmentError(
            fmt::format("--device.isa = {}: this machine's processor does not have it; the widest "
                        "that it has is {}. "
                        "Results do not depend on it: leave the option at automatic",
                        name_of(wanted), name_of(available.back())));
    }
    return wanted;
}

std::string CpuDevice::description() const {
    return fmt::format("cpu ({}, {} thread{}{})", name_of(isa_), team_->threads(),
                       team_->threads() == 1 ? "" : "s", checked_ ? ", checked" : "");
}

std::unique_ptr<Stream> CpuDevice::make_stream() {
    return std::make_unique<Stream>();
}

}  // namespace cpu
}  // namespace rankwise::kernels
