// Views of device memory. They carry an address that only kernels may follow.
#pragma once

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace rankwise {

/// `size` elements of T in a device's memory. The handle is an address in the device's own address
/// space: host code passes it on and does arithmetic on it, and never reads or writes through it
/// (on the `checked` device that faults).
template <class T>
class DeviceSpan {
  public:
    constexpr DeviceSpan() = default;
    constexpr DeviceSpan(T* handle, std::int64_t size) : handle_(handle), size_(size) {}
    /// DeviceSpan<float> converts to DeviceSpan<const float>.
    template <class U, class = std::enable_if_t<std::is_same_v<const U, T> && !std::is_const_v<U>>>
    constexpr DeviceSpan(DeviceSpan<U> other) : handle_(other.handle()), size_(other.size()) {}

    [[nodiscard]] constexpr T* handle() const { return handle_; }
    [[nodiscard]] constexpr std::int64_t size() const { return size_; }
    [[nodiscard]] constexpr std::int64_t size_bytes() const {
        return size_ * static_cast<std::int64_t>(sizeof(T));
    }
    [[nodiscard]] constexpr bool empty() const { return size_ == 0; }

    [[nodiscard]] constexpr DeviceSpan subspan(std::int64_t offset, std::int64_t count) const {
        assert(offset >= 0 && count >= 0 && offset + count <= size_);
        return {handle_ + offset, count};
    }
    [[nodiscard]] constexpr DeviceSpan subspan(std::int64_t offset) const {
        return subspan(offset, size_ - offset);
    }

  private:
    T* handle_ = nullptr;
    std::int64_t size_ = 0;
};

/// The same memory seen as another element type; the size must fit a whole number of them.
template <class U, class T>
[[nodiscard]] DeviceSpan<U> cast_span(DeviceSpan<T> span) {
    static_assert(std::is_const_v<U> || !std::is_const_v<T>);
    assert(span.size_bytes() % static_cast<std::int64_t>(sizeof(U)) == 0);
    return {reinterpret_cast<U*>(span.handle()),
            span.size_bytes() / static_cast<std::int64_t>(sizeof(U))};
}

}  // namespace rankwise
