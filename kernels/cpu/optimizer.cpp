#include <array>
#include <bit>
#include <mutex>

#include "kernels/cpu/checks.hpp"
#include "kernels/cpu/cpu_device.hpp"
#include "kernels/cpu/isa_choice.hpp"
#include "kernels/cpu/optimizer_kernels.hpp"
#include "kernels/cpu/row_split.hpp"

namespace rankwise::kernels::cpu {
namespace {

const OptimizerKernels& kernels_of(Isa isa) {
    return has_avx512(isa) ? avx512::optimizer_kernels() : avx2::optimizer_kernels();
}

void ensure_pieces(const char* op, std::span<const Range> pieces, std::int64_t columns) {
    for (Range piece : pieces) {
        ensure(piece.empty() || (piece.begin >= 0 && piece.end <= columns),
               "{}: a piece of columns {} to {} of {}", op, piece.begin, piece.end, columns);
    }
}

}  // namespace

void CpuDevice::adamw(const AdamwArgs& args, Stream& /*stream*/) {
    const std::int64_t size = args.parameter.size();
    ensure_size("adamw", "grad", args.grad.size(), size);
    ensure_size("adamw", "m", args.m.size(), size);
    ensure_size("adamw", "v", args.v.size(), size);
    const AdamwStep step{.lr = args.lr,
                         .rest1 = static_cast<float>(1.0 - args.beta1),
                         .beta2 = static_cast<float>(args.beta2),
                         .rest2 = static_cast<float>(1.0 - args.beta2),
                         .eps = args.eps,
                         .weight_decay = args.weight_decay,
                         .correction1 = args.correction1,
                         .correction2 = args.correction2,
                         .grad_scale = args.grad_scale};
    const OptimizerKernels& kernels = kernels_of(isa_);
    float* parameter = at(args.parameter);
    const float* grad = at(args.grad);
    float* m = at(args.m);
    float* v = at(args.v);
    constexpr std::int64_t kBlock = 1024;
    for_row_ranges(*team_, ceil_div(size, kBlock), 4 * kBlock, [&](Range blocks) {
        const std::int64_t begin = blocks.begin * kBlock;
        const std::int64_t end = std::min(size, blocks.end * kBlock);
        kernels.adamw(step, parameter + begin, grad + begin, m + begin, v + begin, end - begin);
    });
}

void CpuDevice::squared_row_sums(const SquaredRowSumsArgs& args, Stream& /*stream*/) {
    const std::int64_t rows = args.x.rows;
    const auto pieces = static_cast<std::int64_t>(args.pieces.size());
    ensure_matrix("squared_row_sums", "x", args.x, rows, args.x.cols);
    ensure_pieces("squared_row_sums", args.pieces, args.x.cols);
    ensure_size("squared_row_sums", "sums", static_cast<std::int64_t>(args.sums.size()),
                rows * pieces);
    const OptimizerKernels& kernels = kernels_of(isa_);
    const float* x = floats(args.x);
    for_row_ranges(*team_, rows, args.x.cols, [&](Range range) {
        for (std::int64_t r = range.begin; r < range.end; ++r) {
            for (std::int64_t p = 0; p < pieces; ++p) {
                const Range piece = args.pieces[static_cast<std::size_t>(p)];
                args.sums[static_cast<std::size_t>(r * pieces + p)] =
                    piece.empty()
                        ? 0.0
                        : kernels.squared_sum(x + r * args.x.stride + piece.begin, piece.size());
            }
        }
    });
}

UInt128 CpuDevice::digest(const DigestArgs& args, Stream& /*stream*/) {
    static_assert(std::endian::native == std::endian::little);
    const std::int64_t rows = args.x.rows;
    const std::int64_t element = size_of(args.x.dtype);
    ensure_pieces("digest", args.pieces, args.x.cols);
    const std::byte* bytes = at(args.x.handle);
    const std::uint64_t name = xxh3_128(args.name.data(), args.name.size()).low;
    UInt128 total;
    std::mutex mutex;
    for_row_ranges(*team_, rows, args.x.cols, [&](Range range) {
        UInt128 part;
        for (std::int64_t r = range.begin; r < range.end; ++r) {
            for (Range piece : args.pieces) {
                if (piece.empty()) continue;
                const std::array<std::int64_t, 2> place{args.first_row + r,
                                                        args.first_column + piece.begin};
                const std::uint64_t seed = xxh3_128(place.data(), sizeof place, name).low;
                part += xxh3_128(bytes + (r * args.x.stride + piece.begin) * element,
                                 static_cast<std::uint64_t>(piece.size() * element), seed);
            }
        }
        const std::lock_guard lock(mutex);
        total += part;
    });
    return total;
}

}  // namespace rankwise::kernels::cpu
