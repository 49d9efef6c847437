// One file of a checkpoint: the boxes of tensors that one writer holds.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "io/fs.hpp"
#include "io/hdf5_file.hpp"
#include "src/base/box.hpp"
#include "src/base/dtype.hpp"
#include "src/base/parameter_table.hpp"
#include "src/base/uint128.hpp"

namespace rankwise::io {

/// Something to save: a box of a parameter of a named model.
struct ShardItem {
    std::string model;  ///< "policy", "critic", …
    std::string kind;   ///< "weights", "adam_m", "adam_v", …
    ParameterId parameter = 0;
    Box box;
    DType dtype = DType::f32;
    std::span<const std::byte> bytes;  ///< the box row by row, without gaps; or, in place of them,
    /// writes so many of those bytes from an offset on, asked for in ascending pieces: what is
    /// saved need not be held twice.
    std::function<void(std::int64_t offset, std::span<std::byte> to)> read = {};
};

/// A box of a parameter, as files list it.
struct ShardBox {
    ParameterId parameter = 0;
    Box box;
    friend bool operator==(const ShardBox&, const ShardBox&) = default;
};

/// One flat dataset of a shard: `MODEL/KIND/DTYPE/data` holds the boxes of list `boxes`, one after
/// the other.
struct ShardContent {
    std::string model;
    std::string kind;
    DType dtype = DType::f32;
    std::int64_t boxes =
        0;  ///< index into ShardEntry::box_lists; equal lists (weights and moments) are kept once
    std::int64_t data = 0;  ///< where the first element lies in the file, bytes
    friend bool operator==(const ShardContent&, const ShardContent&) = default;
};

/// What the manifest says of a shard. Small: gathered by the one rank that commits.
struct ShardEntry {
    std::string file;  ///< name in the checkpoint's directory
    std::int64_t bytes = 0;
    UInt128 checksum;
    std::vector<std::vector<ShardBox>> box_lists;
    std::vector<ShardContent> contents;
    friend bool operator==(const ShardEntry&, const ShardEntry&) = default;
};

/// How elements of a dtype are stored.
[[nodiscard]] Element stored_as(DType dtype);

/// `MODEL/KIND/DTYPE`, the group of a content.
[[nodiscard]] std::string group_of(const ShardContent& content);

/// Where each box of a list begins in its flat dataset (elements), and at the end the size of the
/// dataset.
[[nodiscard]] std::vector<std::int64_t> box_offsets(std::span<const ShardBox> boxes);

/// "shard_00007.h5"
[[nodiscard]] std::string shard_name(std::int64_t index);

/// Writes shard `index` into `directory`, closes it, syncs it. A (model, kind, dtype) becomes one
/// flat dataset, with boxes sorted by parameter, row, column, and the table `parameter, row_begin,
/// row_end, column_begin, column_end, offset` (elements) beside it. Stored elements: F32, F64, I32,
/// I64, U8 as such; BF16 and F16 as 16-bit, F8_E4M3 as 8-bit unsigned integers (attribute "dtype"
/// tells). The file carries the checkpoint's id and a format version.
/// @throws EnvironmentError from the file system; InternalError if an item's bytes do not fit its
/// box, or boxes overlap.
[[nodiscard]] ShardEntry write_shard(FileSystem& fs, const Path& directory, UInt128 checkpoint_id,
                                     std::int64_t index, std::span<const ShardItem> items);

/// For the gather: compact, independent of the machine. decode throws CorruptFile on anything that
/// encode did not make
/// (`where` is named).
[[nodiscard]] std::vector<std::byte> encode(const ShardEntry& entry);
[[nodiscard]] ShardEntry decode_shard_entry(std::span<const std::byte> bytes,
                                            const std::string& where);

}  // namespace rankwise::io
