// Working memory of the CPU device.
#include "kernels/cpu/scratch.hpp"

#include <gtest/gtest.h>

#include <cstdint>

#include "kernels/cpu/host_memory.hpp"
#include "src/base/error.hpp"

namespace rankwise::kernels::cpu {
namespace {

bool aligned(const void* memory, std::uintptr_t bytes) {
    return reinterpret_cast<std::uintptr_t>(memory) % bytes == 0;
}

TEST(Scratch, IsKeptUntilMoreIsWanted) {
    Scratch scratch;
    float* const few = scratch.take(100);
    ASSERT_NE(few, nullptr);
    EXPECT_TRUE(aligned(few, 64));
    few[99] = 1.0F;
    EXPECT_EQ(scratch.take(10), few);
    EXPECT_EQ(scratch.take(100), few);
    EXPECT_EQ(few[99], 1.0F);
    float* const more = scratch.take(1000);
    more[999] = 2.0F;
    EXPECT_EQ(scratch.take(100), more);
}

TEST(Scratch, LiesOnLargePagesWhereItFillsSome) {
    constexpr std::int64_t kLargePage = std::int64_t{2} << 20;
    Scratch scratch;
    const std::int64_t floats = kLargePage / 4 + 1;
    float* const memory = scratch.take(floats);
    EXPECT_TRUE(aligned(memory, kLargePage));
    memory[floats - 1] = 1.0F;
    EXPECT_EQ(host_memory_taken(floats * 4), 2 * kLargePage);
}

TEST(Scratch, SaysHowMuchMemoryIsMissingAndCanBeUsedAfterwards) {
    Scratch scratch;
    try {
        (void)scratch.take(std::int64_t{1} << 50);
        FAIL() << "so much memory there is not";
    } catch (const EnvironmentError& error) {
        EXPECT_STREQ(error.what(), "out of memory: 4503599627370496 bytes of scratch wanted");
    }
    EXPECT_NE(scratch.take(16), nullptr);
}

}  // namespace
}  // namespace rankwise::kernels::cpu
