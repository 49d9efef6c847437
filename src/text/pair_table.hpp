// Merges of a byte-pair encoding, found by the pair of ids. Private to src/text.
#pragma once

#include <bit>
#include <cstdint>
#include <vector>

#include "src/base/trajectory.hpp"

namespace rankwise::text {

struct Merge {
    std::int32_t rank = -1;  ///< lower ranks are merged first
    TokenId result = -1;
};

/// A hash table with open addressing; filled once, then only read.
class PairTable {
  public:
    explicit PairTable(std::size_t count)
        : slots_(std::bit_ceil(std::max<std::size_t>(16, count * 2))), mask_(slots_.size() - 1) {}

    /// A pair that comes again takes the later merge.
    void insert(TokenId left, TokenId right, Merge merge) {
        slot(key_of(left, right)) = {key_of(left, right), merge};
    }

    [[nodiscard]] const Merge* find(TokenId left, TokenId right) const {
        const Slot& found = const_cast<PairTable*>(this)->slot(key_of(left, right));
        return found.key == kEmpty ? nullptr : &found.merge;
    }

  private:
    static constexpr std::uint64_t kEmpty = ~std::uint64_t{0};
    struct Slot {
        std::uint64_t key = kEmpty;
        Merge merge;
    };
    static std::uint64_t key_of(TokenId left, TokenId right) {
        return (std::uint64_t{static_cast<std::uint32_t>(left)} << 32U) |
               static_cast<std::uint32_t>(right);
    }
    Slot& slot(std::uint64_t key) {
        std::size_t at = (key * 0x9E3779B97F4A7C15ULL >> 20U) & mask_;
        while (slots_[at].key != kEmpty && slots_[at].key != key) at = (at + 1) & mask_;
        return slots_[at];
    }

    std::vector<Slot> slots_;
    std::size_t mask_;
};

}  // namespace rankwise::text
