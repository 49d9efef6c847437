// Small values as compact bytes, the same on any machine: integers as base-128 groups, least
// significant first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "src/base/error.hpp"
#include "src/base/uint128.hpp"

namespace rankwise::io {

class ByteWriter {
  public:
    void put(std::uint64_t value) {
        for (; value >= 0x80U; value >>= 7U)
            bytes_.push_back(static_cast<std::byte>(value | 0x80U));
        bytes_.push_back(static_cast<std::byte>(value));
    }
    /// @param value  not negative.
    void put_size(std::int64_t value) {
        ensure(value >= 0, "{} cannot be written as a size", value);
        put(static_cast<std::uint64_t>(value));
    }
    void put(UInt128 value) {
        put(value.low);
        put(value.high);
    }
    void put(const std::string& text) {
        put(text.size());
        const auto bytes = std::as_bytes(std::span(text));
        bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    }
    [[nodiscard]] std::vector<std::byte> take() { return std::move(bytes_); }

  private:
    std::vector<std::byte> bytes_;
};

/// Reads what ByteWriter wrote. @throws CorruptFile naming `where` when the bytes end early or an
/// integer is too large.
class ByteReader {
  public:
    ByteReader(std::span<const std::byte> bytes, std::string where)
        : bytes_(bytes), where_(std::move(where)) {}

    [[nodiscard]] std::uint64_t get() {
        std::uint64_t value = 0;
        for (unsigned shift = 0; shift < 64; shift += 7) {
            const auto byte = std::to_integer<std::uint64_t>(take(1)[0]);
            if (shift == 63 && byte > 1) break;
            value |= (byte & 0x7FU) << shift;
            if (byte < 0x80U) return value;
        }
        fail("an integer is too large");
    }
    [[nodiscard]] std::int64_t get_size() {
        const std::uint64_t value = get();
        if (value > static_cast<std::uint64_t>(INT64_MAX)) fail("a size is too large");
        return static_cast<std::int64_t>(value);
    }
    /// A number of things that take at least a byte each, so that no claim makes the reader
    /// allocate more than is there.
    [[nodiscard]] std::size_t get_count() {
        const std::uint64_t value = get();
        if (value > bytes_.size()) fail("a count is larger than what follows");
        return static_cast<std::size_t>(value);
    }
    [[nodiscard]] UInt128 get_uint128() {
        UInt128 value;
        value.low = get();
        value.high = get();
        return value;
    }
    [[nodiscard]] std::string get_text() {
        const auto bytes = take(get_count());
        return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
    }
    void expect_end() const {
        if (!bytes_.empty()) fail("bytes are left over");
    }
    [[noreturn]] void fail(std::string_view what) const {
        throw CorruptFile(
            fmt::format("{}: {}; it is damaged or not one of this program's", where_, what));
    }

  private:
    std::span<const std::byte> take(std::size_t count) {
        if (count > bytes_.size()) fail("it ends early");
        const auto taken = bytes_.first(count);
        bytes_ = bytes_.subspan(count);
        return taken;
    }

    std::span<const std::byte> bytes_;
    std::string where_;
};

}  // namespace rankwise::io
