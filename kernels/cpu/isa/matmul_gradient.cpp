// Gradients of weights and biases of floats.
#include "kernels/cpu/isa/matmul_gradient.hpp"

#include "kernels/cpu/isa/matmul_family.hpp"

namespace rankwise::kernels::cpu::RANKWISE_ISA {
namespace {

/// Packed dy: for each tile of kTileRows rows of dw, [token][kTileRows]. Tokens one after the
/// other, as dy lies.
void pack_rows_of_dy(const float* dy, std::int64_t stride, std::int64_t tokens, std::int64_t n,
                     float* to) {
    constexpr std::int64_t kLoad = 8;
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const std::int64_t pitch = dy_pitch(tokens);
    for (std::int64_t t = 0; t < tokens; ++t) {
        const float* from = dy + t * stride;
        prefetch_piece(reinterpret_cast<const char*>(from + kRowsAhead * stride),
                       n * std::int64_t{sizeof(float)});
        float* tile = to + t * kTileRows;
        std::int64_t first = 0;
        for (; first + kLoad <= n; first += kTileRows, tile += pitch) {
            _mm256_storeu_ps(tile, _mm256_loadu_ps(from + first));
        }
        for (; first < n; first += kTileRows, tile += pitch) {
            const auto left = static_cast<int>(n - first);
            _mm256_storeu_ps(tile,
                             _mm256_maskload_ps(from + first,
                                                _mm256_cmpgt_epi32(_mm256_set1_epi32(left), lane)));
        }
    }
}

/// Packed x: panels of [token][kPanel] for `columns` columns.
void pack_rows_of_x(const float* x, std::int64_t stride, std::int64_t tokens, std::int64_t columns,
                    float* to) {
    const std::int64_t full = columns / kPanel;
    const std::int64_t rest = columns % kPanel;
    for (std::int64_t t = 0; t < tokens; ++t) {
        const float* from = x + t * stride;
        float* row = to + t * kPanel;
        for (std::int64_t p = 0; p < full; ++p, from += kPanel, row += tokens * kPanel) {
            RANKWISE_UNROLL for (int u = 0; u < kUnits; ++u)
                store(row + u * kWidth, load(from + u * kWidth));
        }
        if (rest == 0) continue;
        RANKWISE_UNROLL for (int u = 0; u < kUnits; ++u) {
            store(row + u * kWidth, load(from + u * kWidth, first_lanes(rest - u * kWidth)));
        }
    }
}

struct FloatOperands {
    using Term = Single;
    static constexpr int kBytes = 4;
    static constexpr int kTokensATerm = 1;
    const float* dy;
    std::int64_t dy_stride;
    const float* x;
    std::int64_t x_stride;

    void advance(Slice& slice, std::int64_t tokens) const {
        slice.first += slice.tokens;
        slice.tokens = smaller(kGradientTokens, tokens - slice.first);
        slice.terms = slice.tokens;
    }
    /// Whether tiles read rows where they lie: those of AVX-512 do, half a line of dy and whole
    /// lines of x a term. One of six rows would read more lines than it has time for, and rows a
    /// multiple of 2 KiB apart fall on few lines of a cache.
    static bool lie_well(std::int64_t stride) {
        return kTileRows == 8 && stride * kBytes % 2048 != 0;
    }
    [[nodiscard]] bool packs_dy() const { return !lie_well(dy_stride); }
    void pack_dy(const Slice& slice, std::int64_t n, float* to) const {
        if (!packs_dy()) return;
        pack_rows_of_dy(dy + slice.first * dy_stride, dy_stride, slice.tokens, n, to);
    }
    /// Rows n … of dw, those of the tile at `next` being brought near meanwhile.
    [[nodiscard]] TileRows rows_of_dy(const Slice& slice, std::int64_t n, std::int64_t next,
                                      const float* packed) const {
        if (packs_dy()) return packed_rows(slice, n, next, packed);
        const float* first = dy + slice.first * dy_stride;
        return {first + n, dy_stride, first + next};
    }
    [[nodiscard]] TileColumns columns_of_x(const Slice& slice, std::int64_t first,
                                           std::int64_t columns, float* to) const {
        const float* from = x + slice.first * x_stride + first;
        if (lie_well(x_stride) && columns % kPanel == 0) return {from, kPanel, x_stride};
        pack_rows_of_x(from, x_stride, slice.tokens, columns, to);
        return {to, slice.terms * kPanel, kPanel};
    }
};

}  // namespace

void weight_gradient(const GradientBlock& block) {
    gradient_sums(block, FloatOperands{block.dy, block.dy_stride, block.x, block.x_stride});
}

void bias_gradient(const float* dy, std::int64_t rows, std::int64_t stride, float* db,
                   std::int64_t columns, bool adding) {
    constexpr int kRegisters = 4;
    for (std::int64_t first = 0; first < columns; first += kRegisters * kWidth) {
        Mask mask[kRegisters];
        Vec sum[kRegisters];
        for (int u = 0; u < kRegisters; ++u) {
            mask[u] = first_lanes(columns - first - u * kWidth);
            sum[u] = zero();
        }
        for (std::int64_t t = 0; t < rows; ++t) {
            for (int u = 0; u < kRegisters; ++u) {
                sum[u] = add(sum[u], load(dy + t * stride + first + u * kWidth, mask[u]));
            }
        }
        for (int u = 0; u < kRegisters; ++u) {
            float* to = db + first + u * kWidth;
            store(to, adding ? add(load(to, mask[u]), sum[u]) : sum[u], mask[u]);
        }
    }
}

}  // namespace rankwise::kernels::cpu::RANKWISE_ISA
