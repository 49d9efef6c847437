#include "kernels/limits.hpp"

#include "tests/support/devices.hpp"
#include "tests/support/throws.hpp"

namespace rankwise::test {
namespace {

using kernels::Arithmetic;

class Limits : public OnEveryDevice {};

TEST_P(Limits, ASpinCountsWhatEveryThreadDoes) {
    const std::int64_t once = device->spin(Arithmetic::fp32, 1, device.stream());
    EXPECT_GT(once, 0);
    EXPECT_EQ(device->spin(Arithmetic::fp32, 1000, device.stream()), 1000 * once);
    const auto one_thread = kernels::make_cpu_device({.isa = GetParam().options.isa, .threads = 1});
    EXPECT_EQ(once,
              GetParam().options.threads * one_thread->spin(Arithmetic::fp32, 1, device.stream()));
}

TEST_P(Limits, AnInstructionThatTheDeviceDoesNotUseIsNoWork) {
    if (GetParam().options.isa != kernels::Isa::avx2) GTEST_SKIP() << "may have vdpbf16ps";
    EXPECT_EQ(device->spin(Arithmetic::bf16, 1000, device.stream()), 0);
}

TEST_P(Limits, EveryPatternReadsAllOfTheMemory) {
    // Not a multiple of what a pattern walks through at a time. Sums of so many ones are exact.
    const std::vector<float> ones(16 * 4096 * 11 + 37, 1.0F);
    const auto memory = device.put(ones);
    for (int pattern = 0; pattern < device->read_patterns(); ++pattern) {
        EXPECT_EQ(device->read(memory.span(), pattern, device.stream()),
                  static_cast<float>(ones.size()))
            << pattern;
    }
}

TEST_P(Limits, APatternThatThereIsNotIsRefused) {
    const auto memory = device.put(std::vector<float>(16, 1.0F));
    EXPECT_THROW((void)device->read(memory.span(), device->read_patterns(), device.stream()),
                 InternalError);
}

INSTANTIATE_TEST_SUITE_P(Devices, Limits, testing::ValuesIn(device_cases()), device_name);

}  // namespace
}  // namespace rankwise::test
