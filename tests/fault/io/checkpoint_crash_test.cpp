// A crash, a power cut or a failing disk at every single operation of saving: what is left is the
// old or the new, whole.
#include <gtest/gtest.h>

#include <cerrno>
#include <functional>

#include "io/checkpoint.hpp"
#include "tests/fault/io/faulty_fs.hpp"
#include "tests/unit/io/sample_checkpoint.hpp"
#include "tests/unit/io/scratch.hpp"

namespace rankwise::io {
namespace {

using test::Crash;
using test::FaultyFileSystem;
using test::holds_sample;
using test::save_sample;
using test::Scratch;

constexpr std::int64_t kOldSalt = 1;
constexpr std::int64_t kNewSalt = 50;

/// Checkpoints 1 and 2 are there; `action` runs on a file system that crashes at operation 1, 2, …,
/// and after each crash the directory is put in order as a new run does, and given to `check` (with
/// whether the action had ended).
void crash_everywhere(const std::function<void(FileSystem&, const Path&)>& action,
                      const std::function<void(FileSystem&, const Path&, bool)>& check, int least) {
    const auto real = posix_file_system();
    const Scratch before;
    save_sample(*real, before.path(), 1, 2, kOldSalt);
    save_sample(*real, before.path(), 2, 2, kOldSalt);
    for (const bool power_loss : {false, true}) {
        bool ended = false;
        std::int64_t at = 1;
        for (; !ended; ++at) {
            const Scratch scratch;
            const Path dir = scratch / "checkpoints";
            std::filesystem::copy(before.path(), dir, std::filesystem::copy_options::recursive);
            FaultyFileSystem faulty(*real);
            faulty.crash(at, power_loss);
            try {
                action(faulty, dir);
                ended = true;
            } catch (const Crash&) {
            }
            EXPECT_EQ(ended, !faulty.crashed());
            SCOPED_TRACE(fmt::format("crash at operation {}, power loss {}", at, power_loss));
            (void)remove_stale(*real, dir);
            const Found found = find_latest(*real, dir, Check::checksums);
            EXPECT_TRUE(found.passed_by.empty()) << found.passed_by[0];
            for (const std::string& name : real->list(dir)) {
                EXPECT_TRUE(name == "LATEST" || step_of(name)) << name;
            }
            const auto latest = step_of(test::get(dir / "LATEST").substr(0, 13));
            ASSERT_TRUE(latest);
            EXPECT_TRUE(real->exists(dir / step_name(*latest)));
            check(*real, dir, ended);
            if (testing::Test::HasFailure()) return;
        }
        EXPECT_GT(at, least);
    }
}

TEST(CheckpointCrash, SavingLeavesTheOldOrTheNewCheckpointWhole) {
    crash_everywhere([](FileSystem& fs, const Path& dir) { save_sample(fs, dir, 3, 2, kNewSalt); },
                     [](FileSystem& fs, const Path& dir, bool ended) {
                         const auto latest = find_latest(fs, dir, Check::checksums).path;
                         ASSERT_TRUE(latest);
                         const bool is_new = latest->filename() == step_name(3);
                         EXPECT_TRUE(is_new || !ended);
                         EXPECT_TRUE(holds_sample(fs, *latest, is_new ? kNewSalt : kOldSalt));
                         EXPECT_TRUE(holds_sample(fs, dir / step_name(2), kOldSalt));
                     },
                     30);
}

TEST(CheckpointCrash, ReplacingLeavesTheOldOrTheNewCheckpointWhole) {
    crash_everywhere([](FileSystem& fs, const Path& dir) { save_sample(fs, dir, 2, 2, kNewSalt); },
                     [](FileSystem& fs, const Path& dir, bool ended) {
                         const auto latest = find_latest(fs, dir, Check::checksums).path;
                         ASSERT_TRUE(latest);
                         EXPECT_EQ(latest->filename(), step_name(2));
                         const bool is_new = holds_sample(fs, *latest, kNewSalt);
                         EXPECT_TRUE(is_new || (!ended && holds_sample(fs, *latest, kOldSalt)));
                         EXPECT_TRUE(holds_sample(fs, dir / step_name(1), kOldSalt));
                     },
                     30);
}

TEST(CheckpointCrash, PruningNeverLeavesHalfACheckpoint) {
    crash_everywhere([](FileSystem& fs, const Path& dir) { (void)prune(fs, dir, 1, 0); },
                     [](FileSystem& fs, const Path& dir, bool ended) {
                         EXPECT_TRUE(holds_sample(fs, dir / step_name(2), kOldSalt));
                         const bool there = fs.exists(dir / step_name(1));
                         EXPECT_FALSE(ended && there);
                         if (there) {
                             EXPECT_TRUE(holds_sample(fs, dir / step_name(1), kOldSalt));
                         }
                     },
                     3);
}

TEST(CheckpointCrash, ACrashWhilePuttingInOrderIsMendedByTheNextTime) {
    crash_everywhere(
        [](FileSystem& fs, const Path& dir) {
            (void)begin_step(fs, dir, 3);
            fs.rename(dir / step_name(2), dir / "step_00000002.replaced");
            (void)remove_stale(fs, dir);
        },
        [](FileSystem& fs, const Path& dir, bool /*ended*/) {
            EXPECT_TRUE(holds_sample(fs, dir / step_name(2), kOldSalt));
        },
        5);
}

TEST(CheckpointFault, EveryFailingOperationIsAnErrorThatNamesPathAndReason) {
    const auto real = posix_file_system();
    for (const auto& [number, reason] :
         {std::pair(ENOSPC, "No space left on device; free some space"),
          std::pair(EACCES, "Permission denied; check the owner and the permissions")}) {
        const Scratch scratch;
        const Path dir = scratch / "checkpoints";
        save_sample(*real, dir, 1, 2, kOldSalt);
        bool ended = false;
        for (std::int64_t at = 1; !ended; ++at) {
            FaultyFileSystem faulty(*real);
            faulty.fail(at, number);
            try {
                save_sample(faulty, dir, 2, 2, kNewSalt);
                ended = true;
                EXPECT_LT(faulty.operations(), at);
            } catch (const EnvironmentError& error) {
                const std::string what = error.what();
                EXPECT_NE(what.find(reason), std::string::npos) << what;
                EXPECT_NE(what.find(dir.string()), std::string::npos) << what;
                EXPECT_TRUE(holds_sample(*real, dir / step_name(1), kOldSalt));
            }
        }
        EXPECT_TRUE(holds_sample(*real, dir / step_name(2), kNewSalt));
    }
}

TEST(CheckpointFault, AReaderThatMayNotReadSaysSoInsteadOfGoingBackUnasked) {
    if (::geteuid() == 0) GTEST_SKIP() << "root may read everything";
    const auto real = posix_file_system();
    const Scratch scratch;
    const Path dir = scratch / "checkpoints";
    save_sample(*real, dir, 1, 1, kOldSalt);
    const Path path = save_sample(*real, dir, 2, 1, kOldSalt);
    std::filesystem::permissions(path / "manifest.h5", std::filesystem::perms::none);
    test::expect_error<EnvironmentError>([&] { (void)find_latest(*real, dir, Check::sizes); },
                                         {"manifest.h5", "Permission denied"});
}

}  // namespace
}  // namespace rankwise::io
