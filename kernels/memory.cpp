#include "kernels/memory.hpp"

#include <algorithm>

#include "src/base/checked.hpp"

namespace rankwise::kernels {
namespace {

constexpr std::int64_t kAlignment = 64;
constexpr std::int64_t kFirstBlock = std::int64_t{1} << 20;

}  // namespace

std::int64_t Arena::capacity_bytes() const {
    std::int64_t capacity = 0;
    for (const auto& block : blocks_) capacity += block.size();
    return capacity;
}

Arena& Arena::beside(std::size_t index) {
    while (beside_.size() <= index) beside_.push_back(std::make_unique<Arena>(*memory_));
    return *beside_[index];
}

std::int64_t Arena::peak_bytes_beside() const {
    std::int64_t bytes = 0;
    for (const auto& arena : beside_) bytes += arena->peak_bytes();
    return bytes;
}

void Arena::reserve(std::int64_t bytes) {
    ensure(total_ == 0, "arena: {} bytes are taken", total_);
    beside_.clear();
    if (capacity_bytes() == round_up(bytes, kAlignment)) return;
    blocks_.clear();  // before the new block is allocated
    block_ = 0;
    used_ = 0;
    peak_ = 0;
    activations_at_peak_ = 0;
    if (bytes > 0) blocks_.emplace_back(*memory_, round_up(bytes, kAlignment));
}

std::byte* Arena::take_bytes(std::int64_t bytes, Use use) {
    ensure(bytes >= 0, "arena: {} bytes", bytes);
    if (bytes == 0) return nullptr;
    const std::int64_t size = round_up(bytes, kAlignment);
    while (block_ < blocks_.size() && used_ + size > blocks_[block_].size()) {
        ++block_;
        used_ = 0;
    }
    if (block_ == blocks_.size()) {
        blocks_.emplace_back(*memory_, std::max({size, peak_, capacity_bytes(), kFirstBlock}));
    }
    std::byte* taken = blocks_[block_].span().handle() + used_;
    used_ += size;
    total_ += size;
    if (use == Use::activation) activations_ += size;
    if (total_ > peak_) {
        peak_ = total_;
        activations_at_peak_ = activations_;
    }
    return taken;
}

void Arena::release(std::size_t block, std::int64_t used, std::int64_t total,
                    std::int64_t activations) {
    block_ = block;
    used_ = used;
    total_ = total;
    activations_ = activations;
    // Grown in pieces: the next take allocates one block of the peak's size.
    if (total_ == 0 && blocks_.size() > 1) {
        blocks_.clear();
        block_ = 0;
        used_ = 0;
    }
}

}  // namespace rankwise::kernels
