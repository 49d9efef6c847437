#include "io/verified_file.hpp"

#include <algorithm>
#include <system_error>
#include <utility>

#include "src/base/checked.hpp"

namespace rankwise::io {
namespace {

[[noreturn]] void refuse() {
    throw InternalError("a file that is being verified is not written to");
}

}  // namespace

VerifiedFile::VerifiedFile(std::unique_ptr<File> file, std::int64_t blocks)
    : file_(std::move(file)), size_(file_->size()), stretch_(blocks * kChecksumBlock) {
    hashes_.resize(static_cast<std::size_t>(ceil_div(size_, kChecksumBlock)));
    known_.resize(static_cast<std::size_t>(ceil_div(size_, stretch_)));
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

VerifiedFile::Stretch VerifiedFile::fetch(Stretch room, std::int64_t index) const {
    Stretch read = std::move(room);
    read.bytes.resize(static_cast<std::size_t>(std::min(stretch_, size_ - index * stretch_)));
    read.bytes.resize(static_cast<std::size_t>(file_->read_at(index * stretch_, read.bytes)));
    read.hashes.clear();
    for (std::int64_t at = 0; at < std::ssize(read.bytes); at += kChecksumBlock) {
        read.hashes.push_back(
            checksum_of_block(std::span(read.bytes)
                                  .subspan(static_cast<std::size_t>(at),
                                           static_cast<std::size_t>(std::min(
                                               kChecksumBlock, std::ssize(read.bytes) - at)))));
    }
    read.index = index;
    return read;
}

/// Of a file that was cut short meanwhile hashes are missing: it will not pass.
void VerifiedFile::note(const Stretch& stretch) {
    const auto i = static_cast<std::size_t>(stretch.index);
    if (known_[i]) return;
    std::ranges::copy(stretch.hashes,
                      hashes_.begin() + stretch.index * (stretch_ / kChecksumBlock));
    known_[i] = true;
}

void VerifiedFile::start_ahead(std::int64_t index) {
    if (index >= std::ssize(known_) || known_[static_cast<std::size_t>(index)]) return;
    try {
        ahead_ = std::async(std::launch::async,
                            [this, index] { return fetch(std::move(spare_), index); });
    } catch (const std::system_error&) {
        // No thread to be had: it is read when it is wanted.
    }
}

const std::vector<std::byte>& VerifiedFile::hold(std::int64_t index) {
    for (const Stretch& held : held_) {
        if (held.index == index) return held.bytes;
    }
    const bool follows = held_[1 - next_held_].index == index - 1;
    Stretch& held = held_[next_held_];
    next_held_ = 1 - next_held_;
    held.index = -1;  // should reading fail
    const bool ahead = ahead_.valid();
    if (ahead) {
        Stretch arrived = ahead_.get();
        note(arrived);
        if (arrived.index == index) std::swap(held, arrived);  // else the reader went elsewhere
        spare_ = std::move(arrived);
    }
    if (held.index != index) held = fetch(std::move(held), index);
    note(held);
    if (stretch_ > kChecksumBlock && (follows || ahead)) start_ahead(index + 1);
    return held.bytes;
}

std::int64_t VerifiedFile::read_at(std::int64_t offset, std::span<std::byte> bytes) {
    const std::int64_t end = std::min(offset + std::ssize(bytes), size_);
    std::int64_t at = offset;
    while (at < end) {
        const std::int64_t index = at / stretch_;
        const std::int64_t begin = index * stretch_;
        const auto wanted = static_cast<std::size_t>(std::min(end, begin + stretch_) - at);
        const auto stretch = std::span(hold(index));
        const auto rest =
            stretch.subspan(std::min(stretch.size(), static_cast<std::size_t>(at - begin)));
        const auto part = rest.first(std::min(rest.size(), wanted));
        std::ranges::copy(part, bytes.begin() + (at - offset));
        at += std::ssize(part);
        if (part.size() < wanted) break;
    }
    return std::max<std::int64_t>(0, at - offset);
}

UInt128 VerifiedFile::finish() {
    for (std::size_t i = 0; i < known_.size(); ++i) {
        if (!known_[i]) (void)hold(static_cast<std::int64_t>(i));
    }
    held_ = {};  // it may stay open for long
    spare_ = {};
    return checksum_of_blocks(hashes_);
}

}  // namespace rankwise::io
