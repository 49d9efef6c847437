// Device memory: allocation and copies.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "kernels/stream.hpp"
#include "src/base/device_span.hpp"

namespace rankwise::kernels {

/// Allocation and copies of one device. Host code reaches device memory through these calls and
/// through ops alone.
class Memory {
  public:
    virtual ~Memory() = default;

    /// `bytes` of memory aligned to 64, contents unspecified; zero bytes give nullptr.
    /// @throws EnvironmentError if there is not enough, naming the size and what is in use.
    [[nodiscard]] virtual std::byte* allocate(std::int64_t bytes) = 0;
    virtual void free(std::byte* handle, std::int64_t bytes) noexcept = 0;
    /// What an allocation of so many bytes really takes.
    [[nodiscard]] virtual std::int64_t footprint(std::int64_t bytes) const { return bytes; }
    /// The footprints of all that is allocated.
    [[nodiscard]] virtual std::int64_t bytes_in_use() const = 0;
    /// Allocations so far that were not of zero bytes: a steady step makes none.
    [[nodiscard]] virtual std::int64_t allocations() const = 0;

    /// Copies; host memory may be reused when the call returns. Spans have equal sizes.
    virtual void upload(std::span<const std::byte> from, DeviceSpan<std::byte> to,
                        Stream& stream) = 0;
    /// Waits for `stream` first: the bytes are there when the call returns. Other threads may
    /// download too, each with a stream of its own, while this one is used.
    virtual void download(DeviceSpan<const std::byte> from, std::span<std::byte> to,
                          Stream& stream) = 0;
    /// They do not overlap.
    virtual void copy(DeviceSpan<const std::byte> from, DeviceSpan<std::byte> to,
                      Stream& stream) = 0;
    virtual void zero(DeviceSpan<std::byte> to, Stream& stream) = 0;
    /// Waits until everything given to `stream` is done.
    virtual void synchronize(Stream& stream) = 0;

    /// The address that a communicator may read and write this memory at, once `stream` is
    /// synchronised. For src/sums alone: elsewhere the host does not touch device memory.
    [[nodiscard]] virtual std::byte* wire_address(std::byte* handle) const = 0;

    template <class T>
    void upload(std::span<const T> from, DeviceSpan<T> to, Stream& stream) {
        upload(std::as_bytes(from), cast_span<std::byte>(to), stream);
    }
    template <class T>
    [[nodiscard]] std::vector<T> download(DeviceSpan<const T> from, Stream& stream) {
        std::vector<T> values(static_cast<std::size_t>(from.size()));
        download(cast_span<const std::byte>(from), std::as_writable_bytes(std::span(values)),
                 stream);
        return values;
    }
};

/// Owns `size` elements of device memory.
template <class T>
class DeviceBuffer {
  public:
    DeviceBuffer() = default;
    DeviceBuffer(Memory& memory, std::int64_t size)
        : memory_(&memory),
          span_(reinterpret_cast<T*>(memory.allocate(size * static_cast<std::int64_t>(sizeof(T)))),
                size) {}
    DeviceBuffer(DeviceBuffer&& other) noexcept
        : memory_(std::exchange(other.memory_, nullptr)), span_(std::exchange(other.span_, {})) {}
    DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
        std::swap(memory_, other.memory_);
        std::swap(span_, other.span_);
        return *this;
    }
    DeviceBuffer(const DeviceBuffer&) = delete;
    DeviceBuffer& operator=(const DeviceBuffer&) = delete;
    ~DeviceBuffer() {
        if (memory_ != nullptr && !span_.empty()) {
            memory_->free(reinterpret_cast<std::byte*>(span_.handle()), span_.size_bytes());
        }
    }
    [[nodiscard]] DeviceSpan<T> span() const { return span_; }
    [[nodiscard]] std::int64_t size() const { return span_.size(); }

  private:
    Memory* memory_ = nullptr;
    DeviceSpan<T> span_;
};

/// What scratch memory is taken for: plans tell the two apart.
enum class Use : std::uint8_t { buffer, activation };

/// Scratch memory handed out in a stack's order, so that a step allocates nothing once it has grown
/// to its size.
class Arena {
  public:
    explicit Arena(Memory& memory) : memory_(&memory) {}

    /// `size` elements aligned to 64 bytes, valid until the enclosing Scope ends.
    template <class T>
    [[nodiscard]] DeviceSpan<T> take(std::int64_t size, Use use = Use::buffer) {
        const std::int64_t bytes = size * static_cast<std::int64_t>(sizeof(T));
        return {reinterpret_cast<T*>(take_bytes(bytes, use)), size};
    }

    /// What is taken while a Scope lives is given back when it ends.
    class Scope {
      public:
        explicit Scope(Arena& arena)
            : arena_(&arena),
              block_(arena.block_),
              used_(arena.used_),
              total_(arena.total_),
              activations_(arena.activations_) {}
        Scope(const Scope&) = delete;
        Scope& operator=(const Scope&) = delete;
        ~Scope() { arena_->release(block_, used_, total_, activations_); }

      private:
        Arena* arena_;
        std::size_t block_;
        std::int64_t used_;
        std::int64_t total_;
        std::int64_t activations_;
    };

    /// Holds `bytes` from now on, in one block, until more are taken: it need not grow in pieces,
    /// and what was larger, and what lies beside, is given back.
    /// @throws InternalError while anything is taken.
    void reserve(std::int64_t bytes);

    /// An arena beside this one, of the same memory: for what does not end in a stack's order. It
    /// is made when it is first asked for and lives until reserve(), or as long as this.
    [[nodiscard]] Arena& beside(std::size_t index);
    /// The most that was ever in use in each of those, added up.
    [[nodiscard]] std::int64_t peak_bytes_beside() const;

    /// Most bytes in use at once since reserve() last changed the size, and bytes held from the
    /// device.
    [[nodiscard]] std::int64_t peak_bytes() const { return peak_; }
    [[nodiscard]] std::int64_t capacity_bytes() const;
    /// How much of peak_bytes() was activations.
    [[nodiscard]] std::int64_t activations_at_peak() const { return activations_at_peak_; }

  private:
    std::byte* take_bytes(std::int64_t bytes, Use use);
    void release(std::size_t block, std::int64_t used, std::int64_t total,
                 std::int64_t activations);

    Memory* memory_;
    std::vector<std::unique_ptr<Arena>> beside_;
    std::vector<DeviceBuffer<std::byte>> blocks_;
    std::size_t block_ = 0;         // block in use
    std::int64_t used_ = 0;         // bytes of it handed out
    std::int64_t total_ = 0;        // bytes handed out of all blocks
    std::int64_t activations_ = 0;  // of those
    std::int64_t peak_ = 0;
    std::int64_t activations_at_peak_ = 0;
};

}  // namespace rankwise::kernels
