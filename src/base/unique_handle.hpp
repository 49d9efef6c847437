// Ownership of a C library's handle.
#pragma once

#include <utility>

namespace rankwise {

/// Owns a value of type T that `Close` releases; `invalid` marks "nothing owned".
template <class T, auto Close, T invalid = T{}>
class UniqueHandle {
  public:
    UniqueHandle() = default;
    explicit UniqueHandle(T value) : value_(value) {}
    UniqueHandle(UniqueHandle&& other) noexcept : value_(std::exchange(other.value_, invalid)) {}
    UniqueHandle& operator=(UniqueHandle&& other) noexcept {
        if (this != &other) {
            reset();
            value_ = std::exchange(other.value_, invalid);
        }
        return *this;
    }
    UniqueHandle(const UniqueHandle&) = delete;
    UniqueHandle& operator=(const UniqueHandle&) = delete;
    ~UniqueHandle() { reset(); }

    [[nodiscard]] T get() const { return value_; }
    [[nodiscard]] explicit operator bool() const { return value_ != invalid; }
    T release() { return std::exchange(value_, invalid); }
    void reset() {
        if (value_ != invalid) Close(value_);
        value_ = invalid;
    }

  private:
    T value_ = invalid;
};

}  // namespace rankwise
