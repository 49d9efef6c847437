// Runs the attention ops of a device on host values.
#pragma once

#include "tests/support/devices.hpp"
#include "tests/support/reference_attention.hpp"

namespace rankwise::test {

/// A prompt over a block's edge with samples that are empty, short, and three blocks long; a
/// one-token prompt with a long sample; a chain of turns with an empty one between; a sequence of
/// its own.
inline std::vector<kernels::AttentionSegment> varied_segments() {
    return segments_of({{5, 4},
                        {0, 4},
                        {150, 4},
                        {60, 4},
                        {70, -1},
                        {131, 6},
                        {1, -1},
                        {9, 8},
                        {0, 9},
                        {62, 12},
                        {3, 12},
                        {40, 12},
                        {17, 13},
                        {50, -1},
                        {64, -1}});
}

inline Contraction head_order_of(const AttentionShape& shape) {
    return Contraction::of_leaves(reduction_tree(shape.heads, shape.kv_heads), shape.heads, 1);
}

/// Elements of a type on a device, floats on the host.
inline kernels::DeviceBuffer<std::byte> put_as(const DeviceUnderTest& device, DType dtype,
                                               const std::vector<float>& values) {
    const auto bytes = [&](const auto& elements) {
        const auto all = std::as_bytes(std::span(elements));
        return device.put(std::vector<std::byte>(all.begin(), all.end()));
    };
    return dtype == DType::bf16 ? bytes(to_bf16(values)) : bytes(values);
}
inline std::vector<float> get_as(const DeviceUnderTest& device, DType dtype,
                                 const kernels::DeviceBuffer<std::byte>& buffer) {
    const std::vector<std::byte> bytes = device.get(buffer);
    const auto elements = [&]<class Element>(Element /*element*/) {
        std::vector<Element> all(bytes.size() / sizeof(Element));
        if (!all.empty()) std::memcpy(all.data(), bytes.data(), bytes.size());
        return all;
    };
    return dtype == DType::bf16 ? widened(elements(Bf16{})) : elements(float{});
}

/// A matrix on a device whose rows are `gap` elements farther apart than they are wide, with NaN
/// between.
class GappedMatrix {
  public:
    GappedMatrix(const DeviceUnderTest& device, const std::vector<float>& values, std::int64_t rows,
                 std::int64_t cols, std::int64_t gap, DType dtype)
        : device_(device), dtype_(dtype), rows_(rows), cols_(cols), stride_(cols + gap) {
        std::vector<float> all(static_cast<std::size_t>(rows * stride_), NAN);
        for (std::int64_t r = 0; r < rows && !values.empty(); ++r) {
            std::copy_n(values.begin() + r * cols, cols, all.begin() + r * stride_);
        }
        buffer_ = put_as(device, dtype, all);
    }
    [[nodiscard]] kernels::Matrix matrix() const {
        return {buffer_.span().handle(), dtype_, rows_, cols_, stride_};
    }
    /// The values; fails the test if what lies between the rows has changed.
    [[nodiscard]] std::vector<float> values() const {
        const auto all = get_as(device_, dtype_, buffer_);
        std::vector<float> values;
        for (std::int64_t r = 0; r < rows_; ++r) {
            for (std::int64_t c = 0; c < stride_; ++c) {
                const float x = all[static_cast<std::size_t>(r * stride_ + c)];
                if (c < cols_) {
                    values.push_back(x);
                } else if (!std::isnan(x)) {
                    ADD_FAILURE() << "written behind row " << r;
                }
            }
        }
        return values;
    }

  private:
    const DeviceUnderTest& device_;
    kernels::DeviceBuffer<std::byte> buffer_;
    DType dtype_;
    std::int64_t rows_;
    std::int64_t cols_;
    std::int64_t stride_;
};

inline reference::Attention run_forward(const DeviceUnderTest& device, const AttentionShape& shape,
                                        const AttentionInput<float>& in,
                                        const std::vector<kernels::AttentionSegment>& segments,
                                        std::int64_t gap = 0) {
    const std::int64_t wide = shape.heads * shape.head_dim;
    const std::int64_t narrow = shape.kv_heads * shape.head_dim;
    const GappedMatrix q(device, in.q, in.rows, wide, gap, shape.dtype);
    const GappedMatrix k(device, in.k, in.rows, narrow, gap, shape.dtype);
    const GappedMatrix v(device, in.v, in.rows, shape.kv_heads * shape.value_size(), gap,
                         shape.dtype);
    const GappedMatrix out(device, {}, in.rows, shape.heads * shape.value_size(), gap, shape.dtype);
    const auto maximum = device.make<float>(in.rows * shape.heads);
    const auto denominator = device.make<float>(in.rows * shape.heads);
    device->segment_attention({.q = q.matrix(),
                               .k = k.matrix(),
                               .v = v.matrix(),
                               .heads = shape.heads,
                               .kv_heads = shape.kv_heads,
                               .segments = segments,
                               .scale = shape.scale(),
                               .out = out.matrix(),
                               .maximum = maximum.span(),
                               .denominator = denominator.span()},
                              device.stream());
    return {out.values(), device.get(maximum), device.get(denominator)};
}

/// @param whole_sums  false: dk and dv stay f32, as for sums that go on elsewhere
inline reference::AttentionGradients run_backward(
    const DeviceUnderTest& device, const AttentionShape& shape, const AttentionInput<float>& in,
    const reference::Attention& forward, const std::vector<kernels::AttentionSegment>& segments,
    const Contraction& head_order, std::int64_t gap = 0, bool whole_sums = true) {
    const std::int64_t wide = shape.heads * shape.head_dim;
    const std::int64_t narrow = shape.kv_heads * shape.head_dim;
    const GappedMatrix q(device, in.q, in.rows, wide, gap, shape.dtype);
    const GappedMatrix k(device, in.k, in.rows, narrow, gap, shape.dtype);
    const std::int64_t wide_values = shape.heads * shape.value_size();
    const std::int64_t narrow_values = shape.kv_heads * shape.value_size();
    const GappedMatrix v(device, in.v, in.rows, narrow_values, gap, shape.dtype);
    const GappedMatrix out(device, forward.out, in.rows, wide_values, gap, shape.dtype);
    const GappedMatrix dout(device, in.dout, in.rows, wide_values, gap, shape.dtype);
    const GappedMatrix dq(device, {}, in.rows, wide, gap, shape.dtype);
    const DType sums = whole_sums ? shape.dtype : DType::f32;
    const GappedMatrix dk(device, {}, in.rows, narrow, gap, sums);
    const GappedMatrix dv(device, {}, in.rows, narrow_values, gap, sums);
    const auto maximum = device.put(forward.maximum);
    const auto denominator = device.put(forward.denominator);
    device->segment_attention_backward({.q = q.matrix(),
                                        .k = k.matrix(),
                                        .v = v.matrix(),
                                        .out = out.matrix(),
                                        .dout = dout.matrix(),
                                        .maximum = maximum.span(),
                                        .denominator = denominator.span(),
                                        .heads = shape.heads,
                                        .kv_heads = shape.kv_heads,
                                        .head_order = head_order,
                                        .segments = segments,
                                        .scale = shape.scale(),
                                        .dq = dq.matrix(),
                                        .dk = dk.matrix(),
                                        .dv = dv.matrix()},
                                       device.stream());
    return {dq.values(), dk.values(), dv.values()};
}

}  // namespace rankwise::test
