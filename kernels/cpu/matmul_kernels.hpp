// What an instruction set provides for the matmul family. Plain pointers and structs only: see
// isa/lanes.hpp.
#pragma once

#include <cstdint>

namespace rankwise::kernels::cpu {

/// A packed operand is a row of panels; a panel holds kPanel columns of all terms, columns beyond
/// the last being zero. A term is a word of four bytes: a float, or a pair of bf16 elements, the
/// first in the low half, the last of an odd range with a zero beside it (N1). As many panels as
/// the instruction set's tiles take at a time lie together, [term][panel][kPanel], the last ones
/// fewer: a tile then reads one piece of memory in order, which comes faster than three. No panel
/// is left over alone where it can be helped, for a tile of one does half as much with what it
/// reads.
constexpr int kPanel = 16;

/// Panels that lie together: [first, first + width).
struct PanelGroup {
    std::int64_t first = 0;
    std::int64_t width = 0;
};
/// The width of a group, where `left` panels are still in none.
constexpr std::int64_t group_width(std::int64_t left, std::int64_t together) {
    const bool leaves_one = together > 2 && left == together + 1;
    return leaves_one ? left / 2 : left < together ? left : together;
}
/// The group of a panel, of `panels` of which at most `together` lie together.
constexpr PanelGroup group_of_panel(std::int64_t panel, std::int64_t panels,
                                    std::int64_t together) {
    std::int64_t first = panel / together * together;
    std::int64_t width = group_width(panels - first, together);
    if (first > 0 && panels - first == 1 && together > 2) {  // its panels come in halves
        first -= together;
        width = group_width(together + 1, together);
    }
    if (panel >= first + width) {
        first += width;
        width = panels - first;
    }
    return {.first = first, .width = width};
}

/// Where a panel of a packed operand begins, and how far it is from one of its terms to the next,
/// in words.
struct PanelPlace {
    std::int64_t begin = 0;
    std::int64_t step = 0;
};
constexpr PanelPlace place_of_panel(std::int64_t panel, std::int64_t panels, std::int64_t depth,
                                    std::int64_t together) {
    const PanelGroup group = group_of_panel(panel, panels, together);
    return {.begin = (group.first * depth + panel - group.first) * kPanel,
            .step = group.width * kPanel};
}

/// Levels of a reduction tree.
constexpr int kMaxLevels = 8;

/// A run of terms whose x lie side by side, and what follows it. Runs of one leaf come one after
/// the other.
struct MatmulRun {
    std::int64_t x = 0;        ///< where x has the first term, in terms
    std::int64_t count = 0;    ///< terms
    bool begins_leaf = false;  ///< the accumulators start from zero
    /// After the last run of a leaf: c = saved[add_levels[i]] + c for i ascending, then
    /// saved[save_level] = c.
    std::int8_t adds = 0;
    std::int8_t add_levels[kMaxLevels] = {};
    std::int8_t save_level = -1;  ///< -1: nothing is saved
};

/// y (rows x columns) from x and the panels of a packed operand from `first_panel` on. With
/// `resume` the first leaf starts from y, and there is one leaf; with `add` y + (sum + bias) is
/// stored.
struct MatmulBlock {
    const float* x = nullptr;  ///< words of terms; widened pairs: see Bf16MatmulKernels
    std::int64_t x_stride = 0;
    const float* w = nullptr;  ///< all of the packed operand
    std::int64_t depth = 0;    ///< terms of its columns
    std::int64_t panels = 0;   ///< of it
    std::int64_t first_panel = 0;
    const MatmulRun* runs = nullptr;
    std::int64_t run_count = 0;
    float* y = nullptr;
    std::uint16_t* y_bf16 = nullptr;  ///< instead of y: results are rounded to bf16
    std::int64_t y_stride = 0;
    const float* bias = nullptr;  ///< null: none
    std::int64_t rows = 0;
    std::int64_t columns = 0;
    bool add = false;
    bool resume = false;
};

/// A run of elements of bf16 rows that begins a pair.
struct ElementRun {
    std::int64_t first = 0;
    std::int64_t count = 0;
};

/// The same of bf16 operands: x of `terms` is null, its rows come from here.
struct Bf16MatmulBlock {
    MatmulBlock terms;
    const std::uint16_t* x = nullptr;
    std::int64_t x_stride = 0;  ///< elements
    /// What the runs of `terms` take from a row, one after the other; null: the pairs of x lie side
    /// by side where the runs say, and are read there.
    const ElementRun* elements = nullptr;
    float* scratch = nullptr;  ///< if `elements` are given: as many words as scratch_words() says
};

/// dw (n x k) = sum over t of dy[t, n] x[t, k]; with `resume` from dw, with `add` the finished sum
/// is added to dw.
struct GradientBlock {
    const float* dy = nullptr;
    std::int64_t dy_stride = 0;
    const float* x = nullptr;
    std::int64_t x_stride = 0;
    float* dw = nullptr;
    std::int64_t dw_stride = 0;
    std::int64_t tokens = 0;
    std::int64_t n = 0;  ///< at most kGradientRows
    std::int64_t k = 0;
    bool add = false;
    bool resume = false;
    float* scratch = nullptr;  ///< kGradientScratch floats, aligned to 64 bytes
};

/// The same of bf16 operands, tokens in pairs inside each segment.
struct Bf16GradientBlock {
    GradientBlock sums;  ///< its dy and x are null; strides are elements
    const std::uint16_t* dy = nullptr;
    const std::uint16_t* x = nullptr;
    const std::int64_t* borders = nullptr;  ///< of the segments: first 0, last sums.tokens
};

/// Tokens whose operands are packed at a time, rows of dw that share a packed x, and columns of dw
/// whose accumulators rest in the scratch between two such times.
constexpr std::int64_t kGradientTokens = 256;
constexpr std::int64_t kGradientRows = 512;
constexpr std::int64_t kGradientColumns = 576;
constexpr std::int64_t kGradientScratch = kGradientTokens * (kGradientRows + 16) +
                                          kGradientTokens * 3 * kPanel +
                                          kGradientRows * kGradientColumns;

struct MatmulKernels {
    void (*matmul)(const MatmulBlock& block);
    std::int64_t panels_together = 1;  ///< of packed operands, those of bf16 too
    std::int64_t tile_rows = 1;        ///< rows of a whole tile, of bf16 too
    /// Packs rows [0, rows) of `from` as columns of one panel: to[k * step + row] = from[row *
    /// stride + k], k < count; rows < kPanel leaves the others zero. `past_caches`: `to` is
    /// aligned to 64 bytes, and whoever calls sees to it that others may read it (a fence).
    void (*pack_transposed)(const float* from, std::int64_t stride, std::int64_t rows,
                            std::int64_t count, float* to, std::int64_t step, bool past_caches);
    void (*weight_gradient)(const GradientBlock& block);
    /// db[n] (+)= sum over t ascending of dy[t * stride + n], from zero, for n in [0, columns).
    void (*bias_gradient)(const float* dy, std::int64_t rows, std::int64_t stride, float* db,
                          std::int64_t columns, bool add);
};

/// bf16 operands. N1: a pair's second product is added before its first. Either by vdpbf16ps, whose
/// words of x are pairs; or, without it, by fused multiply-adds of widened elements: two words of x
/// a term, the second element and then the first.
struct Bf16MatmulKernels {
    bool reads_pairs = false;  ///< rows of x may be read where they lie
    void (*matmul)(const Bf16MatmulBlock& block);
    /// Words of scratch for a block of that many rows and terms.
    std::int64_t (*scratch_words)(std::int64_t rows, std::int64_t terms);
    void (*weight_gradient)(const Bf16GradientBlock& block);
};

/// Elements of bf16 made and moved; the same in every instruction set.
struct Bf16PackKernels {
    /// to[i] = from[i], rounded to nearest even.
    void (*round)(const float* from, std::int64_t count, std::uint16_t* to);
    /// to[i] = the pair of first[i] and second[i] (null: zeros), i < count <= kPanel; zeros up to
    /// kPanel.
    void (*pair)(const std::uint16_t* first, const std::uint16_t* second, std::int64_t count,
                 float* to);
    /// db[n] (+)= sum over t ascending of dy[t * stride + n], from zero, for n in [0, columns).
    void (*bias_gradient)(const std::uint16_t* dy, std::int64_t rows, std::int64_t stride,
                          float* db, std::int64_t columns, bool add);
};

namespace avx2 {
const MatmulKernels& matmul_kernels();
const Bf16MatmulKernels& bf16_matmul_kernels();
const Bf16PackKernels& bf16_pack_kernels();
}  // namespace avx2
namespace avx512 {
const MatmulKernels& matmul_kernels();
const Bf16MatmulKernels& bf16_matmul_kernels();
const Bf16PackKernels& bf16_pack_kernels();
}  // namespace avx512
namespace avx512_bf16 {
const Bf16MatmulKernels& bf16_matmul_kernels();
}

}  // namespace rankwise::kernels::cpu
