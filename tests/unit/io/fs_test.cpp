#include "io/fs.hpp"

#include <gtest/gtest.h>

#include <sys/resource.h>
#include <sys/wait.h>
#include <atomic>

#include <csignal>

#include "io/checksum.hpp"
#include "io/verified_file.hpp"
#include "tests/unit/io/scratch.hpp"

namespace rankwise::io {
namespace {

using test::expect_error;
using test::Scratch;

class Files : public testing::Test {
  protected:
    std::unique_ptr<FileSystem> fs_ = posix_file_system();
    Scratch scratch_;
};

TEST_F(Files, ReplaceLeavesTheNewContentsAndNoTemporary) {
    const Path path = scratch_ / "LATEST";
    replace_file(*fs_, path, bytes_of("one"));
    replace_file(*fs_, path, bytes_of("two!"));
    EXPECT_EQ(test::get(path), "two!");
    EXPECT_EQ(fs_->list(scratch_.path()), std::vector<std::string>{"LATEST"});
}

TEST_F(Files, ReadAndWriteAtOffsets) {
    const auto file = fs_->open(scratch_ / "a", OpenMode::create);
    file->write_at(3, bytes_of("xyz"));
    EXPECT_EQ(file->size(), 6);
    std::vector<std::byte> bytes(10);
    EXPECT_EQ(file->read_at(4, bytes), 2);
    EXPECT_EQ(bytes[0], std::byte{'y'});
    file->truncate(4);
    EXPECT_EQ(fs_->open(scratch_ / "a", OpenMode::update)->size(), 4);
}

/// Memory at a multiple of kDirectBlock, with contents that differ from place to place.
class Blocks {
  public:
    explicit Blocks(std::int64_t size)
        : memory_(static_cast<std::size_t>(size + kDirectBlock)), size_(size) {
        const auto address = reinterpret_cast<std::uintptr_t>(memory_.data());
        begin_ = static_cast<std::size_t>(kDirectBlock) - address % kDirectBlock;
        for (std::size_t i = 0; i < memory_.size(); ++i)
            memory_[i] = static_cast<std::byte>(i * 31 + i / 4099);
    }
    [[nodiscard]] std::span<const std::byte> all() const {
        return std::span(memory_).subspan(begin_, static_cast<std::size_t>(size_));
    }

  private:
    std::vector<std::byte> memory_;
    std::int64_t size_;
    std::size_t begin_ = 0;
};

TEST_F(Files, WhatIsWrittenPastTheCacheIsWhatIsReadThroughIt) {
    constexpr std::int64_t kSize = 64 * kDirectBlock;
    const Blocks blocks(kSize);
    struct Piece {
        std::int64_t offset, begin, size;
        bool through;
    };
    const std::vector<Piece> pieces = {
        {0, 0, 5000, false},                                        // before a block ends
        {2 * kDirectBlock, 0, 8 * kDirectBlock, true},              // whole blocks
        {kDirectBlock, 3 * kDirectBlock, 2 * kDirectBlock, false},  // over a part of them
        {20 * kDirectBlock, kDirectBlock, 3 * kDirectBlock, true},  // behind a hole
        {20 * kDirectBlock, 0, 2 * kDirectBlock, true},             // again
        {30 * kDirectBlock, 7, 4 * kDirectBlock, true},             // memory between blocks
        {30 * kDirectBlock + 9, 0, 2 * kDirectBlock, true},         // offset likewise
        {40 * kDirectBlock, 0, 100, true},                          // no block
        {41 * kDirectBlock, 0, 0, true},
    };
    std::vector<Path> folders = {scratch_.path()};
    if (fs_->exists("/dev/shm")) folders.emplace_back("/dev/shm");  // of memory, without a disk
    for (const Path& folder : folders) {
        for (const bool direct : {false, true}) {
            const auto files = posix_file_system({.direct = direct});
            const Path path = folder / fmt::format("rankwise_through_{}", ::getpid());
            std::vector<std::byte> expected;
            {
                const auto file = files->open(path, OpenMode::create);
                for (const Piece& piece : pieces) {
                    const auto bytes = blocks.all().subspan(static_cast<std::size_t>(piece.begin),
                                                            static_cast<std::size_t>(piece.size));
                    const auto end = static_cast<std::size_t>(piece.offset + piece.size);
                    if (piece.size > 0 && expected.size() < end) expected.resize(end);
                    std::copy(bytes.begin(), bytes.end(), expected.begin() + piece.offset);
                    if (piece.through) {
                        file->write_through(piece.offset, bytes);
                    } else {
                        file->write_at(piece.offset, bytes);
                    }
                    std::vector<std::byte> seen(expected.size());
                    EXPECT_EQ(file->read_at(0, seen), std::ssize(expected));
                    EXPECT_EQ(seen, expected) << path << " at " << piece.offset;
                }
                file->sync();
            }
            EXPECT_EQ(read_file(*fs_, path), expected) << path;
            fs_->remove_tree(path);
        }
    }
}

TEST_F(Files, ListIsSortedAndEmptyForWhatIsNotThere) {
    for (const char* name : {"b", "a", "c"}) test::put(scratch_ / name, "");
    EXPECT_EQ(fs_->list(scratch_.path()), (std::vector<std::string>{"a", "b", "c"}));
    EXPECT_TRUE(fs_->list(scratch_ / "nowhere").empty());
}

TEST_F(Files, RemoveTreeTakesDirectoriesAndIgnoresWhatIsAbsent) {
    fs_->create_directories(scratch_ / "d/e/f");
    test::put(scratch_ / "d/e/f/x", "x");
    fs_->remove_tree(scratch_ / "d");
    fs_->remove_tree(scratch_ / "d");
    EXPECT_FALSE(fs_->exists(scratch_ / "d"));
}

TEST_F(Files, EveryOperationNamesPathAndReason) {
    const Path missing = scratch_ / "no/such";
    expect_error<EnvironmentError>(
        [&] { (void)fs_->open(missing, OpenMode::read); },
        {"cannot open", missing.string(), "No such file", "check the path"});
    expect_error<EnvironmentError>([&] { (void)fs_->open(missing, OpenMode::create); },
                                   {"cannot write", missing.string()});
    expect_error<EnvironmentError>([&] { fs_->rename(missing, scratch_ / "x"); },
                                   {"cannot rename", missing.string(), "No such file"});
    expect_error<EnvironmentError>([&] { fs_->sync_directory(missing); }, {missing.string()});
    expect_error<EnvironmentError>([&] { (void)fs_->free_bytes(missing); }, {missing.string()});
    expect_error<EnvironmentError>([&] { (void)fs_->lock(missing); }, {missing.string()});
    test::put(scratch_ / "file", "");
    expect_error<EnvironmentError>([&] { fs_->create_directories(scratch_ / "file/below"); },
                                   {"cannot make the directory", "Not a directory"});
    expect_error<EnvironmentError>([&] { (void)fs_->list(scratch_ / "file"); },
                                   {"cannot list", "Not a directory"});
    expect_error<EnvironmentError>([&] { (void)fs_->exists(scratch_ / std::string(5000, 'x')); },
                                   {"cannot examine", "too long"});
    expect_error<EnvironmentError>([&] { fs_->remove_tree("/proc/self/status"); },
                                   {"cannot remove"});
    const auto read_only = fs_->open(scratch_ / "file", OpenMode::read);
    expect_error<EnvironmentError>([&] { read_only->write_at(0, bytes_of("x")); },
                                   {"cannot write", "file"});
    expect_error<EnvironmentError>([&] { read_only->truncate(3); }, {"cannot resize", "file"});
    std::vector<std::byte> bytes(4);
    const auto directory = fs_->open(scratch_.path(), OpenMode::read);
    expect_error<EnvironmentError>([&] { (void)directory->read_at(0, bytes); },
                                   {"cannot read", "directory"});
}

TEST_F(Files, AFullDeviceIsNamedWithAdvice) {
    if (!fs_->exists("/dev/full")) GTEST_SKIP() << "no /dev/full on this machine";
    const auto full = fs_->open("/dev/full", OpenMode::update);
    expect_error<EnvironmentError>([&] { full->write_at(0, bytes_of("x")); },
                                   {"/dev/full", "No space left on device", "free some space"});
}

TEST_F(Files, AFileSizeLimitIsAnError) {
    rlimit old{};
    ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old), 0);
    rlimit small = old;
    small.rlim_cur = 100;
    std::signal(SIGXFSZ, SIG_IGN);
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
    const std::string text(200, 'x');
    expect_error<EnvironmentError>([&] { write_file(*fs_, scratch_ / "big", bytes_of(text)); },
                                   {"big", "File too large", "ulimit -f"});
    const Blocks blocks(kDirectBlock);
    const auto file = fs_->open(scratch_ / "big", OpenMode::create);
    expect_error<EnvironmentError>([&] { file->write_through(kDirectBlock, blocks.all()); },
                                   {"big", "File too large", "ulimit -f"});
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &old), 0);
    std::signal(SIGXFSZ, SIG_DFL);
}

TEST_F(Files, SpaceIsAskedForBeforeItIsNeeded) {
    EXPECT_GT(fs_->free_bytes(scratch_.path()), 0);
    require_space(*fs_, scratch_.path(), 1, "a checkpoint");
    expect_error<EnvironmentError>(
        [&] { require_space(*fs_, scratch_.path(), INT64_MAX, "a checkpoint"); },
        {scratch_.path().string(), "a checkpoint needs", "MiB free"});
}

TEST_F(Files, ADirectoryInUseNamesItsHolder) {
    const Path path = scratch_ / "lock";
    auto held = fs_->lock(path);
    expect_error<EnvironmentError>(
        [&] { (void)fs_->lock(path); },
        {path.string(), "in use", fmt::format("pid {}", ::getpid()), "on host"});
    held.reset();
    EXPECT_NE(fs_->lock(path), nullptr);
}

TEST_F(Files, TheLockOfADeadProcessIsFree) {
    const Path path = scratch_ / "lock";
    const pid_t child = fork();
    if (child == 0) {
        const auto held = fs_->lock(path);
        ::kill(::getpid(), SIGKILL);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFSIGNALED(status));
    EXPECT_NE(fs_->lock(path), nullptr);
}

TEST_F(Files, AChecksumFollowedThroughWritesEqualsOneFromReading) {
    const auto file = fs_->open(scratch_ / "a", OpenMode::create);
    FileChecksum checksum;
    const auto write = [&](std::int64_t offset, std::int64_t size, char value) {
        const std::string text(static_cast<std::size_t>(size), value);
        file->write_at(offset, bytes_of(text));
        checksum.wrote(offset, bytes_of(text));
    };
    write(100, 5 * kChecksumBlock, 'a');     // blocks 1 to 4 whole
    write(2 * kChecksumBlock + 5, 10, 'b');  // spoils block 2
    write(3 * kChecksumBlock, kChecksumBlock, 'c');
    write(0, 100, 'd');
    write(8 * kChecksumBlock, 10, 'e');  // leaves a hole
    const UInt128 followed = checksum.finish(*file);
    EXPECT_EQ(followed, checksum_of(*file));
    file->truncate(4 * kChecksumBlock + 1);
    checksum.truncated(4 * kChecksumBlock + 1);
    EXPECT_EQ(checksum.finish(*file), checksum_of(*file));
    EXPECT_NE(checksum.finish(*file), followed);
}

/// Counts what is read of a file.
class CountedFile final : public File {
  public:
    explicit CountedFile(File& file) : file_(file) {}
    std::int64_t read_at(std::int64_t offset, std::span<std::byte> bytes) override {
        const std::int64_t read = file_.read_at(offset, bytes);
        read_ += read;
        return read;
    }
    void write_at(std::int64_t offset, std::span<const std::byte> bytes) override {
        file_.write_at(offset, bytes);
    }
    void truncate(std::int64_t size) override { file_.truncate(size); }
    std::int64_t size() override { return file_.size(); }
    void sync() override { file_.sync(); }
    [[nodiscard]] std::int64_t bytes_read() const { return read_; }

  private:
    File& file_;
    std::atomic<std::int64_t> read_ = 0;
};

TEST_F(Files, PiecesOneAfterTheOtherAreNotReadBackForTheChecksum) {
    const auto file = fs_->open(scratch_ / "a", OpenMode::create);
    FileChecksum checksum;
    std::int64_t at = 0;
    for (int i = 0; i < 50; ++i) {
        const std::string piece(100'003, static_cast<char>(i));
        file->write_at(at, bytes_of(piece));
        checksum.wrote(at, bytes_of(piece));
        at += static_cast<std::int64_t>(piece.size());
    }
    CountedFile counted(*file);
    EXPECT_EQ(checksum.finish(counted), checksum_of(*file));
    EXPECT_EQ(counted.bytes_read(), 0);
}

TEST_F(Files, AFileThatIsVerifiedIsReadOnceWhateverIsAskedFor) {
    const Path path = scratch_ / "a";
    const std::int64_t size = 5 * kChecksumBlock + 1234;
    std::string whole(static_cast<std::size_t>(size), 0);
    for (std::size_t i = 0; i < whole.size(); ++i) whole[i] = static_cast<char>(i * i >> 3U);
    test::put(path, whole);
    const auto file = fs_->open(path, OpenMode::read);
    const UInt128 expected = checksum_of(*file);
    for (const std::int64_t blocks :
         {1, 2, 4, 9}) {  // of a stretch; of several the next is read ahead
        auto counting = std::make_unique<CountedFile>(*file);
        const CountedFile& counted = *counting;
        VerifiedFile verified(std::move(counting), blocks);
        std::string part(static_cast<std::size_t>(3 * kChecksumBlock), 0);
        for (const std::int64_t from : {std::int64_t{7}, kChecksumBlock / 2, 2 * kChecksumBlock}) {
            const std::int64_t read =
                verified.read_at(from, std::as_writable_bytes(std::span(part)));
            EXPECT_EQ(read, static_cast<std::int64_t>(part.size()));
            EXPECT_EQ(part, whole.substr(static_cast<std::size_t>(from), part.size()));
        }
        // Beyond the end there is nothing.
        EXPECT_EQ(verified.read_at(size - 4, std::as_writable_bytes(std::span(part))), 4);
        EXPECT_EQ(verified.read_at(size + 4, std::as_writable_bytes(std::span(part))), 0);
        const std::int64_t before = counted.bytes_read();
        EXPECT_EQ(verified.finish(), expected);
        EXPECT_EQ(counted.bytes_read(), before);  // all had passed already
    }
}

TEST_F(Files, AReaderThatGoesElsewhereFindsWhatIsThereAndTheFileIsReadAheadFromThereOn) {
    const Path path = scratch_ / "a";
    std::string whole(static_cast<std::size_t>(12 * kChecksumBlock + 5), 0);
    for (std::size_t i = 0; i < whole.size(); ++i) whole[i] = static_cast<char>(i >> 12U);
    test::put(path, whole);
    const auto file = fs_->open(path, OpenMode::read);
    const UInt128 expected = checksum_of(*file);
    auto counting = std::make_unique<CountedFile>(*file);
    const CountedFile& counted = *counting;
    VerifiedFile verified(std::move(counting), 2);
    std::string part(1000, 0);
    // Each time two stretches one after the other, the third being on its way, and then a jump.
    for (const std::int64_t from : {0, 2, 8, 10, 4, 6}) {
        const std::int64_t at = from * kChecksumBlock + 17;
        EXPECT_EQ(verified.read_at(at, std::as_writable_bytes(std::span(part))), 1000);
        EXPECT_EQ(part, whole.substr(static_cast<std::size_t>(at), part.size()));
    }
    EXPECT_EQ(verified.finish(), expected);
    // What was on its way when the reader went elsewhere is read again where it is wanted.
    EXPECT_LE(counted.bytes_read(), std::ssize(whole) + 4 * kChecksumBlock);
}

TEST_F(Files, AFileThatChangesBetweenTwoReadingsOfAPartDoesNotPass) {
    const Path path = scratch_ / "a";
    std::string whole(static_cast<std::size_t>(6 * kChecksumBlock), 'x');
    test::put(path, whole);
    const UInt128 expected = checksum_of(*fs_->open(path, OpenMode::read));
    for (const bool changes : {false, true}) {
        VerifiedFile verified(fs_->open(path, OpenMode::read));
        std::string part(1000, 0);
        const auto read = [&](std::int64_t block) {
            (void)verified.read_at(block * kChecksumBlock, std::as_writable_bytes(std::span(part)));
        };
        for (const std::int64_t block : {0, 2, 4}) read(block);  // of which two are held
        if (changes) {
            const auto file = fs_->open(path, OpenMode::update);
            file->write_at(500, bytes_of("y"));
        }
        read(0);
        EXPECT_EQ(part[500], changes ? 'y' : 'x');
        int moved = 0;
        EXPECT_EQ(verified.finish([&] { ++moved; }) == expected, !changes);
        EXPECT_EQ(moved, 3);  // blocks 1, 3 and 5
    }
}

/// Fails from a place on.
class BrokenFile final : public File {
  public:
    BrokenFile(File& file, std::int64_t from) : file_(file), from_(from) {}
    std::int64_t read_at(std::int64_t offset, std::span<std::byte> bytes) override {
        if (offset >= from_) throw EnvironmentError("the disk is gone");
        return file_.read_at(offset, bytes);
    }
    void write_at(std::int64_t /*offset*/, std::span<const std::byte> /*bytes*/) override {}
    void truncate(std::int64_t /*size*/) override {}
    std::int64_t size() override { return file_.size(); }
    void sync() override {}

  private:
    File& file_;
    std::int64_t from_;
};

TEST_F(Files, WhatFailsWhileItIsReadAheadIsToldToTheReaderOrToNobody) {
    const Path path = scratch_ / "a";
    test::put(path, std::string(static_cast<std::size_t>(7 * kChecksumBlock), 'x'));
    const auto file = fs_->open(path, OpenMode::read);
    std::string part(1000, 0);
    const auto read = [&](VerifiedFile& verified, std::int64_t block) {
        return verified.read_at(block * kChecksumBlock, std::as_writable_bytes(std::span(part)));
    };
    VerifiedFile verified(std::make_unique<BrokenFile>(*file, 4 * kChecksumBlock), 2);
    EXPECT_EQ(read(verified, 0), 1000);
    EXPECT_EQ(read(verified, 2), 1000);
    EXPECT_THROW((void)read(verified, 4), EnvironmentError);
    EXPECT_THROW((void)verified.finish(), EnvironmentError);
    VerifiedFile unread(std::make_unique<BrokenFile>(*file, 2 * kChecksumBlock), 2);
    EXPECT_EQ(read(unread, 0), 1000);  // and goes, with an error that nobody asked for
}

}  // namespace
}  // namespace rankwise::io
