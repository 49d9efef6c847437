// Gradients of weights: sums over tokens, ascending, whatever the operands are made of.
#pragma once

#include "kernels/cpu/isa/matmul_tile.hpp"

namespace rankwise::kernels::cpu::RANKWISE_ISA {
namespace {

/// Floats from one tile of packed dy to the next: stores of eight reach past the end of a tile of
/// six.
RANKWISE_INLINE std::int64_t dy_pitch(std::int64_t terms) {
    return terms * kTileRows + 8;
}

/// Tokens whose operands are packed at a time: kGradientTokens terms at most.
struct Slice {
    std::int64_t first = 0;
    std::int64_t tokens = 0;
    std::int64_t terms = 0;
    std::int64_t segment = 0;  ///< of the first token
};

/// Where a tile's accumulators come from (null: zero) and go to.
struct Accumulators {
    const float* from;
    std::int64_t from_stride;
    float* to;
    std::int64_t to_stride;
    bool add;
};

/// dy of a tile: of one term after the other, `step` floats apart.
struct TileRows {
    const float* dy;
    std::int64_t step;
    Prefetch ahead;  ///< a line a term of the next tile's
};

/// x of a tile, in panels: from a panel to the next, and from a term to the next.
struct TileColumns {
    const float* x;
    std::int64_t panel;
    std::int64_t step;
};

/// Those of packed dy.
RANKWISE_INLINE TileRows packed_rows(const Slice& slice, std::int64_t n, const float* packed_dy) {
    return {packed_dy + n / kTileRows * dy_pitch(slice.terms), kTileRows, {}};
}

template <class Term, int R, int P, int Lines>
void tile(TileRows rows, TileColumns x, std::int64_t terms, std::int64_t columns,
          const Accumulators& accumulators, Prefetch prefetch) {
    Tile<R, P> c;
    clear<R, P>(c);
    if (accumulators.from != nullptr) {
        load_tile<R, P>(c, accumulators.from, accumulators.from_stride, columns);
    }
    accumulate<Term, R, P>(c, rows.dy, 1, rows.step, x.x, x.panel, x.step, terms,
                           prefetch.pieces + rows.ahead.pieces != 0, [&]() {
                               fetch<Lines>(prefetch);
                               fetch<1>(rows.ahead);
                           });
    if (accumulators.add) add_tile<R, P>(c, accumulators.to, accumulators.to_stride, columns);
    store_tile<R, P>(c, accumulators.to, accumulators.to_stride, columns);
}

using TileFunction = void (*)(TileRows rows, TileColumns x, std::int64_t terms,
                              std::int64_t columns, const Accumulators& accumulators,
                              Prefetch prefetch);
/// Tiles by panels - 1 and rows - 1. The columns of x that are prefetched for each of P panels lie
/// in so many lines.
template <class Operands, int P>
constexpr int kLines = (P * kPanel * Operands::kBytes + kLine - 1) / kLine + 1;
template <class Operands, int R, int P>
constexpr TileFunction kTile = tile<typename Operands::Term, R, P, kLines<Operands, P>>;
template <class Operands>
constexpr TileFunction kTiles[kTilePanels][kTileRows] = {
#ifdef __AVX512F__
    {kTile<Operands, 1, 1>, kTile<Operands, 2, 1>, kTile<Operands, 3, 1>, kTile<Operands, 4, 1>,
     kTile<Operands, 5, 1>, kTile<Operands, 6, 1>, kTile<Operands, 7, 1>, kTile<Operands, 8, 1>},
    {kTile<Operands, 1, 2>, kTile<Operands, 2, 2>, kTile<Operands, 3, 2>, kTile<Operands, 4, 2>,
     kTile<Operands, 5, 2>, kTile<Operands, 6, 2>, kTile<Operands, 7, 2>, kTile<Operands, 8, 2>},
    {kTile<Operands, 1, 3>, kTile<Operands, 2, 3>, kTile<Operands, 3, 3>, kTile<Operands, 4, 3>,
     kTile<Operands, 5, 3>, kTile<Operands, 6, 3>, kTile<Operands, 7, 3>, kTile<Operands, 8, 3>}
#else
    {kTile<Operands, 1, 1>, kTile<Operands, 2, 1>, kTile<Operands, 3, 1>, kTile<Operands, 4, 1>,
     kTile<Operands, 5, 1>, kTile<Operands, 6, 1>}
#endif
};

/// Brings the lines of a tile of `panels` panels near, for reading and writing.
RANKWISE_INLINE void prefetch_tile(const float* tile, std::int64_t stride, int panels) {
    for (int i = 0; i < kTileRows; ++i) {
        for (int p = 0; p < panels; ++p) {
            _mm_prefetch(reinterpret_cast<const char*>(tile + i * stride + p * kPanel),
                         _MM_HINT_T0);
        }
    }
}

/// Rows of dy that are brought near before they are packed: as many as the time takes in which one
/// comes from memory.
constexpr std::int64_t kRowsAhead = 16;

RANKWISE_INLINE void prefetch_piece(const char* from, std::int64_t bytes) {
    for (std::int64_t i = 0; i < bytes; i += kLine) _mm_prefetch(from + i, _MM_HINT_T0);
}

std::int64_t smaller(std::int64_t a, std::int64_t b) {
    return a < b ? a : b;
}

/// Columns that tiles take at a time, of `left`: panels as packed operands keep them together.
RANKWISE_INLINE std::int64_t group_columns(std::int64_t left) {
    const std::int64_t panels = (left + kPanel - 1) / kPanel;
    return smaller(group_width(panels, kTilePanels) * kPanel, left);
}

/// Columns [first, first + columns) of the block, all tokens. Operands know their elements and how
/// they are packed: x in panels of [term][kPanel]; dy for each tile of kTileRows rows of dw,
/// [term][kTileRows], tiles dy_pitch apart, or not at all.
template <class Operands>
void column_range(const GradientBlock& block, const Operands& operands, std::int64_t first,
                  std::int64_t columns) {
    float* packed_dy = block.scratch;
    float* packed_x = packed_dy + kGradientTokens * (kGradientRows + 16);
    float* rest = packed_x + kGradientTokens * 3 * kPanel;
    constexpr std::ptrdiff_t kBytes = Operands::kBytes;
    for (Slice slice; slice.first + slice.tokens < block.tokens;) {
        operands.advance(slice, block.tokens);
        const std::int64_t terms = slice.terms;
        const bool from_zero = slice.first == 0 && !block.resume;
        const bool finished = slice.first + slice.tokens == block.tokens;
        operands.pack_dy(slice, block.n, packed_dy);
        for (std::int64_t k = 0, width = 0; k < columns; k += width) {
            width = group_columns(columns - k);
            const int panels = static_cast<int>((width + kPanel - 1) / kPanel);
            const TileColumns x = operands.columns_of_x(slice, first + k, width, packed_x);
            // The next group of columns comes nearer meanwhile.
            Prefetch prefetch;
            if (k + width < columns) {
                const std::int64_t slots =
                    (terms / kPrefetchTerms) * ((block.n + kTileRows - 1) / kTileRows);
                prefetch = {reinterpret_cast<const char*>(
                                operands.x + slice.first * operands.x_stride + first + k + width),
                            operands.x_stride * kBytes, slice.tokens / (slots + 1) + 1};
            }
            const std::int64_t each = prefetch.pieces * (terms / kPrefetchTerms);
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
                if (prefetched >= slice.tokens) prefetch.pieces = 0;
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
                const std::int64_t next = n + kTileRows < block.n ? n + kTileRows : 0;
                kTiles<Operands>[panels - 1][smaller(kTileRows, block.n - n) - 1](
                    operands.rows_of_dy(slice, n, next, packed_dy), x, terms, width, accumulators,
                    prefetch);
                prefetch.next += each * prefetch.step;
                prefetched += each;
            }
        }
    }
}

template <class Operands>
void gradient_sums(const GradientBlock& block, const Operands& operands) {
    // As few ranges as can be, of about as many groups of panels each: dy is packed for each.
    constexpr std::int64_t kGroup = kTilePanels * kPanel;
    const std::int64_t groups = (block.k + kGroup - 1) / kGroup;
    const std::int64_t ranges = (block.k + kGradientColumns - 1) / kGradientColumns;
    for (std::int64_t i = 0; i < ranges; ++i) {
        const std::int64_t first = groups * i / ranges * kGroup;
        const std::int64_t end = smaller(groups * (i + 1) / ranges * kGroup, block.k);
        column_range(block, operands, first, end - first);
    }
}

}  // namespace
}  // namespace rankwise::kernels::cpu::RANKWISE_ISA
