#include "io/hdf5_file.hpp"

#include <gtest/gtest.h>

#include <thread>

#include "io/checksum.hpp"
#include "tests/fault/io/faulty_fs.hpp"
#include "tests/unit/io/scratch.hpp"

namespace rankwise::io {
namespace {

using test::expect_error;
using test::Scratch;

class Hdf5 : public testing::Test {
  protected:
    Path sample(const std::string& name) {
        Hdf5File file = Hdf5File::create(*fs_, scratch_ / name);
        file.write("group/ints", std::vector<std::int64_t>{1, -2, 3});
        file.write("floats", std::vector<float>(100'000, 0.5F), Storage::flat);
        file.write_strings("words", std::vector<std::string>{"eins", "", "zw\0ei", "drei"});
        file.close();
        return scratch_ / name;
    }

    std::unique_ptr<FileSystem> fs_ = posix_file_system();
    Scratch scratch_;
};

template <class T>
void round_trip(FileSystem& fs, const Path& path, const std::vector<T>& values, Storage storage) {
    Hdf5File file = Hdf5File::create(fs, path);
    file.write("x", values, storage);
    file.write("empty", std::vector<T>{}, storage);
    file.close();
    Hdf5File again = Hdf5File::open(fs, path);
    EXPECT_EQ(again.read<T>("x"), values);
    EXPECT_TRUE(again.read<T>("empty").empty());
}

TEST_F(Hdf5, EveryElementTypeComesBackFlatAndDeflated) {
    for (const Storage storage : {Storage::flat, Storage::deflated}) {
        round_trip<float>(*fs_, scratch_ / "a.h5", {1.5F, -0.0F, 3e-40F}, storage);
        round_trip<double>(*fs_, scratch_ / "a.h5", {0.1, 1e300}, storage);
        round_trip<std::int32_t>(*fs_, scratch_ / "a.h5", {-1, INT32_MIN}, storage);
        round_trip<std::int64_t>(*fs_, scratch_ / "a.h5", {-1, INT64_MIN}, storage);
        round_trip<std::uint8_t>(*fs_, scratch_ / "a.h5", {0, 255}, storage);
        round_trip<std::uint16_t>(*fs_, scratch_ / "a.h5", {0, 65535}, storage);
        round_trip<std::uint64_t>(*fs_, scratch_ / "a.h5", {0, UINT64_MAX}, storage);
    }
}

TEST_F(Hdf5, PartsAreWrittenAndReadAnywhere) {
    Hdf5File file = Hdf5File::create(*fs_, scratch_ / "a.h5");
    file.create_dataset("d", Element::f32, 10);
    const std::vector<float> a{1, 2, 3}, b{4, 5, 6, 7, 8, 9, 10};
    file.write_part("d", 3, Element::f32, std::as_bytes(std::span(b)));
    file.write_part("d", 0, Element::f32, std::as_bytes(std::span(a)));
    std::vector<float> middle(4);
    file.read_part("d", 2, Element::f32, std::as_writable_bytes(std::span(middle)));
    EXPECT_EQ(middle, (std::vector<float>{3, 4, 5, 6}));
    EXPECT_EQ(file.size("d"), 10);
}

TEST_F(Hdf5, PartsOneAfterTheOtherReachTheFileInLargePieces) {
    constexpr std::int64_t kSize = 7 << 20;  // floats: 28 MiB
    std::vector<float> values(static_cast<std::size_t>(kSize));
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 1001);
    test::FaultyFileSystem counting(*fs_);
    Hdf5File file = Hdf5File::create(counting, scratch_ / "a.h5");
    file.create_dataset("d", Element::f32, kSize);
    const std::int64_t before = counting.operations();
    std::int64_t at = 0;
    for (std::int64_t part = 1; at < kSize; part = part % 70'001 * 3 + 5) {  // small ones and large
        const auto some = std::span(values).subspan(
            static_cast<std::size_t>(at), static_cast<std::size_t>(std::min(part, kSize - at)));
        file.write_part("d", at, Element::f32, std::as_bytes(some));
        at += std::ssize(some);
    }
    EXPECT_LE(counting.operations() - before, 5);
    const auto written = file.close();
    EXPECT_EQ(written.checksum, checksum_of(*fs_->open(scratch_ / "a.h5", OpenMode::read)));
    EXPECT_EQ(Hdf5File::open(*fs_, scratch_ / "a.h5").read<float>("d"), values);
}

TEST_F(Hdf5, ALargePieceThatCannotBeWrittenIsSaidNoLaterThanAtTheEnd) {
    constexpr std::int64_t kSize = 7 << 20;  // floats: 28 MiB
    const std::vector<float> values(static_cast<std::size_t>(kSize), 0.5F);
    test::FaultyFileSystem full(*fs_);
    const auto write = [&](const Path& path, std::int64_t fails) {
        Hdf5File file = Hdf5File::create(full, path);
        file.create_dataset("d", Element::f32, kSize);
        if (fails > 0) full.fail(full.operations() + fails, ENOSPC);
        file.write_part("d", 0, Element::f32, std::as_bytes(std::span(values)));
        file.close();
    };
    for (const std::int64_t fails : {1, 2, 3, 4}) {
        const Path path = scratch_ / fmt::format("{}.h5", fails);
        expect_error<EnvironmentError>([&] { write(path, fails); },
                                       {path.string(), "No space left on device"});
    }
    write(scratch_ / "whole.h5", 0);
    EXPECT_EQ(Hdf5File::open(*fs_, scratch_ / "whole.h5").read<float>("d"), values);
}

TEST_F(Hdf5, StringsKeepAnyBytesIncludingNulsAtTheEnd) {
    const std::vector<std::string> words{"plain", "", std::string("a\0b\0\0", 5), "größe",
                                         "\xFF\xFE"};
    Hdf5File file = Hdf5File::create(*fs_, scratch_ / "a.h5");
    file.write_strings("words", words);
    file.write_strings("none", std::vector<std::string>{});
    std::vector<std::string> long_ones(1000, std::string(100, 'x'));
    long_ones[432] = std::string(50'000, 'y');
    file.write_strings("long", long_ones);
    file.close();
    Hdf5File again = Hdf5File::open(*fs_, scratch_ / "a.h5");
    EXPECT_EQ(again.read_strings("words"), words);
    EXPECT_TRUE(again.read_strings("none").empty());
    EXPECT_EQ(again.read_strings("long"), long_ones);
    EXPECT_LT(std::filesystem::file_size(scratch_ / "a.h5"), 500'000U);
}

TEST_F(Hdf5, AttributesComeBack) {
    Hdf5File file = Hdf5File::create(*fs_, scratch_ / "a.h5");
    file.set_attribute("/", "step", std::int64_t{-5});
    file.set_attribute("a/b", "share", 0.1);
    file.set_attribute("a/b", "text", std::string("größe"));
    file.set_attribute("/", "empty", std::string());
    expect_error<InternalError>([&] { file.set_attribute("/", "long", std::string(70'000, 'x')); },
                                {"long", "64000"});
    file.close();
    Hdf5File again = Hdf5File::open(*fs_, scratch_ / "a.h5");
    EXPECT_EQ(again.int_attribute("/", "step"), -5);
    EXPECT_EQ(again.float_attribute("a/b", "share"), 0.1);
    EXPECT_EQ(again.text_attribute("a/b", "text"), "größe");
    EXPECT_EQ(again.text_attribute("/", "empty"), "");
    EXPECT_EQ(again.members("/"), std::vector<std::string>{"a"});
    EXPECT_TRUE(again.has("a/b"));
    EXPECT_FALSE(again.has("a/c"));
    EXPECT_FALSE(again.has("x/y/z"));
    expect_error<CorruptFile>([&] { (void)again.text_attribute("/", "step"); },
                              {"step", "no text"});
    expect_error<CorruptFile>([&] { (void)again.int_attribute("/", "gone"); }, {"a.h5", "gone"});
}

TEST_F(Hdf5, TheSameCallsWriteTheSameBytesAndTheChecksumIsOfThem) {
    const std::string a = test::get(sample("a.h5"));
    EXPECT_EQ(a, test::get(sample("b.h5")));
    Hdf5File file = Hdf5File::create(*fs_, scratch_ / "c.h5");
    file.write("x", std::vector<double>(1'000'000, 0.5), Storage::flat);
    const auto written = file.close();
    const auto raw = fs_->open(scratch_ / "c.h5", OpenMode::read);
    EXPECT_EQ(written.bytes, raw->size());
    EXPECT_EQ(written.checksum, checksum_of(*raw));
}

TEST_F(Hdf5, ReservedBytesAreTheCallers) {
    Hdf5File file = Hdf5File::create(*fs_, scratch_ / "a.h5", 512);
    file.write("x", std::vector<std::int32_t>{1});
    file.close();
    fs_->open(scratch_ / "a.h5", OpenMode::update)->write_at(0, bytes_of("a header"));
    EXPECT_EQ(Hdf5File::open(*fs_, scratch_ / "a.h5").read<std::int32_t>("x"),
              std::vector<std::int32_t>{1});
    EXPECT_EQ(
        Hdf5File::open_bytes(read_file(*fs_, scratch_ / "a.h5"), "memory").read<std::int32_t>("x"),
        std::vector<std::int32_t>{1});
}

TEST_F(Hdf5, WhatIsMissingOrOfAnotherTypeIsNamedInHdf5sWords) {
    Hdf5File file = Hdf5File::open(*fs_, sample("a.h5"));
    expect_error<CorruptFile>([&] { (void)file.read<float>("gone"); },
                              {"a.h5", "gone", "HDF5 says", "object 'gone' doesn't exist"});
    expect_error<CorruptFile>([&] { (void)file.read<double>("floats"); },
                              {"floats", "element type"});
    expect_error<CorruptFile>([&] { (void)file.read_strings("group/ints"); }, {"group/ints_size"});
    expect_error<CorruptFile>([&] { (void)file.members("nowhere"); }, {"nowhere"});
    std::vector<float> values(10);
    expect_error<CorruptFile>(
        [&] {
            file.read_part("floats", 99'995, Element::f32,
                           std::as_writable_bytes(std::span(values)));
        },
        {"floats", "100000 elements", "100005"});
}

TEST_F(Hdf5, AFileThatIsShortOrNotHdf5IsCorrupt) {
    const Path path = sample("a.h5");
    std::filesystem::resize_file(path, 100'000);
    expect_error<CorruptFile>([&] { (void)Hdf5File::open(*fs_, path); },
                              {"a.h5", "truncated file"});
    test::put(path, "hello");
    expect_error<CorruptFile>([&] { (void)Hdf5File::open(*fs_, path); }, {"a.h5", "HDF5 says"});
    expect_error<EnvironmentError>([&] { (void)Hdf5File::open(*fs_, scratch_ / "gone.h5"); },
                                   {"gone.h5", "No such file"});
}

TEST_F(Hdf5, ThreadsTakeTurns) {
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&, t] {
            for (int i = 0; i < 20; ++i) {
                round_trip<std::int32_t>(*fs_, scratch_ / fmt::format("{}.h5", t), {t, i},
                                         Storage::deflated);
            }
        });
    }
    for (auto& thread : threads) thread.join();
}

}  // namespace
}  // namespace rankwise::io
