#include "io/checksum.hpp"

#include <algorithm>

namespace rankwise::io {

UInt128 checksum_of_block(std::span<const std::byte> block) {
    return xxh3_128(block.data(), block.size());
}

UInt128 checksum_of_blocks(std::span<const UInt128> blocks) {
    std::vector<std::byte> bytes;
    bytes.reserve(blocks.size() * 16);
    for (const UInt128& hash : blocks) {
        for (const std::uint64_t word : {hash.low, hash.high}) {
            for (unsigned shift = 0; shift < 64; shift += 8) {
                bytes.push_back(static_cast<std::byte>(word >> shift));
            }
        }
    }
    return checksum_of_block(bytes);
}

namespace {

/// The hash of block `index` as it lies in the file.
UInt128 read_block(File& file, std::int64_t index, std::vector<std::byte>& buffer) {
    buffer.resize(static_cast<std::size_t>(kChecksumBlock));
    const auto size = file.read_at(index * kChecksumBlock, buffer);
    return checksum_of_block(std::span(buffer).first(static_cast<std::size_t>(size)));
}

}  // namespace

void FileChecksum::wrote(std::int64_t offset, std::span<const std::byte> bytes) {
    const std::int64_t end = offset + static_cast<std::int64_t>(bytes.size());
    for (std::int64_t at = offset; at < end;) {
        const std::int64_t index = at / kChecksumBlock;
        const std::int64_t piece_end = std::min(end, (index + 1) * kChecksumBlock);
        if (static_cast<std::int64_t>(blocks_.size()) <= index) {
            blocks_.resize(static_cast<std::size_t>(index) + 1);
        }
        const auto piece = bytes.subspan(static_cast<std::size_t>(at - offset),
                                         static_cast<std::size_t>(piece_end - at));
        if (piece_end - at == kChecksumBlock) {
            if (filled_ == index) filled_ = -1;
            blocks_[static_cast<std::size_t>(index)] = {checksum_of_block(piece), true};
        } else {
            wrote_part(at - index * kChecksumBlock, piece, index);
        }
        at = piece_end;
    }
}

void FileChecksum::wrote_part(std::int64_t offset, std::span<const std::byte> bytes,
                              std::int64_t index) {
    Block& block = blocks_[static_cast<std::size_t>(index)];
    block.known = false;
    if (offset == 0) {
        filled_ = index;
        filling_.clear();
        filling_.reserve(static_cast<std::size_t>(kChecksumBlock));
    }
    if (filled_ != index) return;
    if (offset != static_cast<std::int64_t>(filling_.size())) {
        filled_ = -1;  // not one piece after the other: read back at the end
        return;
    }
    filling_.insert(filling_.end(), bytes.begin(), bytes.end());
    if (static_cast<std::int64_t>(filling_.size()) == kChecksumBlock) {
        block = {checksum_of_block(filling_), true};
        filled_ = -1;
    }
}

void FileChecksum::truncated(std::int64_t size) {
    const std::int64_t whole = size / kChecksumBlock;
    blocks_.resize(static_cast<std::size_t>(whole + (size % kChecksumBlock != 0 ? 1 : 0)));
    if (size % kChecksumBlock != 0) blocks_.back().known = false;
    if (filled_ >= whole) filled_ = -1;
}

UInt128 FileChecksum::finish(File& file) {
    const std::int64_t size = file.size();
    if (filled_ >= 0 &&
        filled_ * kChecksumBlock + static_cast<std::int64_t>(filling_.size()) == size) {
        blocks_[static_cast<std::size_t>(filled_)] = {checksum_of_block(filling_), true};
    } else {
        truncated(size);
    }
    std::vector<std::byte> buffer;
    std::vector<UInt128> hashes;
    hashes.reserve(blocks_.size());
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
        hashes.push_back(blocks_[i].known ? blocks_[i].hash
                                          : read_block(file, static_cast<std::int64_t>(i), buffer));
    }
    return checksum_of_blocks(hashes);
}

UInt128 checksum_of(File& file) {
    return FileChecksum().finish(file);
}

}  // namespace rankwise::io
