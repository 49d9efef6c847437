// Gradients of weights and biases: sums over tokens, ascending.
#include "kernels/cpu/isa/matmul_family.hpp"
#include "kernels/cpu/isa/matmul_tile.hpp"

namespace rankwise::kernels::cpu::RANKWISE_ISA {
namespace {

/// Floats from one tile of packed dy to the next: stores of eight reach past the end of a tile of
/// six.
RANKWISE_INLINE std::int64_t dy_pitch(std::int64_t tokens) {
    return tokens * kTileRows + 8;
}

/// Packed dy: for each tile of kTileRows rows of dw, [token][kTileRows]. Tokens one after the
/// other, as dy lies.
void pack_dy(const float* dy, std::int64_t stride, std::int64_t tokens, std::int64_t n, float* to) {
    constexpr std::int64_t kLoad = 8;
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const std::int64_t pitch = dy_pitch(tokens);
    for (std::int64_t t = 0; t < tokens; ++t) {
        const float* from = dy + t * stride;
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
void pack_x(const float* x, std::int64_t stride, std::int64_t tokens, std::int64_t columns,
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

/// Where a tile's accumulators come from (null: zero) and go to.
struct Accumulators {
    const float* from;
    std::int64_t from_stride;
    float* to;
    std::int64_t to_stride;
    bool add;
};

template <int R, int P>
void tile(const float* dy, const float* x, std::int64_t tokens, std::int64_t columns,
          const Accumulators& accumulators, Prefetch prefetch) {
    Tile<R, P> c;
    clear<R, P>(c);
    if (accumulators.from != nullptr) {
        load_tile<R, P>(c, accumulators.from, accumulators.from_stride, columns);
    }
    accumulate<R, P, P + 1>(c, dy, 1, kTileRows, x, tokens * kPanel, tokens, prefetch);
    if (accumulators.add) add_tile<R, P>(c, accumulators.to, accumulators.to_stride, columns);
    store_tile<R, P>(c, accumulators.to, accumulators.to_stride, columns);
}

using TileFunction = void (*)(const float* dy, const float* x, std::int64_t tokens,
                              std::int64_t columns, const Accumulators& accumulators,
                              Prefetch prefetch);
#ifdef __AVX512F__
constexpr TileFunction kTiles[kTilePanels][kTileRows] = {
    {tile<1, 1>, tile<2, 1>, tile<3, 1>, tile<4, 1>, tile<5, 1>, tile<6, 1>, tile<7, 1>,
     tile<8, 1>},
    {tile<1, 2>, tile<2, 2>, tile<3, 2>, tile<4, 2>, tile<5, 2>, tile<6, 2>, tile<7, 2>,
     tile<8, 2>},
    {tile<1, 3>, tile<2, 3>, tile<3, 3>, tile<4, 3>, tile<5, 3>, tile<6, 3>, tile<7, 3>,
     tile<8, 3>}};
#else
constexpr TileFunction kTiles[kTilePanels][kTileRows] = {
    {tile<1, 1>, tile<2, 1>, tile<3, 1>, tile<4, 1>, tile<5, 1>, tile<6, 1>}};
#endif

/// Brings the lines of a tile of `panels` panels near, for reading and writing.
RANKWISE_INLINE void prefetch_tile(const float* tile, std::int64_t stride, int panels) {
    for (int i = 0; i < kTileRows; ++i) {
        for (int p = 0; p < panels; ++p) {
            _mm_prefetch(reinterpret_cast<const char*>(tile + i * stride + p * kPanel),
                         _MM_HINT_T0);
        }
    }
}

std::int64_t smaller(std::int64_t a, std::int64_t b) {
    return a < b ? a : b;
}

/// Columns [first, first + columns) of the block, all tokens.
void column_range(const GradientBlock& block, std::int64_t first, std::int64_t columns) {
    float* packed_dy = block.scratch;
    float* packed_x = packed_dy + kGradientTokens * (kGradientRows + 16);
    float* rest = packed_x + kGradientTokens * 3 * kPanel;
    constexpr std::int64_t kGroup = kTilePanels * kPanel;
    for (std::int64_t t = 0; t < block.tokens; t += kGradientTokens) {
        const std::int64_t tokens = smaller(kGradientTokens, block.tokens - t);
        const bool from_zero = t == 0 && !block.resume;
        const bool finished = t + tokens == block.tokens;
        pack_dy(block.dy + t * block.dy_stride, block.dy_stride, tokens, block.n, packed_dy);
        for (std::int64_t k = 0; k < columns; k += kGroup) {
            const std::int64_t width = smaller(kGroup, columns - k);
            const int panels = static_cast<int>((width + kPanel - 1) / kPanel);
            const float* x = block.x + t * block.x_stride + first + k;
            pack_x(x, block.x_stride, tokens, width, packed_x);
            // The next group of columns comes nearer meanwhile.
            Prefetch prefetch;
            if (k + kGroup < columns) {
                const std::int64_t slots =
                    (tokens / kPrefetchTerms) * ((block.n + kTileRows - 1) / kTileRows);
                prefetch = {x + kGroup, block.x_stride, tokens / (slots + 1) + 1};
            }
            const std::int64_t each = prefetch.pieces * (tokens / kPrefetchTerms);
            std::int64_t prefetched = 0;
            for (std::int64_t n = 0; n < block.n; n += kTileRows) {
                float* dw = block.dw + n * block.dw_stride + first + k;
                float* resting = rest + n * kGradientColumns + k;
                // A sum that is to be added once finished must not touch dw before.
                const Accumulators accumulators =
                    block.add
                        ? Accumulators{from_zero ? nullptr : resting, kGradientColumns,
                                       finished ? dw : resting,
                                       finished ? block.dw_stride : kGradientColumns, finished}
                        : Accumulators{from_zero ? nullptr : dw, block.dw_stride, dw,
                                       block.dw_stride, false};
                if (prefetched >= tokens) prefetch.pieces = 0;
                // The next tile's accumulators come from the caches while this one is computed.
                if (n + 2 * kTileRows <= block.n) {
                    if (accumulators.from != nullptr) {
                        prefetch_tile(accumulators.from + kTileRows * accumulators.from_stride,
                                      accumulators.from_stride, panels);
                    }
                    if (accumulators.from != accumulators.to) {
                        prefetch_tile(accumulators.to + kTileRows * accumulators.to_stride,
                                      accumulators.to_stride, panels);
                    }
                }
                kTiles[panels - 1][smaller(kTileRows, block.n - n) - 1](
                    packed_dy + n / kTileRows * dy_pitch(tokens), packed_x, tokens, width,
                    accumulators, prefetch);
                prefetch.next += each * block.x_stride;
                prefetched += each;
            }
        }
    }
}

}  // namespace

void weight_gradient(const GradientBlock& block) {
    for (std::int64_t k = 0; k < block.k; k += kGradientColumns) {
        column_range(block, k, smaller(kGradientColumns, block.k - k));
    }
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
