// Working memory of attention that outlives a call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

namespace rankwise::kernels::cpu {

/// Floats aligned to 64 bytes. Grows to the largest request and keeps it, so that a step allocates
/// nothing once it has seen its largest shapes. One a thread (thread_local) and purpose; what it
/// held before a larger request is lost.
class AttentionScratch {
  public:
    [[nodiscard]] float* take(std::int64_t floats) {
        if (floats > size_) {
            memory_.reset();
            size_ = 0;
            memory_.reset(static_cast<float*>(
                ::operator new(static_cast<std::size_t>(floats) * sizeof(float), kAlignment)));
            size_ = floats;
        }
        return memory_.get();
    }

  private:
    static constexpr std::align_val_t kAlignment{64};
    struct Free {
        void operator()(float* memory) const { ::operator delete(memory, kAlignment); }
    };
    std::unique_ptr<float, Free> memory_;
    std::int64_t size_ = 0;
};

}  // namespace rankwise::kernels::cpu
