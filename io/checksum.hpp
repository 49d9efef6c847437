// The checksum of a file: XXH3-128 of the XXH3-128 values of its blocks, so that it is known as
// soon as the file is written.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "io/fs.hpp"
#include "src/base/uint128.hpp"

namespace rankwise::io {

/// Bytes of a block; the last block of a file may be shorter.
inline constexpr std::int64_t kChecksumBlock = std::int64_t{1} << 20U;

/// Follows the writes to one file. A block that one write covers is hashed from memory, and so is
/// one that writes fill piece by piece from its beginning; only the others (file headers that are
/// written again) are read back at the end.
class FileChecksum {
  public:
    void wrote(std::int64_t offset, std::span<const std::byte> bytes);
    void truncated(std::int64_t size);
    /// The checksum of `file`, which holds what was reported here.
    [[nodiscard]] UInt128 finish(File& file);

  private:
    struct Block {
        UInt128 hash;
        bool known = false;
    };
    void wrote_part(std::int64_t offset, std::span<const std::byte> bytes, std::int64_t index);

    std::vector<Block> blocks_;
    std::vector<std::byte> filling_;  ///< the beginning of block `filled_`, as written so far
    std::int64_t filled_ = -1;
};

/// Of one block, and of a file from those of its blocks in order.
[[nodiscard]] UInt128 checksum_of_block(std::span<const std::byte> block);
[[nodiscard]] UInt128 checksum_of_blocks(std::span<const UInt128> blocks);

/// The checksum of a file by reading it all.
[[nodiscard]] UInt128 checksum_of(File& file);

}  // namespace rankwise::io
