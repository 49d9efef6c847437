#include "io/verified_file.hpp"

#include <algorithm>
#include <system_error>
#include <utility>

#include "src/base/checked.hpp"

namespace rankwise::io {
namespace {

/// Stretches on their way: the disk has work while those that it brought are hashed and used. Past
/// the cache, where no one else reads ahead, it has enough even while the widest parameter is
/// packed.
constexpr std::int64_t kAhead = 12;
constexpr std::int64_t kAheadPastCache = 32;

[[noreturn]] void refuse() {
    throw InternalError("a file that is being verified is not written to");
}

}  // namespace

VerifiedFile::VerifiedFile(std::unique_ptr<File> file, std::int64_t blocks, bool through)
    : file_(std::move(file)),
      size_(file_->size()),
      stretch_(blocks * kChecksumBlock),
      through_(through) {
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
    if (read.room.bytes().empty()) read.room = DirectBuffer(std::min(stretch_, size_));
    const std::int64_t begin = index * stretch_;
    const std::int64_t wanted = std::min(stretch_, size_ - begin);
    const auto whole_blocks = read.room.bytes().first(
        static_cast<std::size_t>(ceil_div(wanted, kDirectBlock) * kDirectBlock));
    const std::int64_t got =
        through_ ? file_->read_through(begin, whole_blocks) : file_->read_at(begin, whole_blocks);
    read.bytes = whole_blocks.first(static_cast<std::size_t>(std::min(got, wanted)));
    read.hashes.clear();
    for (std::int64_t at = 0; at < std::ssize(read.bytes); at += kChecksumBlock) {
        read.hashes.push_back(checksum_of_block(read.bytes.subspan(
            static_cast<std::size_t>(at),
            static_cast<std::size_t>(std::min(kChecksumBlock, std::ssize(read.bytes) - at)))));
    }
    read.index = index;
    return read;
}

/// Of a file that was cut short meanwhile hashes are missing: it will not pass. Nor will one that
/// was not the same when a stretch was read again.
void VerifiedFile::note(const Stretch& stretch) {
    const auto i = static_cast<std::size_t>(stretch.index);
    const auto own = std::span(hashes_).subspan(
        i * static_cast<std::size_t>(stretch_ / kChecksumBlock), stretch.hashes.size());
    if (!known_[i])
        std::ranges::copy(stretch.hashes, own.begin());
    else if (!std::ranges::equal(stretch.hashes, own))
        std::ranges::fill(own, UInt128());  // of no bytes, so neither of the one nor of the other
    known_[i] = true;
}

VerifiedFile::Stretch VerifiedFile::spare() {
    if (spare_.empty()) return {};
    Stretch room = std::move(spare_.back());
    spare_.pop_back();
    return room;
}

/// Stretches from `index` on that nobody has had yet, as many as threads are to be had.
void VerifiedFile::read_ahead(std::int64_t index) {
    const std::int64_t most = through_ ? kAheadPastCache : kAhead;
    try {
        for (std::int64_t next = index + std::ssize(ahead_); std::ssize(ahead_) < most; ++next) {
            if (next >= std::ssize(known_) || known_[static_cast<std::size_t>(next)]) return;
            ahead_.push_back(std::async(std::launch::async, [this, next, room = spare()]() mutable {
                return fetch(std::move(room), next);
            }));
        }
    } catch (const std::system_error&) {
        // No thread: they are read when they are wanted.
    }
}

std::span<const std::byte> VerifiedFile::hold(std::int64_t index) {
    for (const Stretch& held : held_) {
        if (held.index == index) return held.bytes;
    }
    const bool follows = held_[1 - next_held_].index == index - 1;
    Stretch& held = held_[next_held_];
    next_held_ = 1 - next_held_;
    held.index = -1;  // should reading fail
    const bool ahead = !ahead_.empty();
    while (!ahead_.empty() && held.index != index) {
        std::future<Stretch> first = std::move(ahead_.front());
        ahead_.pop_front();
        Stretch arrived = first.get();
        note(arrived);
        if (arrived.index == index) std::swap(held, arrived);  // else the reader went elsewhere
        spare_.push_back(std::move(arrived));
    }
    if (held.index != index) held = fetch(std::move(held), index);
    note(held);
    if (stretch_ > kChecksumBlock && (follows || ahead)) read_ahead(index + 1);
    return held.bytes;
}

std::int64_t VerifiedFile::visit(std::int64_t offset, std::int64_t size, const Take& take) {
    const std::int64_t end = std::min(offset + size, size_);
    std::int64_t at = offset;
    // Who wants several stretches will want those behind the first: they need not wait for it.
    if (stretch_ > kChecksumBlock && ahead_.empty() && end - at > stretch_)
        read_ahead(at / stretch_);
    while (at < end) {
        const std::int64_t index = at / stretch_;
        const std::int64_t begin = index * stretch_;
        const auto wanted = static_cast<std::size_t>(std::min(end, begin + stretch_) - at);
        const auto stretch = hold(index);
        const auto rest =
            stretch.subspan(std::min(stretch.size(), static_cast<std::size_t>(at - begin)));
        const auto part = rest.first(std::min(rest.size(), wanted));
        take(part);
        at += std::ssize(part);
        if (part.size() < wanted) break;
    }
    return std::max<std::int64_t>(0, at - offset);
}

std::int64_t VerifiedFile::read_at(std::int64_t offset, std::span<std::byte> bytes) {
    auto to = bytes.begin();
    return visit(offset, std::ssize(bytes),
                 [&](std::span<const std::byte> piece) { to = std::ranges::copy(piece, to).out; });
}

UInt128 VerifiedFile::finish(const std::function<void()>& moved) {
    for (std::size_t i = 0; i < known_.size(); ++i) {
        if (known_[i]) continue;
        if (moved) moved();
        (void)hold(static_cast<std::int64_t>(i));
    }
    held_ = {};  // it may stay open for long
    spare_.clear();
    return checksum_of_blocks(hashes_);
}

}  // namespace rankwise::io
