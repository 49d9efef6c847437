#include "io/checksum.hpp"

#include <algorithm>

namespace rankwise::io {
namespace {

UInt128 hash_of(std::span<const std::byte> bytes) {
    return xxh3_128(bytes.data(), bytes.size());
}

/// The hash of block `index` as it lies in the file.
UInt128 read_block(File& file, std::int64_t index, std::vector<std::byte>& buffer) {
    buffer.resize(static_cast<std::size_t>(kChecksumBlock));
    const auto size = file.read_at(index * kChecksumBlock, buffer);
    return hash_of(std::span(buffer).first(static_cast<std::size_t>(size)));
}

UInt128 hash_of_hashes(const std::vector<UInt128>& hashes) {
    std::vector<std::byte> bytes;
    bytes.reserve(hashes.size() * 16);
    for (const UInt128& hash : hashes) {
        for (const std::uint64_t word : {hash.low, hash.high}) {
            for (unsigned shift = 0; shift < 64; shift += 8) {
                bytes.push_back(static_cast<std::byte>(word >> shift));
            }
        }
    }
    return hash_of(bytes);
}

}  // namespace

void FileChecksum::wrote(std::int64_t offset, std::span<const std::byte> bytes) {
    const std::int64_t end = offset + static_cast<std::int64_t>(bytes.size());
    for (std::int64_t at = offset; at < end;) {
        const std::int64_t index = at / kChecksumBlock;
        const std::int64_t block_end = (index + 1) * kChecksumBlock;
        const std::int64_t piece_end = std::min(end, block_end);
        if (static_cast<std::int64_t>(blocks_.size()) <= index) {
            blocks_.resize(static_cast<std::size_t>(index) + 1);
        }
        Block& block = blocks_[static_cast<std::size_t>(index)];
        block.known = at == index * kChecksumBlock && piece_end == block_end;
        if (block.known) {
            block.hash = hash_of(bytes.subspan(static_cast<std::size_t>(at - offset),
                                               static_cast<std::size_t>(kChecksumBlock)));
        }
        at = piece_end;
    }
}

void FileChecksum::truncated(std::int64_t size) {
    const std::int64_t whole = size / kChecksumBlock;
    blocks_.resize(static_cast<std::size_t>(whole + (size % kChecksumBlock != 0 ? 1 : 0)));
    if (size % kChecksumBlock != 0) blocks_.back().known = false;
}

UInt128 FileChecksum::finish(File& file) {
    truncated(file.size());
    std::vector<std::byte> buffer;
    std::vector<UInt128> hashes;
    hashes.reserve(blocks_.size());
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
        hashes.push_back(blocks_[i].known ? blocks_[i].hash
                                          : read_block(file, static_cast<std::int64_t>(i), buffer));
    }
    return hash_of_hashes(hashes);
}

UInt128 checksum_of(File& file) {
    return FileChecksum().finish(file);
}

}  // namespace rankwise::io
