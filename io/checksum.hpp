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

/// Follows the writes to one file. Blocks that one write covers are hashed from memory; only the
/// others (file headers, seams between tensors) are read back at the end.
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
    std::vector<Block> blocks_;
};

/// The checksum of a file by reading it all.
[[nodiscard]] UInt128 checksum_of(File& file);

}  // namespace rankwise::io
