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

/// dy of a tile: of one term after the other, `step` floats apart.
struct TileRows {
    const float* dy;
    std::int64_t step;
    const float* next;  ///< the next tile's, which lie alike
};

/// x of a tile, in panels: from a panel to the next, and from a term to the next.
struct TileColumns {
    const float* x;
    std::int64_t panel;
    std::int64_t step;
};

/// Some of the next group's columns: a line with each term, `step` bytes apart; or pieces in bursts
/// (Bursts), each a row's.
struct NextColumns {
    const char* next;
    std::ptrdiff_t step;
    std::int64_t pieces;
};

/// Where a tile's accumulators come from (null: zero) and go to.
struct Accumulators {
    const float* from;
    std::int64_t from_stride;
    float* to;
    std::int64_t to_stride;
    bool add;
};

struct TileWork {
    TileRows rows;
    TileColumns columns_of_x;
    std::int64_t terms;
    std::int64_t columns;
    Accumulators accumulators;
    NextColumns ahead;
};

/// The next rows of dy and columns of x, a line of each with a term.
struct NextLines {
    Lines rows;
    Lines columns;

    void with_term(const float* b) {
        rows.with_term(b);
        columns.with_term(b);
    }
};

template <int kColumnLines>
RANKWISE_INLINE auto besides(const TileWork& work) {
    if constexpr (kTermIsLong) {
        constexpr std::int64_t kBytes = sizeof(float);
        return NextLines{{reinterpret_cast<const char*>(work.rows.next), work.rows.step * kBytes},
                         {work.ahead.next, work.ahead.step}};
    } else {
        return Bursts<kColumnLines>{work.ahead.next, work.ahead.step, work.ahead.pieces};
    }
}

template <class Term, int R, int P, int kColumnLines>
void tile(const TileWork& work) {
    const Accumulators& sums = work.accumulators;
    auto fetching = besides<kColumnLines>(work);
    Tile<R, P> c;
    clear<R, P>(c);
    if (sums.from != nullptr) load_tile<R, P>(c, sums.from, sums.from_stride, work.columns);
    accumulate<Term, R, P>(c, work.rows.dy, 1, work.rows.step, work.columns_of_x.x,
                           work.columns_of_x.panel, work.columns_of_x.step, work.terms, fetching);
    if (sums.add) add_tile<R, P>(c, sums.to, sums.to_stride, work.columns);
    store_tile<R, P>(c, sums.to, sums.to_stride, work.columns);
}

using TileFunction = void (*)(const TileWork& work);
/// The most lines of a row that the columns of x of some panels lie in.
template <class Operands>
constexpr int column_lines(int panels) {
    return (panels * kPanel * Operands::kBytes + kLine - 1) / kLine + 1;
}
/// Tiles by panels - 1 and rows - 1.
template <class Operands, int R, int P>
constexpr TileFunction kTile = tile<typename Operands::Term, R, P, column_lines<Operands>(P)>;
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

/// Packed dy of the tile of rows from n on, and from `next` on.
RANKWISE_INLINE TileRows packed_rows(const Slice& slice, std::int64_t n, std::int64_t next,
                                     const float* packed_dy) {
    const std::int64_t pitch = dy_pitch(slice.terms);
    return {packed_dy + n / kTileRows * pitch, kTileRows, packed_dy + next / kTileRows * pitch};
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

/// What the tiles of a group of `panels` panels bring near of the next group.
template <class Operands>
class NextGroup {
  public:
    /// @param rows  of dw  @param first  the next group's first column, if there `is` one
    NextGroup(const Operands& operands, const Slice& slice, std::int64_t rows, int panels, bool is,
              std::int64_t first)
        : from_(reinterpret_cast<const char*>(operands.x + slice.first * operands.x_stride +
                                              (is ? first : 0))),
          row_(operands.x_stride * Operands::kBytes),
          tokens_(slice.tokens),
          bursts_(slice.terms / kBurstTerms),
          tiles_((rows + kTileRows - 1) / kTileRows),
          lines_(is ? column_lines<Operands>(panels) : 0) {}

    /// Lines with terms: the last tiles take one line each, of every row or, where a term has two,
    /// of every second. In bursts: so many rows a tile, until all are there.
    [[nodiscard]] NextColumns of_tile(std::int64_t tile) const {
        if constexpr (kTermIsLong) {
            const std::int64_t index = tiles_ - 1 - tile;
            if (index >= lines_ * Operands::kTokensATerm) return {from_, 0, 0};
            return {from_ + index / lines_ * row_ + index % lines_ * kLine,
                    row_ * Operands::kTokensATerm, 0};
        }
        const std::int64_t pieces = tokens_ / (bursts_ * tiles_ + 1) + 1;
        const std::int64_t before = tile * pieces * bursts_;
        return {from_ + before * row_, row_, lines_ == 0 || before >= tokens_ ? 0 : pieces};
    }

  private:
    const char* from_;
    std::ptrdiff_t row_;  ///< bytes from a token's to the next one's
    std::int64_t tokens_;
    std::int64_t bursts_;  ///< of a tile
    std::int64_t tiles_;
    std::int64_t lines_;  ///< of a row
};

/// Columns [first, first + columns) of the block, all tokens. Operands know their elements and how
/// they are packed: x in panels of [term][kPanel]; dy for each tile of kTileRows rows of dw,
/// [term][kTileRows], tiles dy_pitch apart; or not at all.
template <class Operands>
void column_range(const GradientBlock& block, const Operands& operands, std::int64_t first,
                  std::int64_t columns) {
    float* packed_dy = block.scratch;
    float* packed_x = packed_dy + kGradientTokens * (kGradientRows + 16);
    float* rest = packed_x + kGradientTokens * 3 * kPanel;
    for (Slice slice; slice.first + slice.tokens < block.tokens;) {
        operands.advance(slice, block.tokens);
        const bool from_zero = slice.first == 0 && !block.resume;
        const bool finished = slice.first + slice.tokens == block.tokens;
        operands.pack_dy(slice, block.n, packed_dy);
        for (std::int64_t k = 0, width = 0; k < columns; k += width) {
            width = group_columns(columns - k);
            const int panels = static_cast<int>((width + kPanel - 1) / kPanel);
            TileWork work{.columns_of_x = operands.columns_of_x(slice, first + k, width, packed_x),
                          .terms = slice.terms,
                          .columns = width};
            const NextGroup<Operands> next_group(operands, slice, block.n, panels,
                                                 k + width < columns, first + k + width);
            for (std::int64_t n = 0; n < block.n; n += kTileRows) {
                float* dw = block.dw + n * block.dw_stride + first + k;
                float* resting = rest + n * kGradientColumns + k;
                // A sum that is to be added once finished must not touch dw before.
                work.accumulators =
                    block.add
                        ? Accumulators{from_zero ? nullptr : resting, kGradientColumns,
                                       finished ? dw : resting,
                                       finished ? block.dw_stride : kGradientColumns, finished}
                        : Accumulators{from_zero ? nullptr : dw, block.dw_stride, dw,
                                       block.dw_stride, false};
                // The next tile's accumulators come from the caches while this one is computed.
                if (n + 2 * kTileRows <= block.n) {
                    const Accumulators& sums = work.accumulators;
                    if (sums.from != nullptr) {
                        prefetch_tile(sums.from + kTileRows * sums.from_stride, sums.from_stride,
                                      panels);
                    }
                    if (sums.from != sums.to) {
                        prefetch_tile(sums.to + kTileRows * sums.to_stride, sums.to_stride, panels);
                    }
                }
                const std::int64_t next = n + kTileRows < block.n ? n + kTileRows : 0;
                work.rows = operands.rows_of_dy(slice, n, next, packed_dy);
                work.ahead = next_group.of_tile(n / kTileRows);
                kTiles<Operands>[panels - 1][smaller(kTileRows, block.n - n) - 1](work);
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
