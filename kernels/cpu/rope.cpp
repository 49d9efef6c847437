#include <type_traits>

#include "kernels/cpu/checks.hpp"
#include "kernels/cpu/cpu_device.hpp"
#include "kernels/cpu/isa_choice.hpp"
#include "kernels/cpu/rope_kernels.hpp"
#include "kernels/cpu/row_split.hpp"

namespace rankwise::kernels::cpu {

void CpuDevice::rope(const RopeArgs& args, Stream& /*stream*/) {
    const std::int64_t rows = args.x.rows;
    ensure(args.heads > 0 && args.head_dim > 0 && args.head_dim % 2 == 0,
           "rope: {} heads of {}: expected heads of an even size", args.heads, args.head_dim);
    const std::int64_t half = args.head_dim / 2;
    ensure_matrix("rope", "x", args.x, rows, args.heads * args.head_dim, args.x.dtype);
    ensure_size("rope", "positions", static_cast<std::int64_t>(args.positions.size()), rows);
    ensure(args.cosine.size() % half == 0, "rope: a table of {} cosines for heads of {}",
           args.cosine.size(), args.head_dim);
    ensure_size("rope", "sine", args.sine.size(), args.cosine.size());
    const std::int64_t limit = args.cosine.size() / half;
    for (std::int32_t position : args.positions) {
        ensure(position >= 0 && position < limit, "rope: position {} of a table of {}", position,
               limit);
    }
    ensure(args.pairs == RopePairs::halves || args.x.dtype == DType::f32,
           "rope: x is {}; adjacent pairs are rotated in F32", name_of(args.x.dtype));
    const float* cosine = at(args.cosine);
    const float* sine = at(args.sine);
    with_elements(args.x.dtype, [&]<class Element>(Element /*element*/) {
        constexpr std::int64_t kRowsAhead = 2;
        const RopeKernels<Element>& kernels =
            has_avx512(isa_) ? avx512::rope_kernels<Element>() : avx2::rope_kernels<Element>();
        auto* x = elements<Element>(args.x);
        for_row_ranges(*team_, rows, args.x.cols, [&](Range range) {
            for (std::int64_t t = range.begin; t < range.end; ++t) {
                const std::int64_t position = args.positions[static_cast<std::size_t>(t)];
                Element* const row = x + t * args.x.stride;
                if constexpr (std::is_same_v<Element, float>) {
                    if (args.pairs == RopePairs::adjacent) {
                        kernels.rotate_adjacent(row, args.heads, args.head_dim,
                                                cosine + position * half, sine + position * half,
                                                args.inverse);
                        continue;
                    }
                }
                kernels.rotate(row, args.heads, args.head_dim, cosine + position * half,
                               sine + position * half, args.inverse, kRowsAhead * args.x.stride);
            }
        });
    });
}

}  // namespace rankwise::kernels::cpu
