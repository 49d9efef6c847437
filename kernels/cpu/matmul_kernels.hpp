// What an instruction set provides for the matmul family. Plain pointers and structs only: see
// isa/lanes.hpp.
#pragma once

#include <cstdint>

namespace rankwise::kernels::cpu {

/// A packed operand is a row of panels; a panel holds kPanel columns of all terms, [term][kPanel],
/// columns beyond the last being zero. The layout is the same for every instruction set.
constexpr int kPanel = 16;

/// Levels of a reduction tree.
constexpr int kMaxLevels = 8;

/// A run of terms whose x lie side by side, and what follows it. Runs of one leaf come one after
/// the other.
struct MatmulRun {
    std::int64_t x = 0;        ///< column of x of the first term
    std::int64_t count = 0;    ///< terms
    bool begins_leaf = false;  ///< the accumulators start from zero
    /// After the last run of a leaf: c = saved[add_levels[i]] + c for i ascending, then
    /// saved[save_level] = c.
    std::int8_t adds = 0;
    std::int8_t add_levels[kMaxLevels] = {};
    std::int8_t save_level = -1;  ///< -1: nothing is saved
};

/// y (rows x columns) from x and some panels of a packed operand. With `resume` the first leaf
/// starts from y, and there is one leaf; with `add` y + (sum + bias) is stored.
struct MatmulBlock {
    const float* x = nullptr;
    std::int64_t x_stride = 0;
    const float* w = nullptr;       ///< the first panel
    std::int64_t panel_stride = 0;  ///< floats from one panel to the next
    const MatmulRun* runs = nullptr;
    std::int64_t run_count = 0;
    float* y = nullptr;
    std::int64_t y_stride = 0;
    const float* bias = nullptr;  ///< null: none
    std::int64_t rows = 0;
    std::int64_t columns = 0;
    bool add = false;
    bool resume = false;
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

/// Tokens whose operands are packed at a time, rows of dw that share a packed x, and columns of dw
/// whose accumulators rest in the scratch between two such times.
constexpr std::int64_t kGradientTokens = 512;
constexpr std::int64_t kGradientRows = 256;
constexpr std::int64_t kGradientColumns = 480;
constexpr std::int64_t kGradientScratch = kGradientTokens * (kGradientRows + 16) +
                                          kGradientTokens * 3 * kPanel +
                                          kGradientRows * kGradientColumns;

struct MatmulKernels {
    void (*matmul)(const MatmulBlock& block);
    /// Packs rows [0, rows) of `from` as columns of one panel: to[k * kPanel + row] = from[row *
    /// stride + k], k < count; rows < kPanel leaves the others zero.
    void (*pack_transposed)(const float* from, std::int64_t stride, std::int64_t rows,
                            std::int64_t count, float* to);
    void (*weight_gradient)(const GradientBlock& block);
    /// db[n] (+)= sum over t ascending of dy[t * stride + n], from zero, for n in [0, columns).
    void (*bias_gradient)(const float* dy, std::int64_t rows, std::int64_t stride, float* db,
                          std::int64_t columns, bool add);
};

namespace avx2 {
const MatmulKernels& matmul_kernels();
}
namespace avx512 {
const MatmulKernels& matmul_kernels();
}

}  // namespace rankwise::kernels::cpu
