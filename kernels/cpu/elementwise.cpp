#include <algorithm>
#include <cstring>

#include "kernels/cpu/checks.hpp"
#include "kernels/cpu/cpu_device.hpp"
#include "kernels/cpu/elementwise_kernels.hpp"
#include "kernels/cpu/isa_choice.hpp"
#include "kernels/cpu/row_lists.hpp"
#include "kernels/cpu/row_split.hpp"

namespace rankwise::kernels::cpu {
namespace {

template <class Element>
const ElementwiseKernels<Element>& kernels_of(Isa isa) {
    return has_avx512(isa) ? avx512::elementwise_kernels<Element>()
                           : avx2::elementwise_kernels<Element>();
}

}  // namespace

void CpuDevice::swiglu(const SwigluArgs& args, Stream& /*stream*/) {
    const std::int64_t rows = args.out.rows;
    const std::int64_t size = args.out.cols;
    const DType type = args.out.dtype;
    ensure_matrix("swiglu", "gate_up", args.gate_up, rows, 2 * size, type);
    ensure_matrix("swiglu", "out", args.out, rows, size, type);
    with_elements(type, [&]<class Element>(Element /*element*/) {
        const ElementwiseKernels<Element>& kernels = kernels_of<Element>(isa_);
        const auto* gate_up = elements<Element>(args.gate_up);
        auto* out = elements<Element>(args.out);
        for_row_ranges(*team_, rows, 6 * size, [&](Range range) {
            for (std::int64_t t = range.begin; t < range.end; ++t) {
                const Element* gate = gate_up + t * args.gate_up.stride;
                kernels.swiglu(gate, gate + size, out + t * args.out.stride, size);
            }
        });
    });
}

void CpuDevice::swiglu_backward(const SwigluBackwardArgs& args, Stream& /*stream*/) {
    const std::int64_t rows = args.dout.rows;
    const std::int64_t size = args.dout.cols;
    const DType type = args.dout.dtype;
    ensure_matrix("swiglu_backward", "gate_up", args.gate_up, rows, 2 * size, type);
    ensure_matrix("swiglu_backward", "dout", args.dout, rows, size, type);
    ensure_matrix("swiglu_backward", "dgate_up", args.dgate_up, rows, 2 * size, type);
    with_elements(type, [&]<class Element>(Element /*element*/) {
        const ElementwiseKernels<Element>& kernels = kernels_of<Element>(isa_);
        const auto* gate_up = elements<Element>(args.gate_up);
        const auto* dout = elements<Element>(args.dout);
        auto* dgate_up = elements<Element>(args.dgate_up);
        for_row_ranges(*team_, rows, 8 * size, [&](Range range) {
            for (std::int64_t t = range.begin; t < range.end; ++t) {
                const Element* gate = gate_up + t * args.gate_up.stride;
                Element* dgate = dgate_up + t * args.dgate_up.stride;
                kernels.swiglu_backward(gate, gate + size, dout + t * args.dout.stride, dgate,
                                        dgate + size, size, args.gate_up.stride);
            }
        });
    });
}

void CpuDevice::add(const AddArgs& args, Stream& /*stream*/) {
    const std::int64_t rows = args.to.rows;
    const std::int64_t cols = args.to.cols;
    const bool round = args.from.dtype == DType::f32 && args.to.dtype == DType::bf16;
    ensure_matrix("add", "to", args.to, rows, cols, args.to.dtype);
    ensure_matrix("add", "from", args.from, rows, cols, round ? DType::f32 : args.to.dtype);
    with_elements(args.to.dtype, [&]<class Element>(Element /*element*/) {
        const ElementwiseKernels<Element>& kernels = kernels_of<Element>(isa_);
        auto* to = elements<Element>(args.to);
        for_row_ranges(*team_, rows, 2 * cols, [&](Range range) {
            for (std::int64_t t = range.begin; t < range.end; ++t) {
                const std::int64_t from = t * args.from.stride;
                if (round) {
                    kernels.add_rounded(floats(args.from) + from, to + t * args.to.stride, cols);
                } else {
                    kernels.add(elements<Element>(args.from) + from, to + t * args.to.stride, cols);
                }
            }
        });
    });
}

void CpuDevice::add_in_order(const AddInOrderArgs& args, Stream& /*stream*/) {
    const std::int64_t count = args.to.size();
    for (const DeviceSpan<const float> from : args.from) {
        ensure(from.size() == count, "add_in_order: {} elements to add to {}", from.size(), count);
    }
    // A piece of `to` stays in the nearest cache until all is added to it.
    constexpr std::int64_t kPiece = 2048;
    const ElementwiseKernels<float>& kernels = kernels_of<float>(isa_);
    float* to = at(args.to);
    for_row_ranges(*team_, ceil_div(count, kPiece), (std::ssize(args.from) + 2) * kPiece,
                   [&](Range pieces) {
                       for (std::int64_t piece = pieces.begin; piece < pieces.end; ++piece) {
                           const std::int64_t begin = piece * kPiece;
                           const std::int64_t size = std::min(kPiece, count - begin);
                           for (const DeviceSpan<const float> from : args.from)
                               kernels.add(at(from) + begin, to + begin, size);
                       }
                   });
}

void CpuDevice::round(const RoundArgs& args, Stream& /*stream*/) {
    const std::int64_t rows = args.to.rows;
    const std::int64_t cols = args.to.cols;
    ensure_matrix("round", "to", args.to, rows, cols, args.to.dtype);
    ensure_matrix("round", "from", args.from, rows, cols);
    with_elements(args.to.dtype, [&]<class Element>(Element /*element*/) {
        const ElementwiseKernels<Element>& kernels = kernels_of<Element>(isa_);
        const float* from = floats(args.from);
        auto* to = elements<Element>(args.to);
        for_row_ranges(*team_, rows, 2 * cols, [&](Range range) {
            for (std::int64_t t = range.begin; t < range.end; ++t) {
                kernels.round(from + t * args.from.stride, to + t * args.to.stride, cols);
            }
        });
    });
}

void CpuDevice::fill(const FillArgs& args, Stream& /*stream*/) {
    ensure_matrix("fill", "to", args.to, args.to.rows, args.to.cols);
    float* to = floats(args.to);
    for_row_ranges(*team_, args.to.rows, args.to.cols, [&](Range range) {
        for (std::int64_t t = range.begin; t < range.end; ++t)
            std::fill_n(to + t * args.to.stride, args.to.cols, args.value);
    });
}

void CpuDevice::gather_rows(const GatherRowsArgs& args, Stream& /*stream*/) {
    const std::int64_t rows = args.to.rows;
    const std::int64_t cols = args.to.cols;
    ensure_matrix("gather_rows", "to", args.to, rows, cols, args.to.dtype);
    ensure_matrix("gather_rows", "from", args.from, args.from.rows, cols, args.to.dtype);
    ensure_size("gather_rows", "rows", static_cast<std::int64_t>(args.rows.size()), rows);
    for (std::int64_t row : args.rows) {
        ensure(row >= 0 && row < args.from.rows, "gather_rows: row {} of {}", row, args.from.rows);
    }
    const std::int64_t bytes = size_of(args.to.dtype);
    const std::byte* from = at(args.from.handle);
    std::byte* to = at(args.to.handle);
    for_row_ranges(*team_, rows, 2 * cols, [&](Range range) {
        for (std::int64_t i = range.begin; i < range.end; ++i) {
            const std::int64_t row = args.rows[static_cast<std::size_t>(i)];
            std::memcpy(to + i * args.to.stride * bytes, from + row * args.from.stride * bytes,
                        static_cast<std::size_t>(cols * bytes));
        }
    });
}

void CpuDevice::scatter_rows(const ScatterRowsArgs& args, Stream& /*stream*/) {
    const std::int64_t rows = args.to.rows;
    const std::int64_t cols = args.to.cols;
    ensure_matrix("scatter_rows", "to", args.to, rows, cols, args.to.dtype);
    ensure_matrix("scatter_rows", "from", args.from, args.from.rows, cols, args.to.dtype);
    ensure_size("scatter_rows", "rows", static_cast<std::int64_t>(args.rows.size()),
                args.from.rows);
    for (std::int64_t row : args.rows) {
        ensure(row >= 0 && row < rows, "scatter_rows: row {} of {}", row, rows);
    }
    static thread_local RowLists lists;
    RowLists& sources = lists;
    sources.build(args.from.rows, rows,
                  [&](std::int64_t i) { return args.rows[static_cast<std::size_t>(i)]; });
    with_elements(args.to.dtype, [&]<class Element>(Element /*element*/) {
        const ElementwiseKernels<Element>& kernels = kernels_of<Element>(isa_);
        const auto* from = elements<Element>(args.from);
        auto* to = elements<Element>(args.to);
        for_row_ranges(*team_, rows, 2 * cols, [&](Range range) {
            for (std::int64_t r = range.begin; r < range.end; ++r) {
                const auto list = sources.at(r);
                kernels.sum_rows(from, args.from.stride, list.data(),
                                 static_cast<std::int64_t>(list.size()), cols, false,
                                 to + r * args.to.stride);
            }
        });
    });
}

}  // namespace rankwise::kernels::cpu
