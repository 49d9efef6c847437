#include <algorithm>
#include <cstring>

#include "kernels/cpu/cpu_device.hpp"
#include "kernels/cpu/matmul_call.hpp"
#include "kernels/cpu/matmul_plan.hpp"

namespace rankwise::kernels::cpu {
namespace {

/// Rows, and rows a task, from which on a matmul is split by rows, not columns: its weights are
/// read from the caches either way.
constexpr std::int64_t kManyRows = 96;
constexpr std::int64_t kRowsOfTask = 48;

/// Runs a block. Rows whose distance is a multiple of 2 KiB fall on so few lines of the first-level
/// cache that the rows of a tile evict each other: a few at a time are first copied to where they
/// do not.
void run_block(const MatmulKernels& kernels, const MatmulBlock& block, std::int64_t x_columns) {
    constexpr std::int64_t kFewRows = 4;
    constexpr std::int64_t kRowsAtATime = 96;
    if (block.x_stride % 512 != 0 || block.rows <= kFewRows) {
        kernels.matmul(block);
        return;
    }
    const std::int64_t stride = round_up(x_columns, kPanel) + kPanel;
    float* rows = matmul_scratch(std::min(block.rows, kRowsAtATime) * stride);
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

/// Rows of bf16 elements of which every run is whole pairs, at a distance that suits the caches.
bool pairs_lie_together(const ConstMatrix& x, std::span<const ElementRun> elements) {
    constexpr std::int64_t kFewRows = 4;
    if (x.rows > 1 && x.stride % 2 != 0) return false;
    if (x.rows > kFewRows && x.stride / 2 % 512 == 0) return false;
    return std::ranges::all_of(
        elements, [](const ElementRun& run) { return run.first % 2 == 0 && run.count % 2 == 0; });
}

/// Keeps some rows of a block (of floats: `terms` alone has an x), or some panels.
void take_rows(Bf16MatmulBlock& block, Range rows) {
    MatmulBlock& terms = block.terms;
    terms.rows = rows.size();
    if (block.x != nullptr) {
        block.x += rows.begin * block.x_stride;
    } else {
        terms.x += rows.begin * terms.x_stride;
    }
    if (terms.y_bf16 != nullptr) {
        terms.y_bf16 += rows.begin * terms.y_stride;
    } else {
        terms.y += rows.begin * terms.y_stride;
    }
}
void take_panels(Bf16MatmulBlock& block, Range panels) {
    MatmulBlock& terms = block.terms;
    const Range columns =
        intersect({panels.begin * kPanel, panels.end * kPanel}, {0, terms.columns});
    terms.columns = columns.size();
    terms.first_panel += panels.begin;
    if (terms.y_bf16 != nullptr) {
        terms.y_bf16 += columns.begin;
    } else {
        terms.y += columns.begin;
    }
    if (terms.bias != nullptr) terms.bias += columns.begin;
}

}  // namespace

void CpuDevice::matmul(const MatmulArgs& args, Stream&) {
    ensure(args.w.spec != nullptr, "matmul: the weight has no spec");
    const PackSpec& spec = *args.w.spec;
    const bool pairs = spec.dtype == DType::bf16;
    const bool resume = args.output == Output::resume;
    require_multiplied("matmul", "the packed weight", spec.dtype);
    require_same("matmul", "x", args.x.dtype, "the packed weight", spec.dtype);
    ensure(args.y.dtype == DType::f32 || (args.y.dtype == spec.dtype && !resume),
           "matmul: y has element type {}, x has {}{}", name_of(args.y.dtype), name_of(spec.dtype),
           resume ? "; an unfinished sum is F32" : "");
    ensure(args.x.rows == args.y.rows && args.y.cols == spec.columns,
           "matmul: x {} x {}, y {} x {}, a weight of {} columns", args.x.rows, args.x.cols,
           args.y.rows, args.y.cols, spec.columns);
    ensure(args.w.data.size() == packed_bytes(spec),
           "matmul: a packed weight of {} bytes; its spec has {}", args.w.data.size(),
           packed_bytes(spec));
    ensure(args.bias.empty() || args.bias.size() == spec.columns,
           "matmul: a bias of {} for {} columns", args.bias.size(), spec.columns);
    ensure(
        !resume || (spec.contraction.leaves.size() == 1 && args.bias.empty()),
        "matmul: Output::resume needs one leaf and no bias; there are {} leaves and a bias of {}",
        spec.contraction.leaves.size(), args.bias.size());
    thread_local std::vector<MatmulRun> runs;
    thread_local std::vector<ElementRun> elements;
    plan_elements(spec, runs, elements);
    for (const ElementRun& run : elements) {
        ensure(run.first >= 0 && run.first + run.count <= args.x.cols,
               "matmul: the contraction reaches column {} of x, which has {}",
               run.first + run.count, args.x.cols);
    }
    if (args.y.rows == 0 || args.y.cols == 0) return;

    const std::int64_t terms = packed_terms(spec.dtype, spec.contraction);
    const std::int64_t panels = ceil_div(spec.columns, kPanel);
    Bf16MatmulBlock whole{.terms = {.w = reinterpret_cast<const float*>(at(args.w.data)),
                                    .depth = terms,
                                    .panels = panels,
                                    .runs = runs.data(),
                                    .run_count = std::ssize(runs),
                                    .y_stride = args.y.stride,
                                    .bias = args.bias.empty() ? nullptr : at(args.bias),
                                    .rows = args.y.rows,
                                    .columns = spec.columns,
                                    .add = args.output == Output::add,
                                    .resume = resume}};
    if (args.y.dtype == DType::bf16) {
        whole.terms.y_bf16 = bf16s(args.y);
    } else {
        whole.terms.y = floats(args.y);
    }
    const Bf16MatmulKernels& bf16 = bf16_matmul_kernels(isa_);
    if (pairs) {
        whole.x = bf16s(args.x);
        whole.x_stride = args.x.stride;
        if (bf16.reads_pairs && pairs_lie_together(args.x, elements)) {
            for (std::size_t r = 0; r < runs.size(); ++r) runs[r].x = elements[r].first / 2;
        } else {
            whole.elements = elements.data();
        }
    } else {
        whole.terms.x = floats(args.x);
        whole.terms.x_stride = args.x.stride;
    }
    const std::int64_t tasks = wanted_tasks(
        args.y.rows * panels * kPanel * std::max<std::int64_t>(terms, 1), team_->threads());
    const TileSplit rows(isa_, args.y.rows);
    const bool by_rows = args.y.rows >= std::max(kManyRows, kRowsOfTask * tasks);
    const std::int64_t parts = std::min(tasks, by_rows ? rows.tiles() : panels);
    team_->run(parts, [&](std::int64_t part) {
        Bf16MatmulBlock block = whole;
        if (by_rows) {
            take_rows(block, rows.rows_of(parts, part));
        } else {
            take_panels(block, split(panels, parts, part));
        }
        if (!pairs) {
            run_block(matmul_kernels(isa_), block.terms, args.x.cols);
            return;
        }
        if (block.elements != nullptr) {
            block.scratch = matmul_scratch(bf16.scratch_words(block.terms.rows, terms));
        }
        bf16.matmul(block);
    });
}

}  // namespace rankwise::kernels::cpu
