// Gradients of weights from bf16 elements: tokens in pairs inside each segment, widened when they
// are packed where there is no product of pairs.
#include "kernels/cpu/isa/bf16.hpp"
#include "kernels/cpu/isa/matmul_family.hpp"
#include "kernels/cpu/isa/matmul_gradient.hpp"

namespace rankwise::kernels::cpu::RANKWISE_ISA {
namespace {

constexpr std::int64_t kTermsOfPair = Pair::kWords;

alignas(16) constexpr unsigned char kFromByte[32] = {
    0,    1,    2,    3,    4,    5,    6,    7,    8,    9,    10,   11,   12,   13,   14,   15,
    0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80};

/// Elements [first, n) of a row of n: fewer than eight, then +0.
RANKWISE_INLINE __m128i load_last(const std::uint16_t* row, std::int64_t first, std::int64_t n) {
    if (n < kEight) return load_eight(row + first, n - first);
    const unsigned char* shift = kFromByte + 2 * (kEight - (n - first));
    return _mm_shuffle_epi8(load_eight(row + n - kEight),
                            _mm_loadu_si128(reinterpret_cast<const __m128i*>(shift)));
}

/// Eight words of a term at `to`, or of two terms.
RANKWISE_INLINE void store_dy(__m128i first, __m128i second, float* to) {
    if constexpr (kTermsOfPair == 1) {
        _mm256_storeu_ps(to, pair_eight(first, second));
    } else {
        _mm256_storeu_ps(to, widen_eight(second));
        _mm256_storeu_ps(to + kTileRows, widen_eight(first));
    }
}
RANKWISE_INLINE void store_x(Elements first, Elements second, float* to) {
    if constexpr (kTermsOfPair == 1) {
        store(to, pair(first, second));
    } else {
        store(to, widen(second));
        store(to + kPanel, widen(first));
    }
}

struct PairOperands {
    using Term = Pair::Packed;
    static constexpr int kBytes = 2;
    static constexpr int kTokensATerm = 2 / kTermsOfPair;
    const std::uint16_t* dy;
    std::int64_t dy_stride;
    const std::uint16_t* x;
    std::int64_t x_stride;
    const std::int64_t* borders;

    void advance(Slice& slice, std::int64_t tokens) const {
        std::int64_t token = slice.first + slice.tokens;
        while (borders[slice.segment + 1] <= token) ++slice.segment;
        slice.first = token;
        slice.terms = 0;
        for (std::int64_t segment = slice.segment; token < tokens; ++segment) {
            const std::int64_t room = (kGradientTokens - slice.terms) / kTermsOfPair * 2;
            if (room == 0) break;
            const std::int64_t taken = smaller(room, borders[segment + 1] - token);
            slice.terms += (taken + 1) / 2 * kTermsOfPair;
            token += taken;
        }
        slice.tokens = token - slice.first;
    }

    /// body(first token, whether there is a second, term) for each pair of the slice.
    template <class Body>
    RANKWISE_INLINE void each_pair(const Slice& slice, const std::int64_t* borders,
                                   const Body& body) {
        std::int64_t term = 0;
        const std::int64_t end = slice.first + slice.tokens;
        std::int64_t token = slice.first;
        for (std::int64_t segment = slice.segment; token < end; ++segment) {
            const std::int64_t stop = smaller(end, borders[segment + 1]);
            for (; token + 2 <= stop; token += 2, term += kTermsOfPair) body(token, true, term);
            if (token == stop) continue;
            body(token, false, term);
            token = stop;
            term += kTermsOfPair;
        }
    }

    static TileRows rows_of_dy(const Slice& slice, std::int64_t n, std::int64_t next,
                               const float* packed) {
        return packed_rows(slice, n, next, packed);
    }
    void pack_dy(const Slice& slice, std::int64_t n, float* to) const {
        const std::int64_t pitch = dy_pitch(slice.terms);
        // Terms ascend, so that what a store of eight leaves beyond a tile of six is written over.
        each_pair(slice, borders, [&](std::int64_t token, bool whole, std::int64_t term) {
            const std::uint16_t* first = dy + token * dy_stride;
            const std::uint16_t* second = first + dy_stride;
            prefetch_piece(reinterpret_cast<const char*>(first + kRowsAhead * dy_stride),
                           n * kBytes);
            prefetch_piece(reinterpret_cast<const char*>(second + kRowsAhead * dy_stride),
                           n * kBytes);
            float* tile = to + term * kTileRows;
            std::int64_t i = 0;
            for (; i + kEight <= n; i += kTileRows, tile += pitch) {
                store_dy(load_eight(first + i), whole ? load_eight(second + i) : __m128i{}, tile);
            }
            for (; i < n; i += kTileRows, tile += pitch) {
                store_dy(load_last(first, i, n), whole ? load_last(second, i, n) : __m128i{}, tile);
            }
        });
    }

    [[nodiscard]] TileColumns columns_of_x(const Slice& slice, std::int64_t column,
                                           std::int64_t columns, float* to) const {
        const std::int64_t full = columns / kPanel * kPanel;
        const std::int64_t panel = slice.terms * kPanel;
        each_pair(slice, borders, [&](std::int64_t token, bool whole, std::int64_t term) {
            const std::uint16_t* first = x + token * x_stride + column;
            const std::uint16_t* second = first + x_stride;
            float* row = to + term * kPanel;
            std::int64_t i = 0;
            for (; i < full; i += kPanel, row += panel) {
                RANKWISE_UNROLL for (int u = 0; u < kUnits; ++u) {
                    const std::int64_t at = i + u * kWidth;
                    store_x(load_elements(first + at),
                            whole ? load_elements(second + at) : Elements{}, row + u * kWidth);
                }
            }
            if (i == columns) return;
            RANKWISE_UNROLL for (int u = 0; u < kUnits; ++u) {
                const std::int64_t at = i + u * kWidth;
                store_x(load_elements(first + at, columns - at),
                        whole ? load_elements(second + at, columns - at) : Elements{},
                        row + u * kWidth);
            }
        });
        return {to, slice.terms * kPanel, kPanel};
    }
};

}  // namespace

void bf16_weight_gradient(const Bf16GradientBlock& block) {
    gradient_sums(block.sums, PairOperands{block.dy, block.sums.dy_stride, block.x,
                                           block.sums.x_stride, block.borders});
}

}  // namespace rankwise::kernels::cpu::RANKWISE_ISA
