#include <algorithm>
#include <cstring>

#include "kernels/cpu/checks.hpp"
#include "kernels/cpu/cpu_device.hpp"
#include "kernels/cpu/elementwise_kernels.hpp"
#include "kernels/cpu/isa_choice.hpp"
#include "kernels/cpu/row_lists.hpp"
#include "kernels/cpu/row_split.hpp"

namespace rankwise::kernels::cpu {

void CpuDevice::embed(const EmbedArgs& args, Stream& /*stream*/) {
    const std::int64_t rows = args.out.rows;
    const std::int64_t hidden = args.out.cols;
    const bool round = args.table.dtype == DType::f32 && args.out.dtype == DType::bf16;
    ensure_matrix("embed", "out", args.out, rows, hidden, args.out.dtype);
    ensure_matrix("embed", "table", args.table, args.table.rows, hidden,
                  round ? DType::f32 : args.out.dtype);
    ensure_size("embed", "ids", static_cast<std::int64_t>(args.ids.size()), rows);
    for (std::int32_t id : args.ids) {
        ensure(id >= 0 && id < args.table.rows, "embed: id {} of a vocabulary of {}", id,
               args.table.rows);
    }
    const std::int64_t bytes = size_of(args.out.dtype);
    const auto round_row = has_avx512(isa_) ? avx512::elementwise_kernels<std::uint16_t>().round
                                            : avx2::elementwise_kernels<std::uint16_t>().round;
    for_row_ranges(*team_, rows, 2 * hidden, [&](Range range) {
        for (std::int64_t t = range.begin; t < range.end; ++t) {
            const std::int64_t id = args.ids[static_cast<std::size_t>(t)];
            if (round) {
                round_row(floats(args.table) + id * args.table.stride,
                          bf16s(args.out) + t * args.out.stride, hidden);
            } else {
                std::memcpy(at(args.out.handle) + t * args.out.stride * bytes,
                            at(args.table.handle) + id * args.table.stride * bytes,
                            static_cast<std::size_t>(hidden * bytes));
            }
        }
    });
}

void CpuDevice::embed_gradient(const EmbedGradientArgs& args, Stream& /*stream*/) {
    const std::int64_t tokens = args.dout.rows;
    const std::int64_t hidden = args.dout.cols;
    const auto distinct = static_cast<std::int64_t>(args.unique.size());
    ensure_matrix("embed_gradient", "dout", args.dout, tokens, hidden, args.dout.dtype);
    ensure_matrix("embed_gradient", "drows", args.drows, distinct, hidden);
    ensure_size("embed_gradient", "ids", static_cast<std::int64_t>(args.ids.size()), tokens);
    ensure(
        std::ranges::adjacent_find(args.unique, std::ranges::greater_equal()) == args.unique.end(),
        "embed_gradient: the distinct ids do not ascend");
    const auto place = [&](std::int64_t t) {
        const std::int32_t id = args.ids[static_cast<std::size_t>(t)];
        const auto found = std::ranges::lower_bound(args.unique, id);
        ensure(found != args.unique.end() && *found == id,
               "embed_gradient: id {} of row {} is not among the {} distinct ids", id, t, distinct);
        return found - args.unique.begin();
    };
    static thread_local RowLists lists;
    RowLists& rows_of = lists;
    rows_of.build(tokens, distinct, place);
    float* drows = floats(args.drows);
    // Ids differ much in how often they occur: pieces of columns share a frequent one.
    constexpr std::int64_t kPiece = 64;
    const std::int64_t pieces = ceil_div(hidden, kPiece);
    const std::int64_t cost = distinct == 0 ? 0 : ceil_div(tokens, distinct) * kPiece;
    with_elements(args.dout.dtype, [&]<class Element>(Element /*element*/) {
        const ElementwiseKernels<Element>& kernels = has_avx512(isa_)
                                                         ? avx512::elementwise_kernels<Element>()
                                                         : avx2::elementwise_kernels<Element>();
        const auto* dout = elements<Element>(args.dout);
        for_row_ranges(*team_, distinct * pieces, cost, [&](Range range) {
            for (std::int64_t task = range.begin; task < range.end; ++task) {
                const std::int64_t u = task % distinct;
                const std::int64_t column = task / distinct * kPiece;
                const auto list = rows_of.at(u);
                kernels.total_rows(dout + column, args.dout.stride, list.data(),
                                   static_cast<std::int64_t>(list.size()),
                                   std::min(kPiece, hidden - column),
                                   drows + u * args.drows.stride + column);
            }
        });
    });
}

}  // namespace rankwise::kernels::cpu
