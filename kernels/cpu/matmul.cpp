#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "kernels/cpu/cpu_device.hpp"
#include "kernels/cpu/matmul_kernels.hpp"
#include "kernels/cpu/matmul_plan.hpp"

namespace rankwise::kernels::cpu {
namespace {

const MatmulKernels& kernels_of(Isa isa) {
    return isa == Isa::avx512 ? avx512::matmul_kernels() : avx2::matmul_kernels();
}

void require_f32(const char* op, const char* name, DType dtype) {
    ensure(dtype == DType::f32, "{}: {} has element type {}; the CPU device multiplies F32 only",
           op, name, rankwise::name_of(dtype));
}

/// Memory of this thread for `floats` floats, aligned to 64 bytes: kept and grown, so that a step
/// allocates nothing.
float* thread_scratch(std::int64_t floats) {
    struct Free {
        void operator()(float* memory) const { std::free(memory); }
    };
    thread_local std::unique_ptr<float[], Free> memory;
    thread_local std::int64_t size = 0;
    if (floats > size) {
        const std::int64_t bytes = round_up(floats * std::int64_t{sizeof(float)}, 4096);
        memory.reset();
        size = 0;
        memory.reset(
            static_cast<float*>(std::aligned_alloc(4096, static_cast<std::size_t>(bytes))));
        if (!memory)
            throw EnvironmentError(fmt::format("out of memory: {} bytes of scratch", bytes));
        size = bytes / std::int64_t{sizeof(float)};
    }
    return memory.get();
}

/// Multiply-adds that take about as long as waking another thread.
constexpr std::int64_t kWorthSharing = 200'000;
/// Multiply-adds from which on a loop has more tasks than threads, so that a thread that is held up
/// costs less.
constexpr std::int64_t kWorthBalancing = 20'000'000;

/// Into how many tasks an op of `work` multiply-adds is split, if it can be.
std::int64_t wanted_tasks(std::int64_t work, int threads) {
    if (threads == 1 || work < kWorthSharing) return 1;
    return std::int64_t{threads} * (work < kWorthBalancing ? 1 : 3);
}

/// Rows from which on a matmul is split by rows, not columns: its weights are read from the caches
/// either way.
constexpr std::int64_t kManyRows = 96;
constexpr std::int64_t kRowMultiple = 24;  // of every instruction set's tiles

/// Runs a block. Rows whose distance is a multiple of 2 KiB fall on so few lines of the first-level
/// cache that the rows of a tile evict each other: a few at a time are first copied to where they
/// do not.
void run_block(const MatmulKernels& kernels, const MatmulBlock& block, std::int64_t x_columns) {
    constexpr std::int64_t kFewRows = 4;
    constexpr std::int64_t kRowsAtATime = 4 * kRowMultiple;
    if (block.x_stride % 512 != 0 || block.rows <= kFewRows) {
        kernels.matmul(block);
        return;
    }
    const std::int64_t stride = round_up(x_columns, kPanel) + kPanel;
    float* rows = thread_scratch(std::min(block.rows, kRowsAtATime) * stride);
    MatmulBlock part = block;
    part.x = rows;
    part.x_stride = stride;
    for (std::int64_t first = 0; first < block.rows; first += kRowsAtATime) {
        part.rows = std::min(kRowsAtATime, block.rows - first);
        for (std::int64_t i = 0; i < part.rows; ++i) {
            std::memcpy(rows + i * stride, block.x + (first + i) * block.x_stride,
                        static_cast<std::size_t>(x_columns) * sizeof(float));
        }
        part.y = block.y + first * block.y_stride;
        kernels.matmul(part);
    }
}

struct StackedRow {
    const ConstMatrix* matrix;
    std::int64_t row;
};

/// Row `index` of the matrices stacked.
StackedRow stacked_row(std::span<const ConstMatrix> stacked, std::int64_t index) {
    for (const ConstMatrix& matrix : stacked) {
        if (index < matrix.rows) return {&matrix, index};
        index -= matrix.rows;
    }
    throw InternalError(fmt::format("pack: row {} beyond the stacked matrices", index));
}

/// to = columns `range` of a row that begins at `row`.
void copy_widened(const std::byte* row, DType dtype, Range range, float* to) {
    if (dtype == DType::f32) {
        std::memcpy(to, row + range.begin * 4, static_cast<std::size_t>(range.size()) * 4);
        return;
    }
    const auto* from = reinterpret_cast<const std::uint16_t*>(row) + range.begin;
    for (std::int64_t i = 0; i < range.size(); ++i) to[i] = float_from_bf16(from[i]);
}

}  // namespace

std::int64_t CpuDevice::packed_bytes(const PackSpec& spec) const {
    return ceil_div(spec.columns, kPanel) * kPanel * spec.contraction.size() *
           std::int64_t{sizeof(float)};
}

void CpuDevice::pack(const PackSpec& spec, PackSide side, std::span<const ConstMatrix> stacked,
                     DeviceSpan<std::byte> to, Stream&) {
    require_f32("pack", "the packed operand", spec.dtype);
    std::int64_t stacked_rows = 0;
    for (const ConstMatrix& matrix : stacked) {
        ensure(matrix.dtype == DType::f32 || matrix.dtype == DType::bf16,
               "pack: a matrix has element type {}; F32 and BF16 are packed",
               rankwise::name_of(matrix.dtype));
        ensure(matrix.cols == stacked[0].cols, "pack: matrices of {} and {} columns are stacked",
               stacked[0].cols, matrix.cols);
        stacked_rows += matrix.rows;
    }
    const std::int64_t inputs = stacked.empty() ? 0 : stacked[0].cols;
    const std::int64_t columns = side == PackSide::outputs ? stacked_rows : inputs;
    const std::int64_t indices = side == PackSide::outputs ? inputs : stacked_rows;
    ensure(columns == spec.columns, "pack: the spec has {} columns, the matrices give {}",
           spec.columns, columns);
    ensure(to.size() == packed_bytes(spec), "pack: {} bytes given for a packed weight of {}",
           to.size(), packed_bytes(spec));
    thread_local std::vector<MatmulRun> plan;
    plan_runs(spec.contraction, plan);
    for (const MatmulRun& run : plan) {
        ensure(run.x >= 0 && run.x + run.count <= indices,
               "pack: the contraction reaches index {}, the matrices have {}", run.x + run.count,
               indices);
    }
    if (to.empty()) return;

    const std::span<const MatmulRun> runs = plan;
    const MatmulKernels& kernels = kernels_of(isa_);
    const std::int64_t terms = spec.contraction.size();
    auto* panels = reinterpret_cast<float*>(at(to));
    const auto copy_row = [&](const StackedRow& row, Range range, float* to_row) {
        const ConstMatrix& matrix = *row.matrix;
        copy_widened(at(matrix.handle) + row.row * matrix.stride * size_of(matrix.dtype),
                     matrix.dtype, range, to_row);
    };
    team_->run(ceil_div(columns, kPanel), [&](std::int64_t p) {
        float* panel = panels + p * kPanel * terms;
        const std::int64_t first = p * kPanel;
        const std::int64_t count = std::min<std::int64_t>(kPanel, columns - first);
        if (side == PackSide::outputs) {
            // Rows of one fp32 matrix are transposed where they lie; others are brought together
            // first.
            const StackedRow row = stacked_row(stacked, first);
            const float* from = nullptr;
            std::int64_t stride = row.matrix->stride;
            if (row.matrix->dtype == DType::f32 && row.row + count <= row.matrix->rows) {
                from = floats(*row.matrix) + row.row * stride;
            } else {
                float* rows = thread_scratch(kPanel * inputs);
                for (std::int64_t i = 0; i < count; ++i) {
                    const StackedRow each = stacked_row(stacked, first + i);
                    copy_row(each, {0, inputs}, rows + i * inputs);
                }
                from = rows;
                stride = inputs;
            }
            for (const MatmulRun& run : runs) {
                kernels.pack_transposed(from + run.x, stride, count, run.count, panel);
                panel += run.count * kPanel;
            }
        } else {
            for (const MatmulRun& run : runs) {
                for (std::int64_t k = run.x; k < run.x + run.count; ++k) {
                    const StackedRow row = stacked_row(stacked, k);
                    copy_row(row, {first, first + count}, panel);
                    std::fill(panel + count, panel + kPanel, 0.0F);
                    panel += kPanel;
                }
            }
        }
    });
}

void CpuDevice::matmul(const MatmulArgs& args, Stream&) {
    ensure(args.w.spec != nullptr, "matmul: the weight has no spec");
    const PackSpec& spec = *args.w.spec;
    require_f32("matmul", "x", args.x.dtype);
    require_f32("matmul", "y", args.y.dtype);
    require_f32("matmul", "the packed weight", spec.dtype);
    ensure(args.x.rows == args.y.rows && args.y.cols == spec.columns,
           "matmul: x {} x {}, y {} x {}, a weight of {} columns", args.x.rows, args.x.cols,
           args.y.rows, args.y.cols, spec.columns);
    ensure(args.w.data.size() == packed_bytes(spec),
           "matmul: a packed weight of {} bytes; its spec has {}", args.w.data.size(),
           packed_bytes(spec));
    ensure(args.bias.empty() || args.bias.size() == spec.columns,
           "matmul: a bias of {} for {} columns", args.bias.size(), spec.columns);
    const bool resume = args.output == Output::resume;
    ensure(
        !resume || (spec.contraction.leaves.size() == 1 && args.bias.empty()),
        "matmul: Output::resume needs one leaf and no bias; there are {} leaves and a bias of {}",
        spec.contraction.leaves.size(), args.bias.size());
    thread_local std::vector<MatmulRun> runs;
    plan_runs(spec.contraction, runs);
    for (const MatmulRun& run : runs) {
        ensure(run.x >= 0 && run.x + run.count <= args.x.cols,
               "matmul: the contraction reaches column {} of x, which has {}", run.x + run.count,
               args.x.cols);
    }
    if (args.y.rows == 0 || args.y.cols == 0) return;

    const std::int64_t terms = spec.contraction.size();
    const std::int64_t panels = ceil_div(spec.columns, kPanel);
    MatmulBlock whole{.x = floats(args.x),
                      .x_stride = args.x.stride,
                      .w = reinterpret_cast<const float*>(at(args.w.data)),
                      .panel_stride = terms * kPanel,
                      .runs = runs.data(),
                      .run_count = std::ssize(runs),
                      .y = floats(args.y),
                      .y_stride = args.y.stride,
                      .bias = args.bias.empty() ? nullptr : at(args.bias),
                      .rows = args.y.rows,
                      .columns = spec.columns,
                      .add = args.output == Output::add,
                      .resume = resume};
    const MatmulKernels& kernels = kernels_of(isa_);
    const std::int64_t tasks = wanted_tasks(
        whole.rows * panels * kPanel * std::max<std::int64_t>(terms, 1), team_->threads());
    const std::int64_t row_groups = ceil_div(whole.rows, kRowMultiple);
    const bool by_rows = whole.rows >= kManyRows && row_groups >= 2 * tasks;
    const std::int64_t parts = std::min(tasks, by_rows ? row_groups : panels);
    team_->run(parts, [&](std::int64_t part) {
        MatmulBlock block = whole;
        if (by_rows) {
            const Range groups = split(row_groups, parts, part);
            const Range rows = intersect({groups.begin * kRowMultiple, groups.end * kRowMultiple},
                                         {0, whole.rows});
            block.x += rows.begin * whole.x_stride;
            block.y += rows.begin * whole.y_stride;
            block.rows = rows.size();
        } else {
            const Range share = split(panels, parts, part);
            const Range columns =
                intersect({share.begin * kPanel, share.end * kPanel}, {0, whole.columns});
            block.w += share.begin * whole.panel_stride;
            block.y += columns.begin;
            if (whole.bias != nullptr) block.bias += columns.begin;
            block.columns = columns.size();
        }
        run_block(kernels, block, args.x.cols);
    });
}

void CpuDevice::weight_gradient(const WeightGradientArgs& args, Stream&) {
    require_f32("weight_gradient", "dy", args.dy.dtype);
    require_f32("weight_gradient", "x", args.x.dtype);
    require_f32("weight_gradient", "dw", args.dw.dtype);
    ensure(
        args.dy.rows == args.x.rows && args.dw.rows == args.dy.cols && args.dw.cols == args.x.cols,
        "weight_gradient: dy {} x {}, x {} x {}, dw {} x {}", args.dy.rows, args.dy.cols,
        args.x.rows, args.x.cols, args.dw.rows, args.dw.cols);
    const std::int64_t tokens = args.dy.rows;
    const std::int64_t outputs = args.dw.rows;
    if (outputs == 0 || args.dw.cols == 0) return;
    if (tokens == 0) {  // nothing to add; a sum without terms is zero
        for (std::int64_t n = 0; args.output == Output::store && n < outputs; ++n) {
            std::fill_n(floats(args.dw) + n * args.dw.stride, args.dw.cols, 0.0F);
        }
        return;
    }
    const GradientBlock whole{.dy = floats(args.dy),
                              .dy_stride = args.dy.stride,
                              .x = floats(args.x),
                              .x_stride = args.x.stride,
                              .dw = floats(args.dw),
                              .dw_stride = args.dw.stride,
                              .tokens = tokens,
                              .n = outputs,
                              .k = args.dw.cols,
                              .add = args.output == Output::add,
                              .resume = args.output == Output::resume};
    // Rows of dw in blocks of at most kGradientRows, as many blocks for each thread.
    const std::int64_t row_groups = ceil_div(outputs, kRowMultiple);
    const std::int64_t share =
        wanted_tasks(tokens * outputs * args.dw.cols, team_->threads()) > 1 ? team_->threads() : 1;
    const std::int64_t parts =
        std::min(row_groups, round_up(ceil_div(row_groups, kGradientRows / kRowMultiple), share));
    const MatmulKernels& kernels = kernels_of(isa_);
    team_->run(parts, [&](std::int64_t part) {
        const Range groups = split(row_groups, parts, part);
        const Range rows =
            intersect({groups.begin * kRowMultiple, groups.end * kRowMultiple}, {0, outputs});
        GradientBlock block = whole;
        block.dy += rows.begin;
        block.dw += rows.begin * whole.dw_stride;
        block.n = rows.size();
        block.scratch = thread_scratch(kGradientScratch);
        kernels.weight_gradient(block);
    });
}

void CpuDevice::bias_gradient(const BiasGradientArgs& args, Stream&) {
    require_f32("bias_gradient", "dy", args.dy.dtype);
    ensure(args.db.size() == args.dy.cols, "bias_gradient: dy {} x {}, db {}", args.dy.rows,
           args.dy.cols, args.db.size());
    ensure(args.output != Output::resume, "bias_gradient: Output::resume is not supported");
    if (args.db.empty()) return;
    const std::int64_t columns = args.db.size();
    const bool add = args.output == Output::add;
    if (add && args.dy.rows == 0) return;
    const std::int64_t groups = ceil_div(columns, 64);
    const std::int64_t parts =
        std::min(groups, wanted_tasks(args.dy.rows * columns, team_->threads()));
    const MatmulKernels& kernels = kernels_of(isa_);
    team_->run(parts, [&](std::int64_t part) {
        const Range share = split(groups, parts, part);
        const Range range = intersect({share.begin * 64, share.end * 64}, {0, columns});
        kernels.bias_gradient(floats(args.dy) + range.begin, args.dy.rows, args.dy.stride,
                              at(args.db) + range.begin, range.size(), add);
    });
}

}  // namespace rankwise::kernels::cpu
