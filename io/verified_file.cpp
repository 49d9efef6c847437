#include "io/verified_file.hpp"

#include <algorithm>

#include "src/base/checked.hpp"

namespace rankwise::io {
namespace {

[[noreturn]] void refuse() {
    throw InternalError("a file that is being verified is not written to");
}

}  // namespace

VerifiedFile::VerifiedFile(std::unique_ptr<File> file)
    : file_(std::move(file)), size_(file_->size()) {
    const auto blocks = static_cast<std::size_t>(ceil_div(size_, kChecksumBlock));
    hashes_.resize(blocks);
    known_.resize(blocks);
}

void VerifiedFile::write_at(std::int64_t /*offset*/, std::span<const std::byte> /*bytes*/) {
    refuse();
}
void VerifiedFile::truncate(std::int64_t /*size*/) {
    refuse();
}
void VerifiedFile::sync() {
    refuse();
}

std::int64_t VerifiedFile::block_size(std::int64_t index) const {
    return std::min(kChecksumBlock, size_ - index * kChecksumBlock);
}

void VerifiedFile::note(std::int64_t index, std::span<const std::byte> block) {
    const auto i = static_cast<std::size_t>(index);
    if (known_[i]) return;
    hashes_[i] = checksum_of_block(block);
    known_[i] = true;
}

const std::vector<std::byte>& VerifiedFile::hold(std::int64_t index) {
    for (const Held& held : held_) {
        if (held.index == index) return held.bytes;
    }
    Held& held = held_[next_held_];
    next_held_ = (next_held_ + 1) % held_.size();
    held.index = -1;  // should reading fail
    held.bytes.resize(static_cast<std::size_t>(block_size(index)));
    const std::int64_t read = file_->read_at(index * kChecksumBlock, held.bytes);
    held.bytes.resize(static_cast<std::size_t>(read));  // cut short meanwhile: the hash will tell
    held.index = index;
    note(index, held.bytes);
    return held.bytes;
}

std::int64_t VerifiedFile::read_at(std::int64_t offset, std::span<std::byte> bytes) {
    const std::int64_t end = std::min(offset + static_cast<std::int64_t>(bytes.size()), size_);
    std::int64_t at = offset;
    while (at < end) {
        const std::int64_t index = at / kChecksumBlock;
        const std::int64_t begin = index * kChecksumBlock;
        const std::int64_t piece_end = std::min(end, begin + kChecksumBlock);
        const auto piece = bytes.subspan(static_cast<std::size_t>(at - offset),
                                         static_cast<std::size_t>(piece_end - at));
        std::int64_t read = 0;
        if (piece_end - at == block_size(index)) {  // hashed where it is wanted
            read = file_->read_at(at, piece);
            note(index, piece.first(static_cast<std::size_t>(read)));
        } else {
            const auto block = std::span(hold(index));
            const auto rest =
                block.subspan(std::min(block.size(), static_cast<std::size_t>(at - begin)));
            const auto part = rest.first(std::min(rest.size(), piece.size()));
            std::copy(part.begin(), part.end(), piece.begin());
            read = static_cast<std::int64_t>(part.size());
        }
        at += read;
        if (read < piece_end - (at - read)) break;
    }
    return std::max<std::int64_t>(0, at - offset);
}

UInt128 VerifiedFile::finish() {
    for (std::size_t i = 0; i < known_.size(); ++i) {
        if (!known_[i]) (void)hold(static_cast<std::int64_t>(i));
    }
    return checksum_of_blocks(hashes_);
}

}  // namespace rankwise::io
