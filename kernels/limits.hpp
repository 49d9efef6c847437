// What a device can do at most: arithmetic that touches no memory, and memory that is only read.
// The measures that shares of a limit are taken of; nothing is computed with them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/stream.hpp"
#include "src/base/device_span.hpp"

namespace rankwise::kernels {

/// Arithmetic that has a peak of its own.
enum class Arithmetic : std::uint8_t {
    fp32,  ///< fused multiply-adds
    bf16,  ///< products of bf16 pairs, summed in fp32
};

class LimitOps {
  public:
    virtual ~LimitOps() = default;
    /// `rounds` rounds of independent multiply-adds on registers, on every thread of the device.
    /// @return floating-point operations done (a multiply-add counts two); 0 if the device has no
    /// such instruction.
    [[nodiscard]] virtual std::int64_t spin(Arithmetic kind, std::int64_t rounds,
                                            Stream& stream) = 0;
    /// Ways in which read() can walk through memory.
    [[nodiscard]] virtual int read_patterns() const = 0;
    /// Reads `from` once, shared out over the threads, in one of the patterns from 0 on. @return a
    /// sum of all of it, alone here in no fixed order.
    [[nodiscard]] virtual float read(DeviceSpan<const float> from, int pattern, Stream& stream) = 0;
};

}  // namespace rankwise::kernels
