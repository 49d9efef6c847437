// Packed copies of matrices, and where what they are made from lies.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <span>
#include <vector>

#include "src/base/parameter_table.hpp"
#include "src/model/context.hpp"

namespace rankwise::model {

/// Which passes packed copies must serve.
enum class Passes : std::uint8_t { forward, forward_and_backward };

/// Gives out memory of the device that lives as long as what is made in it.
using Take = std::function<DeviceSpan<std::byte>(std::int64_t bytes)>;

/// What `make` takes in all, if each piece begins a cache line. What it makes has no memory.
[[nodiscard]] std::int64_t bytes_taken(const std::function<void(const Take&)>& make);
/// Gives out one piece after the other of memory that was counted so.
[[nodiscard]] Take pieces_of(DeviceSpan<std::byte> memory);

/// Rows of a parameter, in order, wherever they lie; of a vector: one row. They must stay where
/// they are while copies are read: vectors are not copied.
using ParameterRows = std::function<std::span<const kernels::ConstMatrix>(ParameterId)>;

/// A packed matrix that can be made anew.
class PackedCopy {
  public:
    PackedCopy() = default;
    /// @param spec  outlives the copy
    PackedCopy(const kernels::Device& device, const kernels::PackSpec& spec, const Take& take)
        : spec_(&spec), data_(take(device.packed_bytes(spec))) {}
    void pack(Compute& compute, kernels::PackSide side,
              std::span<const kernels::ConstMatrix> stacked) {
        compute.device.pack(*spec_, side, stacked, data_, compute.stream);
    }
    [[nodiscard]] kernels::PackedWeight view() const { return {spec_, data_}; }

  private:
    const kernels::PackSpec* spec_ = nullptr;
    DeviceSpan<std::byte> data_;
};

/// The rows of some parameters, one below the other.
[[nodiscard]] std::vector<kernels::ConstMatrix> stacked(const ParameterRows& rows,
                                                        std::initializer_list<ParameterId> ids);
/// Rows [range) of one parameter.
[[nodiscard]] std::vector<kernels::ConstMatrix> rows_within(const ParameterRows& rows,
                                                            ParameterId id, Range range);
/// A vector where it lies; nothing for id -1.
[[nodiscard]] DeviceSpan<const float> vector_of(const ParameterRows& rows, ParameterId id);

}  // namespace rankwise::model
