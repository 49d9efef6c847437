#include <cstring>

#include "kernels/cpu/checks.hpp"
#include "kernels/cpu/cpu_device.hpp"
#include "kernels/cpu/elementwise_kernels.hpp"
#include "kernels/cpu/isa_choice.hpp"
#include "kernels/cpu/row_lists.hpp"
#include "kernels/cpu/row_split.hpp"

namespace rankwise::kernels::cpu {
namespace {

const ElementwiseKernels& kernels_of(Isa isa) {
    return has_avx512(isa) ? avx512::elementwise_kernels() : avx2::elementwise_kernels();
}

}  // namespace

void CpuDevice::swiglu(const SwigluArgs& args, Stream& /*stream*/) {
    const std::int64_t rows = args.out.rows;
    const std::int64_t size = args.out.cols;
    ensure_matrix("swiglu", "gate_up", args.gate_up, rows, 2 * size);
    ensure_matrix("swiglu", "out", args.out, rows, size);
    const ElementwiseKernels& kernels = kernels_of(isa_);
    const float* gate_up = floats(args.gate_up);
    float* out = floats(args.out);
    for_row_ranges(*team_, rows, 6 * size, [&](Range range) {
        for (std::int64_t t = range.begin; t < range.end; ++t) {
            const float* gate = gate_up + t * args.gate_up.stride;
            kernels.swiglu(gate, gate + size, out + t * args.out.stride, size);
        }
    });
}

void CpuDevice::swiglu_backward(const SwigluBackwardArgs& args, Stream& /*stream*/) {
    const std::int64_t rows = args.dout.rows;
    const std::int64_t size = args.dout.cols;
    ensure_matrix("swiglu_backward", "gate_up", args.gate_up, rows, 2 * size);
    ensure_matrix("swiglu_backward", "dout", args.dout, rows, size);
    ensure_matrix("swiglu_backward", "dgate_up", args.dgate_up, rows, 2 * size);
    const ElementwiseKernels& kernels = kernels_of(isa_);
    const float* gate_up = floats(args.gate_up);
    const float* dout = floats(args.dout);
    float* dgate_up = floats(args.dgate_up);
    for_row_ranges(*team_, rows, 8 * size, [&](Range range) {
        for (std::int64_t t = range.begin; t < range.end; ++t) {
            const float* gate = gate_up + t * args.gate_up.stride;
            float* dgate = dgate_up + t * args.dgate_up.stride;
            kernels.swiglu_backward(gate, gate + size, dout + t * args.dout.stride, dgate,
                                    dgate + size, size);
        }
    });
}

void CpuDevice::add(const AddArgs& args, Stream& /*stream*/) {
    const std::int64_t rows = args.to.rows;
    ensure_matrix("add", "to", args.to, rows, args.to.cols);
    ensure_matrix("add", "from", args.from, rows, args.to.cols);
    const ElementwiseKernels& kernels = kernels_of(isa_);
    const float* from = floats(args.from);
    float* to = floats(args.to);
    for_row_ranges(*team_, rows, 2 * args.to.cols, [&](Range range) {
        for (std::int64_t t = range.begin; t < range.end; ++t) {
            kernels.add(from + t * args.from.stride, to + t * args.to.stride, args.to.cols);
        }
    });
}

void CpuDevice::gather_rows(const GatherRowsArgs& args, Stream& /*stream*/) {
    const std::int64_t rows = args.to.rows;
    const std::int64_t cols = args.to.cols;
    ensure_matrix("gather_rows", "to", args.to, rows, cols);
    ensure_matrix("gather_rows", "from", args.from, args.from.rows, cols);
    ensure_size("gather_rows", "rows", static_cast<std::int64_t>(args.rows.size()), rows);
    for (std::int64_t row : args.rows) {
        ensure(row >= 0 && row < args.from.rows, "gather_rows: row {} of {}", row, args.from.rows);
    }
    const float* from = floats(args.from);
    float* to = floats(args.to);
    for_row_ranges(*team_, rows, 2 * cols, [&](Range range) {
        for (std::int64_t i = range.begin; i < range.end; ++i) {
            std::memcpy(to + i * args.to.stride,
                        from + args.rows[static_cast<std::size_t>(i)] * args.from.stride,
                        static_cast<std::size_t>(cols) * sizeof(float));
        }
    });
}

void CpuDevice::scatter_rows(const ScatterRowsArgs& args, Stream& /*stream*/) {
    const std::int64_t rows = args.to.rows;
    const std::int64_t cols = args.to.cols;
    ensure_matrix("scatter_rows", "to", args.to, rows, cols);
    ensure_matrix("scatter_rows", "from", args.from, args.from.rows, cols);
    ensure_size("scatter_rows", "rows", static_cast<std::int64_t>(args.rows.size()),
                args.from.rows);
    for (std::int64_t row : args.rows) {
        ensure(row >= 0 && row < rows, "scatter_rows: row {} of {}", row, rows);
    }
    static thread_local RowLists lists;
    RowLists& sources = lists;
    sources.build(args.from.rows, rows,
                  [&](std::int64_t i) { return args.rows[static_cast<std::size_t>(i)]; });
    const ElementwiseKernels& kernels = kernels_of(isa_);
    const float* from = floats(args.from);
    float* to = floats(args.to);
    for_row_ranges(*team_, rows, 2 * cols, [&](Range range) {
        for (std::int64_t r = range.begin; r < range.end; ++r) {
            const auto list = sources.at(r);
            kernels.sum_rows(from, args.from.stride, list.data(),
                             static_cast<std::int64_t>(list.size()), cols, false,
                             to + r * args.to.stride);
        }
    });
}

}  // namespace rankwise::kernels::cpu
