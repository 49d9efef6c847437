// y = x W^T on packed panels. Rows in blocks that stay in the second-level cache with one group of
// panels; a group is read once for each tile of rows.
#pragma once

#include "kernels/cpu/isa/bf16.hpp"
#include "kernels/cpu/isa/matmul_tile.hpp"

namespace rankwise::kernels::cpu::RANKWISE_ISA {
namespace {

/// What is brought near while a tile is computed.
enum class Ahead {
    nothing,
    little_later,  ///< what it reads itself
    lines,         ///< other memory, line by line
    bursts         ///< other memory, some lines at a time
};

/// @param rate  bytes from the line of one term to that of the next, or pieces of a burst
template <Ahead kAhead, int P>
RANKWISE_INLINE auto besides(const char* next, std::int64_t rate) {
    if constexpr (kAhead == Ahead::lines) {
        return Lines{next, rate};
    } else if constexpr (kAhead == Ahead::bursts) {
        return Bursts<1>{next, kLine, rate};
    } else if constexpr (kAhead == Ahead::little_later) {
        return LittleLater<P>{};
    } else {
        return Nothing{};
    }
}

/// One tile: all leaves and the tree above them in registers; finished subtrees wait in `saved`.
template <class Term, int R, int P, Ahead kAhead>
void tile(const MatmulBlock& block, std::int64_t row, std::int64_t panel, const char* next,
          std::int64_t rate) {
    alignas(64) float saved[kMaxLevels][R][P * kPanel];
    const std::int64_t columns = block.columns - panel * kPanel;
    const float* a = block.x + row * block.x_stride;
    const PanelPlace place =
        place_of_panel(block.first_panel + panel, block.panels, block.depth, kTogether);
    // A tile of as many panels as lie together at most has all of a group.
    const std::ptrdiff_t step = P == kTogether ? P * kPanel : place.step;
    const std::ptrdiff_t panel_stride = kTogether == 1 ? block.depth * kPanel : kPanel;
    const float* b = block.w + place.begin;
    const std::int64_t at = row * block.y_stride + panel * kPanel;

    auto fetching = besides<kAhead, P>(next, rate);
    Tile<R, P> c;
    clear<R, P>(c);
    if (block.resume) load_tile<R, P>(c, block.y + at, block.y_stride, columns);
    for (std::int64_t r = 0; r < block.run_count; ++r) {
        const MatmulRun& run = block.runs[r];
        if (run.begins_leaf && r > 0) clear<R, P>(c);
        accumulate<Term, R, P>(c, a + run.x * Term::kWords, block.x_stride, Term::kWords, b,
                               panel_stride, step, run.count, fetching);
        b += run.count * step;
        for (int n = 0; n < run.adds; ++n) {
            const auto& left = saved[run.add_levels[n]];
            RANKWISE_UNROLL for (int i = 0; i < R; ++i) {
                RANKWISE_UNROLL for (int u = 0; u < P * kUnits; ++u) {
                    c[i][u] = add(load(&left[i][u * kWidth]), c[i][u]);
                }
            }
        }
        if (run.save_level >= 0) {
            auto& to = saved[run.save_level];
            RANKWISE_UNROLL for (int i = 0; i < R; ++i) {
                RANKWISE_UNROLL for (int u = 0; u < P * kUnits; ++u) {
                    store(&to[i][u * kWidth], c[i][u]);
                }
            }
        }
    }
    if (block.bias != nullptr) {
        RANKWISE_UNROLL for (int u = 0; u < P * kUnits; ++u) {
            const Vec bias =
                load(block.bias + panel * kPanel + u * kWidth, first_lanes(columns - u * kWidth));
            RANKWISE_UNROLL for (int i = 0; i < R; ++i) c[i][u] = add(c[i][u], bias);
        }
    }
    if constexpr (Term::kBf16) {
        if (block.y_bf16 != nullptr) {
            store_tile<R, P>(c, block.y_bf16 + at, block.y_stride, columns, block.add);
            return;
        }
    }
    if (block.add) add_tile<R, P>(c, block.y + at, block.y_stride, columns);
    store_tile<R, P>(c, block.y + at, block.y_stride, columns);
}

using TileFunction = void (*)(const MatmulBlock&, std::int64_t row, std::int64_t panel,
                              const char* next, std::int64_t rate);

/// Tiles by panels - 1 and rows - 1.
template <class Term, Ahead kAhead>
constexpr TileFunction kTiles[4][kTileRows] = {
#ifdef __AVX512F__
    {tile<Term, 1, 1, kAhead>, tile<Term, 2, 1, kAhead>, tile<Term, 3, 1, kAhead>,
     tile<Term, 4, 1, kAhead>, tile<Term, 5, 1, kAhead>, tile<Term, 6, 1, kAhead>,
     tile<Term, 7, 1, kAhead>, tile<Term, 8, 1, kAhead>},
    {tile<Term, 1, 2, kAhead>, tile<Term, 2, 2, kAhead>, tile<Term, 3, 2, kAhead>,
     tile<Term, 4, 2, kAhead>, tile<Term, 5, 2, kAhead>, tile<Term, 6, 2, kAhead>,
     tile<Term, 7, 2, kAhead>, tile<Term, 8, 2, kAhead>},
    {tile<Term, 1, 3, kAhead>, tile<Term, 2, 3, kAhead>, tile<Term, 3, 3, kAhead>,
     tile<Term, 4, 3, kAhead>, tile<Term, 5, 3, kAhead>, tile<Term, 6, 3, kAhead>,
     tile<Term, 7, 3, kAhead>, tile<Term, 8, 3, kAhead>}
#else
    {tile<Term, 1, 1, kAhead>, tile<Term, 2, 1, kAhead>, tile<Term, 3, 1, kAhead>,
     tile<Term, 4, 1, kAhead>, tile<Term, 5, 1, kAhead>, tile<Term, 6, 1, kAhead>},
    {tile<Term, 1, 2, kAhead>, tile<Term, 2, 2, kAhead>, tile<Term, 3, 2, kAhead>},
    {tile<Term, 1, 3, kAhead>, tile<Term, 2, 3, kAhead>},
    {tile<Term, 1, 4, kAhead>}
#endif
};

/// How many of `left` panels from `panel` on of `panels` a tile takes, for blocks of `rows` rows:
/// those that lie together; or, where each lies by itself, more of them the fewer the rows.
std::int64_t group_panels(std::int64_t rows, std::int64_t panel, std::int64_t panels,
                          std::int64_t left) {
    const PanelGroup group = group_of_panel(panel, panels, kTogether);
    std::int64_t most = group.first + group.width - panel;
    if constexpr (kTogether == 1) {
        most = rows == 1 ? 4 : rows == 2 ? 3 : rows == 3 ? 2 : 1;
        if (left == most + 1 && most > 2) most -= 1;  // no lone panel is left over
    }
    return left < most ? left : most;
}

/// Rows of x that stay in the second-level cache, about a quarter MiB of them.
std::int64_t block_rows(std::int64_t words) {
    const std::int64_t tiles = 65536 / (words + 1) / kTileRows;
    return kTileRows * (tiles < 4 ? 4 : tiles > 24 ? 24 : tiles);
}

std::int64_t ceil_div(std::int64_t a, std::int64_t b) {
    return (a + b - 1) / b;
}

/// The first row of a block: they are of about as many whole tiles each.
std::int64_t begin_of_block(std::int64_t rows, std::int64_t blocks, std::int64_t index) {
    const std::int64_t begin = ceil_div(rows, kTileRows) * index / blocks * kTileRows;
    return begin < rows ? begin : rows;
}

/// How the caches are filled while tiles of rows go through a group of panels.
struct Filling {
    const TileFunction (*functions)[kTileRows];
    const char* next = nullptr;  ///< of the first tile
    std::int64_t rate = 0;
    std::int64_t a_tile = 0;  ///< bytes from one tile's to the next one's
};

/// With the group of panels that comes next (from panel `next` on; -1: none), which is read once
/// for all tiles; where one tile reads panels that lie together, with what it reads a little later.
template <class Term>
Filling filling(const MatmulBlock& block, std::int64_t tiles, std::int64_t width,
                std::int64_t next) {
    if constexpr (kTermIsLong) {
        if (tiles == 1) return {kTiles<Term, Ahead::little_later>};
    }
    if (next < 0) return {kTiles<Term, Ahead::nothing>};
    const PanelPlace place = place_of_panel(next, block.panels, block.depth, kTogether);
    const char* begin = reinterpret_cast<const char*>(block.w + place.begin);
    if constexpr (kTermIsLong) {
        if (tiles >= width) {
            const std::int64_t step = ceil_div(width * kLine, tiles);
            return {kTiles<Term, Ahead::lines>, begin, step, step * block.depth};
        }
    }
    const std::int64_t pieces = ceil_div(width * kBurstTerms, tiles);
    return {kTiles<Term, Ahead::bursts>, begin, pieces,
            pieces * (block.depth / kBurstTerms) * kLine};
}

/// All columns of rows [first, first + rows).
template <class Term>
void row_block(const MatmulBlock& block, std::int64_t first, std::int64_t rows) {
    const std::int64_t panels = ceil_div(block.columns, kPanel);
    const std::int64_t tiles = ceil_div(rows, kTileRows);
    // Fewer rows read their panels as fast as they come.
    constexpr std::int64_t kFewRows = 3;
    constexpr std::int64_t kNear = std::int64_t{1} << 15;  // words that the caches hold anyway
    const bool ahead = rows > kFewRows && panels * block.depth * kPanel > kNear;
    for (std::int64_t panel = 0; panel < panels;) {
        const std::int64_t width =
            group_panels(rows, block.first_panel + panel, block.panels, panels - panel);
        const std::int64_t next = panel + width;
        const Filling fill = ahead ? filling<Term>(block, tiles, width,
                                                   next < panels ? block.first_panel + next : -1)
                                   : Filling{kTiles<Term, Ahead::nothing>};
        for (std::int64_t t = 0; t < tiles; ++t) {
            const std::int64_t begin = rows * t / tiles;
            const std::int64_t end = rows * (t + 1) / tiles;
            fill.functions[width - 1][end - begin - 1](block, first + begin, panel,
                                                       fill.next + t * fill.a_tile, fill.rate);
        }
        panel = next;
    }
}

}  // namespace
}  // namespace rankwise::kernels::cpu::RANKWISE_ISA
