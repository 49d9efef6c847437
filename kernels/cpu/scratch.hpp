// Working memory that outlives a call.
#pragma once

#include <cstdint>

namespace rankwise::kernels::cpu {

/// Floats aligned to 64 bytes, many of them on large pages. Grows to the largest request and keeps
/// it, so that a step allocates nothing once it has seen its largest shapes. One a thread
/// (thread_local) and purpose; what it held before a larger request is lost.
class Scratch {
  public:
    Scratch() = default;
    ~Scratch();
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;

    /// @throws EnvironmentError if there is no more memory.
    [[nodiscard]] float* take(std::int64_t floats) {
        if (floats > size_) grow(floats);
        return memory_;
    }

  private:
    void grow(std::int64_t floats);
    void give_back() noexcept;

    float* memory_ = nullptr;
    std::int64_t size_ = 0;
};

}  // namespace rankwise::kernels::cpu
