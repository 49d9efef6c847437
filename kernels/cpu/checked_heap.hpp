// The memory of the `checked` device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>

namespace rankwise::kernels::cpu {

/// One memory file mapped twice: handles lie in a mapping that may never be read or written, so
/// host code that follows one faults at once; kernels go through the other mapping, `shift` bytes
/// away. New memory is filled with bytes 0xFF, which are NaNs, so that what is read before it is
/// written shows. The address range is reserved whole; pages come when touched.
class CheckedHeap {
  public:
    /// @throws EnvironmentError if the system refuses the memory file or the address range.
    CheckedHeap();
    ~CheckedHeap();
    CheckedHeap(const CheckedHeap&) = delete;
    CheckedHeap& operator=(const CheckedHeap&) = delete;

    [[nodiscard]] std::ptrdiff_t shift() const { return readable_ - handles_; }
    /// A multiple of 64 into the handles' mapping, or nullptr if no hole is large enough.
    [[nodiscard]] std::byte* allocate(std::int64_t bytes);
    void free(std::byte* handle, std::int64_t bytes) noexcept;

  private:
    std::byte* handles_ = nullptr;
    std::byte* readable_ = nullptr;
    std::mutex mutex_;
    std::map<std::int64_t, std::int64_t> holes_;  // offset -> size, none adjacent
};

}  // namespace rankwise::kernels::cpu
