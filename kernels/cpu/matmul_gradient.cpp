#include <algorithm>
#include <array>

#include "kernels/cpu/cpu_device.hpp"
#include "kernels/cpu/matmul_call.hpp"

namespace rankwise::kernels::cpu {

void CpuDevice::weight_gradient(const WeightGradientArgs& args, Stream&) {
    require_multiplied("weight_gradient", "dy", args.dy.dtype);
    require_same("weight_gradient", "x", args.x.dtype, "dy", args.dy.dtype);
    ensure(args.dw.dtype == DType::f32, "weight_gradient: dw has element type {}, not F32",
           name_of(args.dw.dtype));
    ensure(
        args.dy.rows == args.x.rows && args.dw.rows == args.dy.cols && args.dw.cols == args.x.cols,
        "weight_gradient: dy {} x {}, x {} x {}, dw {} x {}", args.dy.rows, args.dy.cols,
        args.x.rows, args.x.cols, args.dw.rows, args.dw.cols);
    const std::int64_t tokens = args.dy.rows;
    const std::int64_t outputs = args.dw.rows;
    const std::array<std::int64_t, 2> one_segment{0, tokens};
    const std::span<const std::int64_t> borders =
        args.segments.empty() ? std::span<const std::int64_t>(one_segment) : args.segments;
    ensure(borders.size() >= 2 && borders.front() == 0 && borders.back() == tokens &&
               std::ranges::is_sorted(borders),
           "weight_gradient: borders of segments do not ascend from 0 to {}", tokens);
    if (outputs == 0 || args.dw.cols == 0) return;
    if (tokens == 0) {  // nothing to add; a sum without terms is zero
        for (std::int64_t n = 0; args.output == Output::store && n < outputs; ++n) {
            std::fill_n(floats(args.dw) + n * args.dw.stride, args.dw.cols, 0.0F);
        }
        return;
    }
    GradientBlock whole{.dy_stride = args.dy.stride,
                        .x_stride = args.x.stride,
                        .dw = floats(args.dw),
                        .dw_stride = args.dw.stride,
                        .tokens = tokens,
                        .n = outputs,
                        .k = args.dw.cols,
                        .add = args.output == Output::add,
                        .resume = args.output == Output::resume};
    const bool pairs = args.dy.dtype == DType::bf16;
    if (!pairs) {
        whole.dy = floats(args.dy);
        whole.x = floats(args.x);
    }
    // Rows of dw in blocks of at most kGradientRows, as many blocks for each thread.
    const TileSplit split(isa_, outputs);
    const std::int64_t share =
        wanted_tasks(tokens * outputs * args.dw.cols, team_->threads()) > 1 ? team_->threads() : 1;
    const std::int64_t parts = std::min(
        split.tiles(), round_up(ceil_div(split.tiles(), kGradientRows / split.tile_rows), share));
    team_->run(parts, [&](std::int64_t part) {
        const Range rows = split.rows_of(parts, part);
        GradientBlock block = whole;
        block.dw += rows.begin * whole.dw_stride;
        block.n = rows.size();
        block.scratch = matmul_scratch(kGradientScratch);
        if (pairs) {
            bf16_matmul_kernels(isa_).weight_gradient({.sums = block,
                                                       .dy = bf16s(args.dy) + rows.begin,
                                                       .x = bf16s(args.x),
                                                       .borders = borders.data()});
        } else {
            block.dy += rows.begin;
            matmul_kernels(isa_).weight_gradient(block);
        }
    });
}

void CpuDevice::bias_gradient(const BiasGradientArgs& args, Stream&) {
    require_multiplied("bias_gradient", "dy", args.dy.dtype);
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
    team_->run(parts, [&](std::int64_t part) {
        const Range share = split(groups, parts, part);
        const Range range = intersect({share.begin * 64, share.end * 64}, {0, columns});
        float* db = at(args.db) + range.begin;
        if (args.dy.dtype == DType::bf16) {
            bf16_pack_kernels(isa_).bias_gradient(bf16s(args.dy) + range.begin, args.dy.rows,
                                                  args.dy.stride, db, range.size(), add);
        } else {
            matmul_kernels(isa_).bias_gradient(floats(args.dy) + range.begin, args.dy.rows,
                                               args.dy.stride, db, range.size(), add);
        }
    });
}

}  // namespace rankwise::kernels::cpu
