#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <random>
#include <vector>

#include "tests/support/devices.hpp"

namespace rankwise::test {
namespace {

using kernels::Arena;
using kernels::DeviceBuffer;

class MemoryTest : public OnEveryDevice {};
INSTANTIATE_TEST_SUITE_P(Devices, MemoryTest, testing::ValuesIn(device_cases()), device_name);

std::vector<int> counted(std::int64_t size, int first) {
    std::vector<int> values(static_cast<std::size_t>(size));
    std::iota(values.begin(), values.end(), first);
    return values;
}

TEST_P(MemoryTest, WhatIsUploadedCanBeCopiedZeroedAndDownloaded) {
    const auto values = counted(1000, 5);
    const auto from = device.put(values);
    const auto to = device.make<int>(1000);
    device->copy(cast_span<const std::byte>(DeviceSpan<const int>(from.span())),
                 cast_span<std::byte>(to.span()), device.stream());
    EXPECT_EQ(device.get(to), values);
    device->zero(cast_span<std::byte>(to.span().subspan(10, 20)), device.stream());
    device->synchronize(device.stream());
    auto expected = values;
    std::fill_n(expected.begin() + 10, 20, 0);
    EXPECT_EQ(device.get(to), expected);
}

TEST_P(MemoryTest, WhatThreadsShareOutIsCopiedAndZeroedAsAWhole) {
    for (const std::int64_t size : {8191, 8192, 100003, 262144}) {
        const auto values = counted(size + 2, 5);
        const auto from = device.put(values);
        const auto to = device.put(counted(size + 2, -7));
        device->copy(
            cast_span<const std::byte>(DeviceSpan<const int>(from.span().subspan(1, size))),
            cast_span<std::byte>(to.span().subspan(1, size)), device.stream());
        auto expected = values;
        expected.front() = -7;
        expected.back() = static_cast<int>(size) - 6;
        EXPECT_EQ(device.get(to), expected) << size;
        device->zero(cast_span<std::byte>(to.span().subspan(1, size)), device.stream());
        std::fill_n(expected.begin() + 1, size, 0);
        EXPECT_EQ(device.get(to), expected) << size;
    }
}

TEST_P(MemoryTest, LargeCopiesFromAndToAnywhereAreWhole) {
    // About the size from which copies go past the caches, at odd places of the host's memory.
    for (const std::int64_t bytes : {(1 << 20) - 1, 1 << 20, (1 << 20) + 77, (3 << 20) + 5}) {
        for (const std::size_t offset : {0U, 1U, 15U, 63U, 64U}) {
            std::vector<std::byte> host(static_cast<std::size_t>(bytes) + offset + 8);
            for (std::size_t i = 0; i < host.size(); ++i)
                host[i] = static_cast<std::byte>(i * 31 + (i >> 9U));
            const auto there = device.make<std::byte>(bytes + 3);
            const auto at = there.span().subspan(3, bytes);
            const auto from =
                std::span<const std::byte>(host).subspan(offset, static_cast<std::size_t>(bytes));
            device->upload(from, at, device.stream());
            std::vector<std::byte> back(host.size(), std::byte{0xEE});
            const auto to = std::span(back).subspan(offset, static_cast<std::size_t>(bytes));
            device->download(DeviceSpan<const std::byte>(at), to, device.stream());
            EXPECT_TRUE(std::ranges::equal(from, to)) << bytes << " at " << offset;
            EXPECT_EQ(back[offset + static_cast<std::size_t>(bytes)], std::byte{0xEE});
            EXPECT_TRUE(offset == 0 || back[offset - 1] == std::byte{0xEE});
        }
    }
}

TEST_P(MemoryTest, AllocationsAreAlignedApartAndCounted) {
    EXPECT_EQ(device->bytes_in_use(), 0);
    {
        std::vector<DeviceBuffer<int>> buffers;
        std::int64_t bytes = 0;
        for (int i = 0; i < 50; ++i) {
            const std::int64_t size =
                1 + i * i * 700;  // past the size from which huge pages are asked for
            buffers.push_back(device.put(counted(size, i)));
            bytes += device->footprint(size * 4);
            EXPECT_GE(device->footprint(size * 4), size * 4);
            EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffers.back().span().handle()) % 64, 0U);
        }
        EXPECT_EQ(device->bytes_in_use(), bytes);
        for (int i = 0; i < 50; ++i) {
            EXPECT_EQ(device.get(buffers[static_cast<std::size_t>(i)]),
                      counted(1 + i * i * 700, i));
        }
    }
    EXPECT_EQ(device->bytes_in_use(), 0);
    EXPECT_EQ(device->allocate(0), nullptr);
    device->free(nullptr, 0);
}

TEST_P(MemoryTest, FreedMemoryIsUsedAgainAndNeverHandedOutTwice) {
    std::mt19937 random(1);  // which sizes in which order: any will do
    std::vector<DeviceBuffer<int>> buffers(40);
    for (int round = 0; round < 400; ++round) {
        auto& slot = buffers[random() % buffers.size()];
        slot = {};
        slot = device.put(counted(1 + static_cast<std::int64_t>(random() % 5000), round));
    }
    for (const auto& buffer : buffers) {
        if (buffer.size() == 0) continue;
        const auto values = device.get(buffer);
        EXPECT_EQ(values, counted(buffer.size(), values[0]));
    }
}

TEST_P(MemoryTest, ACommunicatorReachesTheBytesAtTheirWireAddress) {
    const auto buffer = device.put(counted(8, 3));
    auto* wire = reinterpret_cast<int*>(
        device->wire_address(reinterpret_cast<std::byte*>(buffer.span().handle())));
    EXPECT_EQ(wire[7], 10);
    wire[0] = -1;
    EXPECT_EQ(device.get(buffer)[0], -1);
    EXPECT_EQ(device->wire_address(nullptr), nullptr);
}

TEST_P(MemoryTest, MoreMemoryThanThereIsIsRefusedNamingTheSize) {
    const auto some = device.make<float>(100);
    for (std::int64_t bytes : {std::int64_t{1} << 60, std::int64_t{1} << 47}) {
        try {
            (void)device->allocate(bytes);
            FAIL() << "allocated " << bytes;
        } catch (const EnvironmentError& error) {
            EXPECT_THAT(error.what(),
                        testing::HasSubstr(std::to_string(bytes) + " bytes wanted, 400 in use"));
        }
    }
    EXPECT_EQ(device->bytes_in_use(), 400);
    EXPECT_THROW((void)device->allocate(-1), InternalError);
}

TEST_P(MemoryTest, CopiesOfDifferentSizesAreRefused) {
    const auto buffer = device.make<std::byte>(8);
    std::vector<std::byte> host(7);
    EXPECT_THROW(device->upload(std::span<const std::byte>(host), buffer.span(), device.stream()),
                 InternalError);
    EXPECT_THROW(device->download(DeviceSpan<const std::byte>(buffer.span()), std::span(host),
                                  device.stream()),
                 InternalError);
    EXPECT_THROW(
        device->copy(buffer.span().subspan(0, 3), buffer.span().subspan(4), device.stream()),
        InternalError);
}

TEST_P(MemoryTest, AnArenaGivesBackWhatAScopeTookAndAllocatesNothingOnceGrown) {
    Arena arena(*device);
    const auto step = [&] {
        const Arena::Scope step_scope(arena);
        const auto a = arena.take<int>(300'000);
        {
            const Arena::Scope inner(arena);
            const auto b = arena.take<int>(500'000);
            EXPECT_TRUE(b.handle() >= a.handle() + a.size() || b.handle() + b.size() <= a.handle());
        }
        const auto c = arena.take<int>(200'000);
        const auto values = counted(200'000, 7);
        device->upload(std::span<const int>(values), c, device.stream());
        device->zero(cast_span<std::byte>(a), device.stream());
        EXPECT_EQ(device.get(c), values);
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(c.handle()) % 64, 0U);
    };
    step();
    EXPECT_EQ(arena.peak_bytes(), 800'000 * 4);
    step();
    const std::int64_t held = arena.capacity_bytes();
    EXPECT_EQ(device->bytes_in_use(), device->footprint(held));
    for (int i = 0; i < 5; ++i) step();
    EXPECT_EQ(arena.capacity_bytes(), held);
    EXPECT_LE(held, 2 * arena.peak_bytes());
    EXPECT_EQ(arena.take<int>(0).handle(), nullptr);
    EXPECT_THROW((void)arena.take<int>(-1), InternalError);
}

TEST_P(MemoryTest, AReservedArenaIsOneBlockThatHoldsSoMuch) {
    Arena arena(*device);
    arena.reserve(8'000'000);
    const std::int64_t reserved = device->bytes_in_use();
    EXPECT_EQ(device->footprint(arena.capacity_bytes()), reserved);
    EXPECT_GE(reserved, 8'000'000);
    {
        const Arena::Scope scope(arena);
        (void)arena.take<int>(1'000'000);
        (void)arena.take<int>(900'000);
        EXPECT_EQ(device->bytes_in_use(), reserved);
        EXPECT_THROW(arena.reserve(100), InternalError);
    }
    arena.reserve(100);
    EXPECT_EQ(arena.peak_bytes(), 0);
    EXPECT_LT(device->bytes_in_use(), 1000);
}

TEST_P(MemoryTest, ArenasBesideOneEndInAnyOrderAndTheirPeaksAreCountedApart) {
    Arena arena(*device);
    {
        auto first = std::make_unique<Arena::Scope>(arena.beside(0));
        auto second = std::make_unique<Arena::Scope>(arena.beside(1));
        const auto a = arena.beside(0).take<float>(1000);
        const auto b = arena.beside(1).take<float>(2000);
        EXPECT_NE(a.handle(), b.handle());
        first.reset();
        EXPECT_EQ(arena.beside(0).take<float>(1000).handle(), a.handle());
        second.reset();
    }
    EXPECT_EQ(arena.peak_bytes(), 0);
    EXPECT_GE(arena.peak_bytes_beside(), 12'000);
    arena.reserve(0);
    EXPECT_EQ(arena.peak_bytes_beside(), 0);
    EXPECT_EQ(device->bytes_in_use(), 0);
}

class CheckedMemoryTest : public testing::Test {
  protected:
    DeviceUnderTest device{
        {"checked", {.isa = kernels::Isa::automatic, .threads = 1, .checked = true}}};
};
using CheckedMemoryDeathTest = CheckedMemoryTest;

TEST_F(CheckedMemoryDeathTest, AHostReadOfDeviceMemoryFaults) {
    testing::FLAGS_gtest_death_test_style = "threadsafe";
    const auto buffer = device.put(counted(8, 1));
    EXPECT_DEATH(
        {
            const volatile int value = *buffer.span().handle();
            (void)value;
        },
        "");
}

TEST_F(CheckedMemoryDeathTest, AHostWriteOfDeviceMemoryFaults) {
    testing::FLAGS_gtest_death_test_style = "threadsafe";
    const auto buffer = device.put(counted(8, 1));
    EXPECT_DEATH({ *const_cast<volatile int*>(buffer.span().handle()) = 1; }, "");
}

TEST_F(CheckedMemoryTest, NewMemoryIsFullOfNaNs) {
    { const auto dirty = device.put(std::vector<float>(5000, 1.0F)); }
    for (float value : device.get(device.make<float>(5000))) ASSERT_TRUE(std::isnan(value));
}

TEST_F(CheckedMemoryTest, TheWholeRangeIsThereAgainAfterEverythingIsFreed) {
    std::vector<DeviceBuffer<std::byte>> buffers;
    for (int i = 0; i < 9; ++i) buffers.push_back(device.make<std::byte>(1000 + 64 * i));
    const auto first = buffers[0].span().handle();
    for (int i : {3, 1, 2, 8, 0, 5, 4, 7, 6}) buffers[static_cast<std::size_t>(i)] = {};
    EXPECT_EQ(device.make<std::byte>(20'000).span().handle(), first);
}

}  // namespace
}  // namespace rankwise::test
