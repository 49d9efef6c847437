// Values as they were, whenever they are read.
#include "src/stages/snapshot.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>
#include <thread>

#include "tests/support/devices.hpp"

namespace rankwise::stages {
namespace {

class Snapshots : public testing::Test {
  protected:
    static constexpr std::int64_t kRows = 6;
    static constexpr std::int64_t kCols = 500;
    static constexpr std::int64_t kBytes = kRows * kCols * 4;

    Snapshots() {
        for (auto& matrix : live_) matrix = kernels::DeviceBuffer<float>(*device_, kRows * kCols);
        std::iota(before_.begin(), before_.end(), 1.0F);
        set(before_);
    }
    void set(const std::vector<float>& values) {
        for (const auto& matrix : live_)
            device_->upload(std::span<const float>(values), matrix.span(), device_.stream());
    }
    void add_all(Snapshot& snapshot) {
        for (std::size_t i = 0; i < live_.size(); ++i)
            snapshot.add("policy", "weights", static_cast<ParameterId>(i), {{0, kRows}, {0, kCols}},
                         live_[i].span());
    }
    /// Reads bytes [begin, end) of an item into `to`, in pieces.
    static void read(const io::ShardItem& item, std::vector<float>& to, std::int64_t begin,
                     std::int64_t end) {
        constexpr std::int64_t kPiece = 1000;
        for (std::int64_t at = begin; at < end; at += kPiece)
            item.read(at, std::as_writable_bytes(std::span(to))
                              .subspan(static_cast<std::size_t>(at),
                                       static_cast<std::size_t>(std::min(kPiece, end - at))));
    }

    test::DeviceUnderTest device_{test::device_cases().front()};
    std::array<kernels::DeviceBuffer<float>, 3> live_;
    std::vector<float> before_ = std::vector<float>(kRows * kCols);
    std::vector<float> after_ = std::vector<float>(kRows * kCols, -1.0F);
};

TEST_F(Snapshots, TellOfEachPieceThatIsRead) {
    int moved = 0;
    Snapshot snapshot(*device_, {}, [&] { ++moved; });
    add_all(snapshot);
    std::vector<float> seen(before_.size());
    read(snapshot.items()[0], seen, 0, kBytes);
    EXPECT_EQ(moved, kBytes / 1000);
}

TEST_F(Snapshots, HoldWhatWasThereAndCopyOnlyWhatWasNotReadYet) {
    Snapshot snapshot(*device_);
    add_all(snapshot);
    ASSERT_EQ(snapshot.items().size(), live_.size());
    std::array<std::vector<float>, 3> seen;
    seen.fill(std::vector<float>(before_.size()));
    constexpr std::int64_t kHalf = kBytes / 2;
    read(snapshot.items()[0], seen[0], 0, kBytes);
    read(snapshot.items()[1], seen[1], 0, kHalf);
    snapshot.keep(device_.stream());
    EXPECT_EQ(snapshot.copied_bytes(), kBytes - kHalf + kBytes);
    set(after_);
    snapshot.keep(device_.stream());  // what changes again is not copied again
    EXPECT_EQ(snapshot.copied_bytes(), kBytes - kHalf + kBytes);
    read(snapshot.items()[1], seen[1], kHalf, kBytes);
    read(snapshot.items()[2], seen[2], 0, kBytes);
    for (const std::vector<float>& values : seen) EXPECT_EQ(values, before_);
}

TEST_F(Snapshots, WhatIsCopiedAtOnceMayGo) {
    Snapshot snapshot(*device_);
    snapshot.add_copied("policy", "weights", 0, {{0, kRows}, {0, kCols}}, live_[0].span(),
                        device_.stream());
    live_[0] = {};
    std::vector<float> seen(before_.size());
    read(snapshot.items()[0], seen, 0, kBytes);
    EXPECT_EQ(seen, before_);
}

TEST_F(Snapshots, MemoryOfCopiesServesTheNext) {
    std::set<const std::byte*> first;
    std::vector<HostBuffer> spare;
    for (int round = 0; round < 2; ++round) {
        Snapshot snapshot(*device_, std::move(spare));
        add_all(snapshot);
        snapshot.keep(device_.stream());
        spare = snapshot.take_copies();
        ASSERT_EQ(spare.size(), live_.size());
        std::set<const std::byte*> places;
        for (const HostBuffer& copy : spare) places.insert(copy.bytes().data());
        if (round == 0) first = places;
        EXPECT_EQ(places, first);
    }
    // Of a save that had nothing to copy they stay.
    Snapshot snapshot(*device_, std::move(spare));
    add_all(snapshot);
    EXPECT_EQ(snapshot.take_copies().size(), live_.size());
}

TEST_F(Snapshots, OneThreadReadsWhileAnotherChangesTheValues) {
    for (int round = 0; round < 50; ++round) {
        set(before_);
        Snapshot snapshot(*device_);
        add_all(snapshot);
        std::array<std::vector<float>, 3> seen;
        seen.fill(std::vector<float>(before_.size()));
        std::thread reader([&] {
            for (std::size_t i = 0; i < seen.size(); ++i)
                read(snapshot.items()[i], seen[i], 0, kBytes);
        });
        for (int spin = 0; spin < round * 20; ++spin) std::this_thread::yield();
        snapshot.keep(device_.stream());
        set(after_);
        reader.join();
        for (const std::vector<float>& values : seen) EXPECT_EQ(values, before_);
    }
}

}  // namespace
}  // namespace rankwise::stages
