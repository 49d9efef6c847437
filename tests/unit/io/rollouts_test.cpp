#include "io/rollouts.hpp"

#include <gtest/gtest.h>

#include "io/checkpoint.hpp"
#include "io/hdf5_file.hpp"
#include "tests/unit/io/sample_rollouts.hpp"
#include "tests/unit/io/scratch.hpp"

namespace rankwise::io {
namespace {

using test::expect_error;
using test::sample_header;
using test::sample_trajectories;
using test::Scratch;
using test::write_sample_rollouts;

class RolloutFiles : public testing::Test {
  protected:
    std::unique_ptr<FileSystem> fs_ = posix_file_system();
    Scratch scratch_;
    Path dir_ = scratch_ / "rollouts";
};

TEST_F(RolloutFiles, WhatIsReadEqualsWhatWasWritten) {
    for (const int count : {0, 1, 2, 50}) {
        const auto trajectories = sample_trajectories(count);
        const Path path = write_sample_rollouts(*fs_, dir_, 7, trajectories);
        EXPECT_EQ(path, dir_ / "step_00000007");
        const Rollouts read = read_rollouts(*fs_, path);
        EXPECT_EQ(read.header, sample_header(7));
        EXPECT_TRUE(read.trajectories == trajectories) << count;
    }
    EXPECT_EQ(fs_->list(dir_), std::vector<std::string>{"step_00000007"});
}

TEST_F(RolloutFiles, EqualTrajectoriesWriteEqualBytes) {
    const Path a = write_sample_rollouts(*fs_, scratch_ / "a", 7, sample_trajectories(9));
    const Path b = write_sample_rollouts(*fs_, scratch_ / "b", 7, sample_trajectories(9));
    for (const std::string& name : fs_->list(a))
        EXPECT_EQ(test::get(a / name), test::get(b / name));
}

TEST_F(RolloutFiles, AMissingAlteredOrForeignPartIsNamed) {
    const Path other = write_sample_rollouts(*fs_, dir_, 6, sample_trajectories(9));
    const Path path = write_sample_rollouts(*fs_, dir_, 7, sample_trajectories(9));
    const Path part = path / "part_00001.h5";
    const std::string whole = test::get(part);
    const auto read = [&] { (void)read_rollouts(*fs_, path); };
    test::flip_bit(part, static_cast<std::int64_t>(whole.size() / 2));
    expect_error<CorruptFile>(read, {"part_00001.h5", "checksum differs"});
    test::put(part, whole.substr(0, 100));
    expect_error<CorruptFile>(read, {"part_00001.h5", "found", "100 bytes"});
    test::put(part, test::get(other / "part_00001.h5"));
    expect_error<CorruptFile>(read, {"part_00001.h5", "checksum differs"});
    fs_->remove_tree(part);
    expect_error<CorruptFile>(read, {"part_00001.h5", "missing"});
    fs_->remove_tree(path / "manifest.h5");
    expect_error<CorruptFile>(read, {"manifest.h5", "never finished"});
}

TEST_F(RolloutFiles, APartOfAnotherStepIsRefusedEvenWhenListed) {
    const Path tmp = begin_step(*fs_, dir_, 7);
    const auto part = write_rollout_part(*fs_, tmp, 0, sample_header(6), sample_trajectories(2));
    const Path path = commit_rollouts(*fs_, dir_, sample_header(7), std::vector{part});
    expect_error<CorruptFile>([&] { (void)read_rollouts(*fs_, path); }, {"another step or run"});
}

TEST_F(RolloutFiles, ListsThatDoNotFitTogetherAreRefused) {
    const Path tmp = begin_step(*fs_, dir_, 7);
    auto part = write_rollout_part(*fs_, tmp, 0, sample_header(7), sample_trajectories(4));
    part.trajectories = 3;
    const Path path = commit_rollouts(*fs_, dir_, sample_header(7), std::vector{part});
    expect_error<CorruptFile>([&] { (void)read_rollouts(*fs_, path); },
                              {"offsets", "does not fit"});
}

TEST_F(RolloutFiles, ANewerFormatIsBadInput) {
    const Path path = write_sample_rollouts(*fs_, dir_, 7, sample_trajectories(2));
    Hdf5File file = Hdf5File::create(*fs_, path / "manifest.h5");
    file.set_attribute("/", "format", std::int64_t{99});
    file.close();
    expect_error<BadInput>([&] { (void)read_rollouts(*fs_, path); }, {"format 99", "newer"});
}

TEST_F(RolloutFiles, TrajectoriesThatContradictThemselvesAreNotWritten) {
    auto trajectories = sample_trajectories(2);
    trajectories[1].logprobs.pop_back();
    fs_->create_directories(dir_);
    const auto write = [&] {
        (void)write_rollout_part(*fs_, dir_, 0, sample_header(7), trajectories);
    };
    expect_error<InternalError>(write, {"sample 1", "log-probabilities"});
    trajectories = sample_trajectories(2);
    trajectories[0].scores[0].name = "a/b";
    expect_error<InternalError>(write, {"'a/b'", "name of a score"});
}

}  // namespace
}  // namespace rankwise::io
