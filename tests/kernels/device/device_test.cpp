#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "kernels/cpu/isa_choice.hpp"
#include "tests/support/devices.hpp"

namespace rankwise::test {
namespace {

using kernels::Isa;
using kernels::cpu::choose_isa;

std::string refusal(Isa wanted, const std::vector<Isa>& available) {
    try {
        (void)choose_isa(wanted, available);
    } catch (const EnvironmentError& error) {
        return error.what();
    }
    return "";
}

TEST(IsaTest, AutomaticIsTheWidestThatTheMachineHas) {
    EXPECT_EQ(choose_isa(Isa::automatic, std::vector{Isa::avx2}), Isa::avx2);
    EXPECT_EQ(choose_isa(Isa::automatic, std::vector{Isa::avx2, Isa::avx512}), Isa::avx512);
    EXPECT_EQ(choose_isa(Isa::automatic, std::vector{Isa::avx2, Isa::avx512, Isa::avx512_bf16}),
              Isa::avx512_bf16);
    EXPECT_EQ(choose_isa(Isa::avx2, std::vector{Isa::avx2, Isa::avx512}), Isa::avx2);
}

TEST(IsaTest, AMachineWithoutFusedMultiplyAddsIsRefused) {
    EXPECT_THAT(refusal(Isa::automatic, {}), testing::HasSubstr("lacks AVX2, FMA"));
    EXPECT_THAT(refusal(Isa::avx2, {}), testing::HasSubstr("lacks AVX2, FMA"));
}

TEST(IsaTest, AnInstructionSetThatTheMachineLacksIsRefusedNamingWhatItHas) {
    const std::string message = refusal(Isa::avx512, {Isa::avx2});
    EXPECT_THAT(message, testing::HasSubstr("--device.isa = avx512"));
    EXPECT_THAT(message, testing::HasSubstr("widest that it has is avx2"));
}

TEST(IsaTest, ThisMachineCanRunTheTests) {
    EXPECT_FALSE(kernels::available_isas().empty());
    EXPECT_STREQ(kernels::name_of(Isa::automatic), "automatic");
}

TEST(IsaTest, ADeviceDescribesItself) {
    const auto device = kernels::make_cpu_device({.isa = Isa::avx2, .threads = 2, .checked = true});
    EXPECT_EQ(device->description(), "cpu (avx2, 2 threads, checked)");
    EXPECT_EQ(
        kernels::make_cpu_device({.isa = Isa::avx2, .threads = 1, .checked = false})->description(),
        "cpu (avx2, 1 thread)");
    EXPECT_THROW(
        (void)kernels::make_cpu_device({.isa = Isa::automatic, .threads = 0, .checked = false}),
        InternalError);
}

}  // namespace
}  // namespace rankwise::test
