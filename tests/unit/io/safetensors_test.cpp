#include "io/safetensors.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "io/safetensors_writer.hpp"
#include "tests/fault/io/faulty_fs.hpp"
#include "tests/support/test_data.hpp"
#include "tests/unit/io/scratch.hpp"

namespace rankwise::io {
namespace {

using nlohmann::json;
using test::expect_error;
using test::Scratch;

/// The bytes of a file with this header and so many bytes of data (0, 1, 2, …).
std::string file_of(const std::string& header, int data, std::uint64_t claimed = UINT64_MAX) {
    if (claimed == UINT64_MAX) claimed = header.size();
    std::string text;
    for (unsigned shift = 0; shift < 64; shift += 8)
        text += static_cast<char>(claimed >> shift & 0xFFU);
    text += header;
    for (int i = 0; i < data; ++i) text += static_cast<char>(i);
    return text;
}

class Safetensors : public testing::Test {
  protected:
    /// Reading a folder whose one file has these bytes fails with a text that has `parts` and the
    /// file's name.
    void expect_bad(const std::string& bytes, std::initializer_list<std::string> parts) {
        test::put(scratch_ / "model.safetensors", bytes);
        expect_error<BadInput>([&] { SafetensorsFolder{scratch_.path()}; }, parts);
        expect_error<BadInput>([&] { SafetensorsFolder{scratch_.path()}; }, {"model.safetensors"});
    }
    [[nodiscard]] std::vector<float> read(const SafetensorsFolder& folder, const std::string& name,
                                          Box box) const {
        std::vector<float> values(static_cast<std::size_t>(box.size()));
        folder.read(name, box, values);
        return values;
    }
    void write(std::int64_t max_file_bytes) {
        SafetensorsWriter writer(*fs_, scratch_.path(),
                                 {{"a", Shape::matrix(3, 2), DType::f32},
                                  {"b", Shape::matrix(2, 3), DType::bf16},
                                  {"c", Shape::of_vector(4), DType::f32},
                                  {"d", Shape::matrix(2, 2), DType::f8_e4m3}},
                                 max_file_bytes);
        const std::vector<float> a{1, 2, 3, 4, 5, 6}, b{0.5F, 1.0F / 3, -2, 7, 8, 9}, c{9, 8, 7, 6};
        writer.write_rows("a", 2, std::span(a).subspan(4));
        writer.write_rows("c", 0, c);
        writer.write_rows("a", 0, std::span(a).first(4));
        writer.write_rows("b", 0, b);
        const std::vector<std::byte> d{std::byte{1}, std::byte{2}, std::byte{3}, std::byte{4}};
        writer.write_rows_raw("d", 0, d);
        writer.finish();
    }
    void expect_written() {
        const SafetensorsFolder folder(scratch_.path());
        EXPECT_EQ(folder.names(), (std::vector<std::string>{"a", "b", "c", "d"}));
        EXPECT_EQ(read(folder, "a", {{0, 3}, {0, 2}}), (std::vector<float>{1, 2, 3, 4, 5, 6}));
        EXPECT_EQ(read(folder, "a", {{1, 3}, {1, 2}}), (std::vector<float>{4, 6}));
        EXPECT_EQ(read(folder, "b", {{0, 2}, {0, 2}}),
                  (std::vector<float>{0.5F, float_from_bf16(bf16_from_float(1.0F / 3)), 7, 8}));
        EXPECT_EQ(read(folder, "c", {{0, 1}, {1, 3}}), (std::vector<float>{8, 7}));
        std::vector<std::byte> raw(2);
        folder.read_raw("d", {{0, 2}, {1, 2}}, raw);
        EXPECT_EQ(raw, (std::vector<std::byte>{std::byte{2}, std::byte{4}}));
        folder.require_shape("c", Shape::of_vector(4));
    }

    std::unique_ptr<FileSystem> fs_ = posix_file_system();
    Scratch scratch_;
};

TEST_F(Safetensors, OneFileComesBack) {
    write(1000);
    EXPECT_EQ(fs_->list(scratch_.path()), std::vector<std::string>{"model.safetensors"});
    expect_written();
}

TEST_F(Safetensors, ShardsAndIndexComeBackAndReplaceAnEarlierSingleFile) {
    write(1000);
    write(30);
    EXPECT_EQ(fs_->list(scratch_.path()),
              (std::vector<std::string>{
                  "model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors",
                  "model-00003-of-00003.safetensors", "model.safetensors.index.json"}));
    expect_written();
    const json index = json::parse(test::get(scratch_ / "model.safetensors.index.json"));
    EXPECT_EQ(index["metadata"]["total_size"], 24 + 12 + 16 + 4);
    EXPECT_EQ(index["weight_map"]["d"], "model-00003-of-00003.safetensors");
    write(1000);
    expect_written();
    EXPECT_FALSE(fs_->exists(scratch_ / "model.safetensors.index.json"));
}

TEST_F(Safetensors, AnUnfinishedExportLeavesNothing) {
    { SafetensorsWriter writer(*fs_, scratch_.path(), {{"a", Shape::matrix(3, 2), DType::f32}}); }
    EXPECT_TRUE(fs_->list(scratch_.path()).empty());
    test::FaultyFileSystem faulty(*fs_);
    faulty.fail(4, ENOSPC);
    expect_error<EnvironmentError>(
        [&] {
            SafetensorsWriter(faulty, scratch_.path(), {{"a", Shape::matrix(3, 2), DType::f32}});
        },
        {"model.safetensors", "No space left"});
}

TEST_F(Safetensors, RowsMissingTwiceOrOutsideAreTheCallersError) {
    SafetensorsWriter writer(*fs_, scratch_.path(), {{"a", Shape::matrix(3, 2), DType::f32}});
    const std::vector<float> row{1, 2};
    writer.write_rows("a", 0, row);
    writer.write_rows("a", 2, row);
    expect_error<InternalError>([&] { writer.finish(); }, {"a: row 1 was never written"});
    expect_error<InternalError>([&] { writer.write_rows("a", 2, row); },
                                {"row 2 is written twice"});
    expect_error<InternalError>([&] { writer.write_rows("a", 3, row); }, {"leave [3, 2]"});
    expect_error<InternalError>([&] { writer.write_rows("b", 0, row); }, {"b was not announced"});
    expect_error<InternalError>([&] { SafetensorsWriter(*fs_, scratch_.path(), {}); },
                                {"no tensor"});
    expect_error<InternalError>(
        [&] {
            SafetensorsWriter(
                *fs_, scratch_.path(),
                {{"a", Shape::of_vector(1), DType::f32}, {"a", Shape::of_vector(1), DType::f32}});
        },
        {"written twice"});
    SafetensorsWriter integers(*fs_, scratch_ / "i", {{"i", Shape::of_vector(2), DType::i64}});
    expect_error<InternalError>([&] { integers.write_rows("i", 0, row); },
                                {"cannot be written as I64"});
}

/// [5, 5] of 8-bit values 0x38 (1), 0x40 (2), … with scales of blocks of two rows and three
/// columns.
void write_fp8(FileSystem& fs, const Path& folder, Shape scales) {
    SafetensorsWriter writer(
        fs, folder,
        {{"w", Shape::matrix(5, 5), DType::f8_e4m3}, {"w_scale_inv", scales, DType::f32}}, 10000);
    std::vector<std::byte> bits;
    for (int i = 0; i < 25; ++i) bits.push_back(static_cast<std::byte>(0x38 + i));
    writer.write_rows_raw("w", 0, bits);
    std::vector<float> values;
    for (std::int64_t i = 0; i < scales.size(); ++i)
        values.push_back(static_cast<float>(std::int64_t{1} << i));
    writer.write_rows("w_scale_inv", 0, values);
    writer.finish();
}

TEST_F(Safetensors, EightBitValuesAreMultipliedByTheirBlocksScale) {
    write_fp8(*fs_, scratch_.path(), Shape::matrix(3, 2));
    const SafetensorsFolder folder(scratch_.path(), {.rows = 2, .cols = 3});
    // Row 1, columns 1 to 4: 1.75, 1.875, 2, 2.25 of the blocks with scales 1 and 2.
    EXPECT_EQ(read(folder, "w", {{1, 2}, {1, 5}}),
              (std::vector<float>{1.75F, 1.875F, 2 * 2.0F, 2 * 2.25F}));
    EXPECT_EQ(read(folder, "w", {{4, 5}, {4, 5}}), (std::vector<float>{32 * 8.0F}));
    const auto whole = read(folder, "w", {{0, 5}, {0, 5}});
    EXPECT_EQ(whole[9], 2 * 2.25F);
    EXPECT_EQ(whole[24], 32 * 8.0F);
}

TEST_F(Safetensors, EightBitValuesWithoutScalesThatFitAreRefused) {
    write_fp8(*fs_, scratch_.path(), Shape::matrix(3, 1));
    const SafetensorsFolder folder(scratch_.path(), {.rows = 2, .cols = 3});
    expect_error<BadInput>(
        [&] {
            (void)read(folder, "w", {{0, 1}, {0, 1}});
        },
        {"tensor w_scale_inv", "expected shape [3, 2], found [3, 1]"});
}

TEST_F(Safetensors, PaddingMetadataHalvesAndScalarsAreRead) {
    test::put(
        scratch_ / "one.safetensors",
        file_of(
            "{\"__metadata__\": {\"format\": \"pt\"}, \"h\": {\"dtype\": \"F16\", \"shape\": [2], "
            "\"data_offsets\": [0, 4]}, \"s\": {\"dtype\": \"F32\", \"shape\": [], "
            "\"data_offsets\": "
            "[4, 8]}, \"e\": {\"dtype\": \"F32\", \"shape\": [0, 5], \"data_offsets\": [4, 4]}}   "
            " ",
            8));
    const SafetensorsFolder folder(scratch_ / "one.safetensors");
    EXPECT_EQ(folder.names(), (std::vector<std::string>{"e", "h", "s"}));
    EXPECT_EQ(read(folder, "h", {{0, 1}, {0, 2}}),
              (std::vector<float>{float_from_f16(0x0100), float_from_f16(0x0302)}));
    EXPECT_EQ(read(folder, "s", {{0, 1}, {0, 1}}).size(), 1U);
    EXPECT_TRUE(read(folder, "e", {{0, 0}, {0, 5}}).empty());
}

TEST_F(Safetensors, DamagedFilesAreNamedWithTheTensor) {
    const std::string good = R"({"t": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}})";
    expect_bad("", {"0 bytes"});
    expect_bad("1234567", {"7 bytes"});
    expect_bad(file_of(good, 8, 5'000), {"header claims 5000", "cut short"});
    expect_bad(file_of(good, 8, 200'000'000), {"header claims 200000000"});
    expect_bad(file_of("{\"t\": ", 8), {"header: no JSON"});
    expect_bad(file_of("[1]", 8), {"expected a JSON object, found array"});
    expect_bad(file_of(good, 7), {"tensor t", "end at 8", "data at 7", "cut short"});
    expect_bad(file_of(R"({"t": 5})", 8), {"tensor t", "expected dtype"});
    expect_bad(file_of(R"({"t": {"dtype": "F32", "shape": [2]}})", 8),
               {"tensor t", "data_offsets"});
    expect_bad(file_of(R"({"t": {"dtype": "X9", "shape": [2], "data_offsets": [0, 8]}})", 8),
               {"tensor t", "'X9'"});
    expect_bad(file_of(R"({"t": {"dtype": 4, "shape": [2], "data_offsets": [0, 8]}})", 8),
               {"tensor t", "dtype must be text"});
    expect_bad(file_of(R"({"t": {"dtype": "F32", "shape": 2, "data_offsets": [0, 8]}})", 8),
               {"tensor t", "shape must be a list"});
    expect_bad(file_of(R"({"t": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}})", 8),
               {"tensor t", "whole number from 0, found -2"});
    expect_bad(
        file_of(
            R"({"t": {"dtype": "F32", "shape": [4611686018427387904, 4], "data_offsets": [0, 8]}})",
            8),
        {"tensor t", "too large"});
    expect_bad(file_of(R"({"t": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}})", 8),
               {"tensor t", "takes 12 bytes"});
    expect_bad(file_of(R"({"t": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}})", 8),
               {"tensor t"});
    expect_bad(file_of(R"({"t": {"dtype": "F32", "shape": [2], "data_offsets": [8]}})", 8),
               {"tensor t", "two numbers"});
    expect_bad(file_of(R"({"t": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
                           "u": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}})",
                       8),
               {"tensors t and u overlap"});
    expect_bad(file_of(R"({"t": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
                           "t": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}})",
                       8),
               {"'t' occurs twice"});
}

TEST_F(Safetensors, AFolderThatIsNotWholeIsNamed) {
    expect_error<BadInput>([&] { SafetensorsFolder{scratch_ / "gone"}; },
                           {"gone", "no such folder"});
    expect_error<BadInput>([&] { SafetensorsFolder{scratch_.path()}; },
                           {"neither model.safetensors nor"});
    write(30);
    const Path index = scratch_ / "model.safetensors.index.json";
    json parsed = json::parse(test::get(index));
    const auto expect_index = [&](const std::string& text,
                                  std::initializer_list<std::string> parts) {
        test::put(index, text);
        expect_error<BadInput>([&] { SafetensorsFolder{scratch_.path()}; }, parts);
    };
    expect_index("{", {"index.json", "no JSON"});
    expect_index("{}", {"index.json", "weight_map"});
    json changed = parsed;
    changed["weight_map"]["b"] = "../elsewhere.safetensors";
    expect_index(changed.dump(), {"tensor b", "../elsewhere"});
    changed["weight_map"]["b"] = "model-00009-of-00003.safetensors";
    expect_index(changed.dump(), {"model-00009-of-00003.safetensors", "missing"});
    changed["weight_map"]["b"] = "model-00003-of-00003.safetensors";
    expect_index(changed.dump(), {"model-00003-of-00003.safetensors", "tensor b is not in it"});
    changed = parsed;
    changed["weight_map"]["new"] = "model-00001-of-00003.safetensors";
    expect_index(changed.dump(), {"tensor new is not in it"});
    test::put(index, parsed.dump());
    test::put(scratch_ / "model-00002-of-00003.safetensors",
              test::get(scratch_ / "model-00001-of-00003.safetensors"));
    expect_error<BadInput>([&] { SafetensorsFolder{scratch_.path()}; }, {"as well"});
}

TEST_F(Safetensors, AskingForWhatIsNotThereNamesIt) {
    write(1000);
    const SafetensorsFolder folder(scratch_.path());
    EXPECT_TRUE(folder.has("a"));
    EXPECT_FALSE(folder.has("a.weight"));
    expect_error<BadInput>([&] { (void)folder.at("a.weight"); },
                           {"a.weight is missing", "nearest name is a"});
    expect_error<BadInput>([&] { folder.require_shape("a", Shape::matrix(2, 3)); },
                           {"tensor a", "expected shape [2, 3], found [3, 2]"});
    expect_error<BadInput>(
        [&] {
            (void)read(folder, "a", {{2, 4}, {0, 2}});
        },
        {"tensor a", "leaves"});
    expect_error<BadInput>(
        [&] {
            (void)read(folder, "d", {{0, 2}, {0, 2}});
        },
        {"tensor d", "F8_E4M3"});
    const std::vector<std::int64_t> cube{1, 2, 3};
    expect_error<BadInput>([&] { (void)shape_of(cube, "f: tensor x"); },
                           {"tensor x", "3 dimensions"});
}

TEST_F(Safetensors, ShardedBf16RoundsTheSingleFilesWeights) {
    const auto data = rankwise::test::data_folder();
    if (!data) GTEST_SKIP() << "no test data";
    const SafetensorsFolder whole(*data / "models/stories260K");
    const SafetensorsFolder shards(*data / "models/stories260K-sharded-bf16");
    EXPECT_GT(shards.names().size(), 10U);
    for (const std::string& name : shards.names()) {
        const Box box = Box::whole(shape_of(whole.at(name).shape, name));
        auto expected = read(whole, name, box);
        for (float& value : expected) value = float_from_bf16(bf16_from_float(value));
        EXPECT_EQ(read(shards, name, box), expected) << name;
    }
}

}  // namespace
}  // namespace rankwise::io
