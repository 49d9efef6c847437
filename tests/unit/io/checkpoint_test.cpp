#include "io/checkpoint.hpp"

#include <gtest/gtest.h>

#include <numeric>

#include "io/checkpoint_reader.hpp"
#include "io/checkpoint_view.hpp"
#include "io/hdf5_file.hpp"
#include "tests/unit/io/sample_checkpoint.hpp"
#include "tests/unit/io/scratch.hpp"

namespace rankwise::io {
namespace {

using test::expect_error;
using test::holds_sample;
using test::read_box;
using test::sample_table;
using test::sample_values;
using test::save_sample;
using test::Scratch;

class Checkpoint : public testing::Test {
  protected:
    std::unique_ptr<FileSystem> fs_ = posix_file_system();
    Scratch scratch_;
    Path dir_ = scratch_ / "checkpoints";

    /// An error of reading everything in the checkpoint at `path`.
    template <class E>
    void expect_unreadable(const Path& path, std::initializer_list<std::string> parts) {
        expect_error<E>([&] { (void)holds_sample(*fs_, path, 1); }, parts);
    }
};

TEST_F(Checkpoint, AnyWritersAreReadByAnyReader) {
    for (const int writers : {1, 2, 3, 8}) {
        for (const bool columns : {false, true}) {
            const Path path = save_sample(*fs_, dir_, writers, writers, 1, columns);
            EXPECT_TRUE(holds_sample(*fs_, path, 1));
            CheckpointReader reader(*fs_, path);
            for (const Box box : {Box{{0, 8}, {0, 40}}, Box{{3, 4}, {0, 40}}, Box{{0, 8}, {5, 6}},
                                  Box{{2, 7}, {13, 31}}, Box{{1, 1}, {0, 40}}}) {
                EXPECT_EQ(read_box(reader, "adam_v", 2, box), sample_values(3, 2, box));
            }
        }
    }
}

TEST_F(Checkpoint, TheManifestComesBackWhole) {
    const Path path = save_sample(*fs_, dir_, 120, 3, 1);
    EXPECT_EQ(path, dir_ / "step_00000120");
    const Manifest manifest = read_manifest(*fs_, path);
    EXPECT_EQ(manifest.state, test::sample_state(120));
    EXPECT_EQ(manifest.id, checkpoint_id(test::sample_state(120)));
    EXPECT_EQ(manifest.models, std::vector{saved_model("policy", sample_table())});
    ASSERT_EQ(manifest.files.size(), 3U);
    EXPECT_EQ(manifest.files[1].file, "shard_00001.h5");
    EXPECT_EQ(manifest.files[1].box_lists.size(), 1U);  // weights and moments share one
    EXPECT_EQ(test::get(dir_ / "LATEST"), "step_00000120\n");
    EXPECT_EQ(fs_->list(dir_), (std::vector<std::string>{"LATEST", "step_00000120"}));
}

TEST_F(Checkpoint, EqualRunsWriteEqualBytes) {
    const Path a = save_sample(*fs_, scratch_ / "a", 5, 2, 1);
    const Path b = save_sample(*fs_, scratch_ / "b", 5, 2, 1);
    for (const std::string& name : fs_->list(a))
        EXPECT_EQ(test::get(a / name), test::get(b / name));
}

TEST_F(Checkpoint, AReaderOpensOnlyTheFilesItNeeds) {
    const Path path = save_sample(*fs_, dir_, 1, 8, 1);
    fs_->remove_tree(path / "shard_00007.h5");
    CheckpointReader reader(*fs_, path);
    const Box first_rows{{0, 3}, {0, 8}};
    EXPECT_EQ(read_box(reader, "weights", 0, first_rows), sample_values(1, 0, first_rows));
    EXPECT_EQ(reader.files_opened(), 1);
}

TEST_F(Checkpoint, OtherDtypesAreKeptAsTheirBits) {
    const std::vector<std::uint16_t> half{1, 0x3F80, 0xFFFF, 7};
    const std::vector<double> wide{0.1, -2.0};
    RunState state = test::sample_state(3);
    ParameterTable table;
    table.add({.name = "a", .shape = Shape::matrix(2, 2)});
    table.add({.name = "b", .shape = Shape::of_vector(2)});
    const Path tmp = begin_step(*fs_, dir_, 3);
    const std::vector<ShardItem> items{{"policy", "weights", 0, Box::whole(table[0].shape),
                                        DType::bf16, std::as_bytes(std::span(half))},
                                       {"policy", "weights", 1, Box::whole(table[1].shape),
                                        DType::f64, std::as_bytes(std::span(wide))}};
    Manifest manifest{checkpoint_id(state), state, {saved_model("policy", table)}, {}};
    manifest.files = {write_shard(*fs_, tmp, manifest.id, 0, items)};
    CheckpointReader reader(*fs_, commit(*fs_, dir_, manifest));
    std::vector<std::uint16_t> got(4);
    reader.read("policy", "weights", 0, Box::whole(table[0].shape), DType::bf16,
                std::as_writable_bytes(std::span(got)));
    EXPECT_EQ(got, half);
    std::vector<float> floats(2);
    expect_error<BadInput>(
        [&] {
            reader.read("policy", "weights", 1, Box::whole(table[1].shape), DType::f32,
                        std::as_writable_bytes(std::span(floats)));
        },
        {"parameter 1", "saved as F64, not F32"});
}

TEST_F(Checkpoint, AShardCutShortIsNamedWithTheWayOut) {
    save_sample(*fs_, dir_, 90, 2, 1);
    save_sample(*fs_, dir_, 100, 2, 1);
    const Path path = save_sample(*fs_, dir_, 120, 2, 1);
    std::filesystem::resize_file(path / "shard_00001.h5", 5000);
    expect_unreadable<CorruptFile>(
        path, {"step_00000120/shard_00001.h5", "5000 are there", "step 100", "--resume.step=100"});
    // The one before is damaged as well: the way out is one further back.
    test::flip_bit(dir_ / "step_00000100/shard_00000.h5", 4000);
    expect_unreadable<CorruptFile>(path, {"--resume.step=90"});
    fs_->remove_tree(dir_ / "step_00000090");
    expect_unreadable<CorruptFile>(path, {"no whole checkpoint before it"});
}

TEST_F(Checkpoint, AFlippedBitAnywhereInAShardIsFound) {
    const Path path = save_sample(*fs_, dir_, 1, 2, 1);
    const std::string whole = test::get(path / "shard_00001.h5");
    for (std::size_t at = 0; at < whole.size(); at += 997) {
        test::flip_bit(path / "shard_00001.h5", static_cast<std::int64_t>(at));
        expect_unreadable<CorruptFile>(path, {"shard_00001.h5"});
        test::put(path / "shard_00001.h5", whole);
    }
    EXPECT_TRUE(holds_sample(*fs_, path, 1));
}

TEST_F(Checkpoint, AFlippedBitAnywhereInTheManifestIsFound) {
    const Path path = save_sample(*fs_, dir_, 1, 2, 1);
    const std::string whole = test::get(path / "manifest.h5");
    for (std::size_t at = 0; at < whole.size(); at += at < 512 ? 1 : 499) {
        test::flip_bit(path / "manifest.h5", static_cast<std::int64_t>(at));
        expect_unreadable<CorruptFile>(path, {"manifest.h5", "no whole checkpoint"});
        test::put(path / "manifest.h5", whole);
    }
}

TEST_F(Checkpoint, AMissingShardOrManifestIsNamed) {
    const Path path = save_sample(*fs_, dir_, 1, 2, 1);
    fs_->remove_tree(path / "shard_00000.h5");
    expect_unreadable<CorruptFile>(path, {"shard_00000.h5", "missing"});
    fs_->remove_tree(path / "manifest.h5");
    expect_unreadable<CorruptFile>(path, {"no manifest", "never finished"});
    test::put(path / "manifest.h5", "short");
    expect_unreadable<CorruptFile>(path, {"manifest.h5", "header"});
}

TEST_F(Checkpoint, AShardOfAnotherCheckpointIsToldFromADamagedOne) {
    const Path other = save_sample(*fs_, dir_, 1, 2, 1);
    const Path path = save_sample(*fs_, dir_, 2, 2, 1);
    std::filesystem::copy_file(other / "shard_00001.h5", path / "shard_00001.h5",
                               std::filesystem::copy_options::overwrite_existing);
    expect_unreadable<CorruptFile>(path, {"shard_00001.h5", "belongs to another checkpoint",
                                          to_hex(checkpoint_id(test::sample_state(1)))});
}

TEST_F(Checkpoint, WhatNobodyAskedForIsVerifiedToo) {
    const Path path = save_sample(*fs_, dir_, 1, 1, 1);
    const auto bytes = std::filesystem::file_size(path / "shard_00000.h5");
    test::flip_bit(path / "shard_00000.h5", static_cast<std::int64_t>(bytes) - 1);
    CheckpointReader reader(*fs_, path);
    const Box first_rows{{0, 3}, {0, 8}};
    EXPECT_EQ(read_box(reader, "weights", 0, first_rows), sample_values(1, 0, first_rows));
    expect_error<CorruptFile>([&] { reader.finish(); }, {"shard_00000.h5", "checksum differs"});
}

TEST_F(Checkpoint, AnOlderFormatSaysWhatToDo) {
    const Path path = save_sample(*fs_, dir_, 1, 1, 1);
    const std::string whole = test::get(path / "manifest.h5");
    const auto bytes = std::as_bytes(std::span(whole)).subspan(512);
    std::string old = whole;
    old.replace(old.find("format 2"), 8, "format 1");
    const std::string hash = to_hex(xxh3_128(bytes.data(), bytes.size(), 1));
    old.replace(old.find("format: ") + 8, hash.size(), hash);
    test::put(path / "manifest.h5", old);
    expect_unreadable<BadInput>(path, {"manifest.h5", "format 1 is older", "rankwise export"});
}

TEST_F(Checkpoint, ANewerFormatIsBadInput) {
    const Path path = save_sample(*fs_, dir_, 1, 1, 1);
    std::string text = test::get(path / "manifest.h5");
    const std::size_t digit = text.find("format ") + 7;
    text[digit] = '9';
    const UInt128 hash = xxh3_128(text.data() + 512, text.size() - 512, 9);
    text.replace(text.find("format: ") + 8, 32, to_hex(hash));
    test::put(path / "manifest.h5", text);
    expect_unreadable<BadInput>(path, {"format 9", "newer", "(2)"});
}

TEST_F(Checkpoint, AnotherModelIsRefusedByItsFirstDifference) {
    const CheckpointReader reader(*fs_, save_sample(*fs_, dir_, 1, 1, 1));
    reader.require_same_model("policy", sample_table());
    ParameterTable wider;
    wider.add({.name = "model.embed_tokens.weight", .shape = Shape::matrix(37, 8)});
    wider.add({.name = "model.layers.0.self_attn.q_proj.weight", .shape = Shape::matrix(32, 8)});
    expect_error<BadInput>([&] { reader.require_same_model("policy", wider); },
                           {"parameter 1", "q_proj.weight [24, 8]", "q_proj.weight [32, 8]"});
    ParameterTable shorter;
    shorter.add({.name = "model.embed_tokens.weight", .shape = Shape::matrix(37, 8)});
    expect_error<BadInput>([&] { reader.require_same_model("policy", shorter); },
                           {"parameter 1", "no more parameters"});
    expect_error<BadInput>([&] { reader.require_same_model("critic", shorter); },
                           {"'critic'", "policy"});
}

TEST_F(Checkpoint, WhatWasNeverSavedIsBadInput) {
    CheckpointReader reader(*fs_, save_sample(*fs_, dir_, 1, 1, 1));
    EXPECT_TRUE(reader.has("policy", "adam_m"));
    EXPECT_FALSE(reader.has("policy", "momentum"));
    expect_error<BadInput>(
        [&] {
            (void)read_box(reader, "momentum", 0, {{0, 1}, {0, 8}});
        },
        {"policy/momentum", "policy/adam_m, policy/adam_v, policy/weights"});
    expect_error<BadInput>(
        [&] {
            (void)read_box(reader, "weights", 0, {{36, 38}, {0, 8}});
        },
        {"[36:38, 0:8]", "8 of 16"});
}

TEST_F(Checkpoint, AShardOfItemsReadInPiecesIsThatOfItemsInMemory) {
    const Path tmp = begin_step(*fs_, dir_, 1);
    // More than two pieces, the last of them cut short.
    constexpr std::int64_t kElements = 3 * (1 << 18) - 5;
    std::vector<float> values(static_cast<std::size_t>(kElements));
    std::iota(values.begin(), values.end(), 0.0F);
    const auto bytes = std::as_bytes(std::span(values));
    ShardItem item{.model = "policy", .kind = "weights", .box = {{0, kElements}, {0, 1}}};
    ShardItem in_pieces = item;
    item.bytes = bytes;
    std::int64_t asked = 0;
    in_pieces.read = [&](std::int64_t offset, std::span<std::byte> to) {
        EXPECT_EQ(offset, asked);
        asked += std::ssize(to);
        std::ranges::copy(bytes.subspan(static_cast<std::size_t>(offset), to.size()), to.begin());
    };
    const ShardEntry whole = write_shard(*fs_, tmp, {}, 0, std::span(&item, 1));
    const ShardEntry pieces = write_shard(*fs_, tmp, {}, 1, std::span(&in_pieces, 1));
    EXPECT_EQ(asked, std::ssize(bytes));
    EXPECT_EQ(pieces.bytes, whole.bytes);
    EXPECT_EQ(pieces.checksum, whole.checksum);
}

TEST_F(Checkpoint, HolesAndOverlapsAreNeverCommitted) {
    const RunState state = test::sample_state(1);
    Manifest manifest{checkpoint_id(state), state, {saved_model("policy", sample_table())}, {}};
    const Path tmp = begin_step(*fs_, dir_, 1);
    const auto shard = [&](int rank) {
        return test::write_sample_shard(*fs_, tmp, state, 3, rank, 1);
    };
    manifest.files = {shard(0), shard(2)};
    expect_error<InternalError>([&] { commit(*fs_, dir_, manifest); }, {"policy/", "elements of"});
    manifest.files = {shard(0), shard(1), shard(2), shard(1)};
    expect_error<InternalError>([&] { commit(*fs_, dir_, manifest); }, {"saved twice"});
    manifest.files = {shard(0), shard(1), shard(2)};
    manifest.models[0].parameters.pop_back();
    expect_error<InternalError>([&] { commit(*fs_, dir_, manifest); },
                                {"not in the model's table"});
    manifest.models[0] = saved_model("policy", sample_table());
    manifest.models[0].parameters[0].shape.rows = 36;
    expect_error<InternalError>([&] { commit(*fs_, dir_, manifest); },
                                {"leaves model.embed_tokens"});
    manifest.models.clear();
    expect_error<InternalError>([&] { commit(*fs_, dir_, manifest); }, {"the manifest lacks"});
    const std::vector<ShardItem> wrong{{"policy", "weights", 0, {{0, 1}, {0, 8}}, DType::f32, {}}};
    expect_error<InternalError>([&] { (void)write_shard(*fs_, tmp, {}, 0, wrong); },
                                {"0 bytes for box"});
    const std::vector<ShardItem> unnamed{{"a/b", "weights", 0, {}, DType::f32, {}}};
    expect_error<InternalError>([&] { (void)write_shard(*fs_, tmp, {}, 0, unnamed); },
                                {"'a/b'", "model"});
    EXPECT_FALSE(find_latest(*fs_, dir_, Check::sizes).path);
}

TEST_F(Checkpoint, ADamagedEntryIsFoundWhereverItIsCut) {
    const Path tmp = begin_step(*fs_, dir_, 1);
    const auto entry = test::write_sample_shard(*fs_, tmp, test::sample_state(1), 2, 1, 1);
    auto code = encode(entry);
    EXPECT_EQ(decode_shard_entry(code, "here"), entry);
    EXPECT_LT(code.size(), 200U);
    for (std::size_t size = 0; size < code.size(); ++size) {
        expect_error<CorruptFile>(
            [&] { (void)decode_shard_entry(std::span(code).first(size), "rank 3's entry"); },
            {"rank 3's entry"});
    }
    code.push_back(std::byte{0});
    expect_error<CorruptFile>([&] { (void)decode_shard_entry(code, "here"); }, {"left over"});
}

TEST_F(Checkpoint, TheLatestIsTheNewestWholeOne) {
    for (const int step : {1, 2, 3, 4}) save_sample(*fs_, dir_, step, 2, 1);
    (void)begin_step(*fs_, dir_, 5);
    fs_->create_directories(dir_ / "step_6");  // not our spelling
    test::flip_bit(dir_ / "step_00000004/shard_00001.h5", 3000);
    fs_->remove_tree(dir_ / "step_00000003/shard_00000.h5");
    auto found = find_latest(*fs_, dir_, Check::checksums);
    EXPECT_EQ(found.path, dir_ / "step_00000002");
    ASSERT_EQ(found.passed_by.size(), 2U);
    EXPECT_NE(found.passed_by[0].find("step_00000004/shard_00001.h5: checksum differs"),
              std::string::npos);
    EXPECT_NE(found.passed_by[1].find("step_00000003/shard_00000.h5: the file is missing"),
              std::string::npos);
    EXPECT_EQ(find_latest(*fs_, dir_, Check::sizes).path, dir_ / "step_00000004");
    EXPECT_EQ(find_latest(*fs_, dir_, Check::checksums, 1).path, dir_ / "step_00000001");
    EXPECT_FALSE(find_latest(*fs_, scratch_ / "nowhere", Check::sizes).path);
}

TEST_F(Checkpoint, PruningKeepsTheLastAndEveryKth) {
    for (int step = 1; step <= 10; ++step) save_sample(*fs_, dir_, step, 1, 1);
    fs_->remove_tree(dir_ / "step_00000010/shard_00000.h5");
    EXPECT_EQ(prune(*fs_, dir_, 2, 4), (std::vector<std::int64_t>{1, 2, 3, 5, 6, 7}));
    EXPECT_EQ(fs_->list(dir_), (std::vector<std::string>{"LATEST", "step_00000004", "step_00000008",
                                                         "step_00000009", "step_00000010"}));
    EXPECT_EQ(prune(*fs_, dir_, 0, 0), (std::vector<std::int64_t>{4, 8}));
    EXPECT_TRUE(holds_sample(*fs_, dir_ / "step_00000009", 1));
}

TEST_F(Checkpoint, WhatARunNoLongerGoesOnFromIsSetAside) {
    for (const int step : {1, 2, 3, 4}) save_sample(*fs_, dir_, step, 1, 1);
    EXPECT_TRUE(set_aside_after(*fs_, dir_, 4).empty());
    EXPECT_EQ(set_aside_after(*fs_, dir_, 2).size(), 2U);
    EXPECT_EQ(find_latest(*fs_, dir_, Check::checksums).path, dir_ / "step_00000002");
    save_sample(*fs_, dir_, 3, 1, 1);
    EXPECT_EQ(prune(*fs_, dir_, 1, 0), (std::vector<std::int64_t>{1, 2}));
    EXPECT_TRUE(remove_stale(*fs_, dir_).empty());
    EXPECT_EQ(fs_->list(dir_),
              (std::vector<std::string>{"LATEST", "step_00000003", "step_00000003.set_aside",
                                        "step_00000004.set_aside"}));
    EXPECT_EQ(set_aside_after(*fs_, dir_, 2).size(), 1U);  // in the place of the one before
    EXPECT_TRUE(holds_sample(*fs_, dir_ / "step_00000003.set_aside", 1));
}

TEST_F(Checkpoint, StaleDirectoriesAreRemovedAndAReplacedOnePutBack) {
    save_sample(*fs_, dir_, 1, 1, 1);
    save_sample(*fs_, dir_, 2, 1, 1);
    (void)begin_step(*fs_, dir_, 2);
    fs_->rename(dir_ / "step_00000002", dir_ / "step_00000002.replaced");
    fs_->create_directories(dir_ / "step_00000001.replaced");
    test::put(dir_ / "LATEST.tmp", "st");
    EXPECT_EQ(remove_stale(*fs_, dir_).size(), 4U);
    EXPECT_EQ(fs_->list(dir_),
              (std::vector<std::string>{"LATEST", "step_00000001", "step_00000002"}));
    EXPECT_TRUE(holds_sample(*fs_, dir_ / "step_00000002", 1));
    EXPECT_TRUE(remove_stale(*fs_, scratch_ / "nowhere").empty());
}

TEST_F(Checkpoint, AViewNeedsAWholeCheckpointAndAKnownModel) {
    save_sample(*fs_, dir_, 1, 2, 1);
    const Path path = save_sample(*fs_, dir_, 2, 2, 1);
    const auto view = [&](const std::string& model) {
        build_view(*fs_, path, model, path / "model.h5");
    };
    view("policy");
    EXPECT_TRUE(Hdf5File::open(*fs_, path / "model.h5").has("adam_m/model.norm.weight"));
    EXPECT_TRUE(holds_sample(*fs_, path, 1));  // a view beside the shards does not disturb
    expect_error<BadInput>([&] { view("critic"); }, {"no model 'critic'", "policy"});
    fs_->remove_tree(path / "shard_00001.h5");
    expect_error<CorruptFile>([&] { view("policy"); },
                              {"shard_00001.h5", "missing", "--resume.step=1"});
}

TEST_F(Checkpoint, AnEntryOfAThousandParametersStaysSmall) {
    // 512 writers that each hold a row range of 1,000 parameters: what one rank gathers and every
    // reader loads.
    ShardEntry entry;
    entry.box_lists.resize(1);
    for (ParameterId id = 0; id < 1000; ++id) {
        entry.box_lists[0].push_back({id, {{14 * 511, 14 * 512}, {0, 7168}}});
    }
    for (const char* kind : {"weights", "adam_m", "adam_v"}) {
        entry.contents.push_back({"policy", kind, DType::f32, 0});
    }
    EXPECT_LT(encode(entry).size(), 8'200U);
}

TEST_F(Checkpoint, StepNamesAreReadBackExactly) {
    EXPECT_EQ(step_name(120), "step_00000120");
    EXPECT_EQ(step_of("step_00000120"), 120);
    EXPECT_EQ(step_of(step_name(123'456'789'012)), 123'456'789'012);
    for (const char* other :
         {"step_120", "step_00000120.tmp", "step_", "step_-0000001", "LATEST"}) {
        EXPECT_FALSE(step_of(other)) << other;
    }
}

}  // namespace
}  // namespace rankwise::io
