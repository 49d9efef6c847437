// The register tile that all matrix products are made of: R rows of the result by P panels of
// columns, one accumulator an element, terms ascending, fused multiply-adds (NUMERICS N1). Written
// with intrinsics: the order is ours alone. A term is four bytes of x and of w: a float, or two
// bf16 elements.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/matmul_kernels.hpp"

#define RANKWISE_INLINE static inline __attribute__((always_inline))
#define RANKWISE_UNROLL _Pragma("GCC unroll 32")

namespace rankwise::kernels::cpu::RANKWISE_ISA {
namespace {

#ifdef __AVX512F__
using Vec = __m512;
using Mask = __mmask16;
constexpr int kWidth = 16;
constexpr int kTileRows = 8;    // most rows of a tile, and
constexpr int kTilePanels = 3;  // panels of a tile of that many: 24 accumulators of 32 registers
constexpr int kTogether = 3;    // panels that packed operands keep together
constexpr bool kTermIsLong = true;  // twelve cycles: there is time to fetch some lines with each

RANKWISE_INLINE Vec zero() {
    return _mm512_setzero_ps();
}
RANKWISE_INLINE Vec broadcast(const float* p) {
    return _mm512_set1_ps(*p);
}
RANKWISE_INLINE Vec load(const float* p) {
    return _mm512_loadu_ps(p);
}
RANKWISE_INLINE void store(float* p, Vec v) {
    _mm512_storeu_ps(p, v);
}
RANKWISE_INLINE Vec fma(Vec a, Vec b, Vec c) {
    return _mm512_fmadd_ps(a, b, c);
}
RANKWISE_INLINE Vec add(Vec a, Vec b) {
    return _mm512_add_ps(a, b);
}
/// Lanes [0, count); count may be negative or beyond the width.
RANKWISE_INLINE Mask first_lanes(std::int64_t count) {
    return count >= kWidth ? static_cast<Mask>(0xFFFF)
           : count <= 0    ? static_cast<Mask>(0)
                           : static_cast<Mask>((1U << count) - 1U);
}
RANKWISE_INLINE Vec load(const float* p, Mask mask) {
    return _mm512_maskz_loadu_ps(mask, p);
}
RANKWISE_INLINE void store(float* p, Vec v, Mask mask) {
    _mm512_mask_storeu_ps(p, mask, v);
}
/// Floats whose upper halves are the upper or the lower halves of v: bf16 elements widened.
RANKWISE_INLINE Vec high_half(Vec v) {
    return _mm512_castsi512_ps(
        _mm512_and_si512(_mm512_castps_si512(v), _mm512_set1_epi32(-0x10000)));
}
RANKWISE_INLINE Vec low_half(Vec v) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(v), 16));
}
#else
using Vec = __m256;
using Mask = __m256i;
constexpr int kWidth = 8;
constexpr int kTileRows = 6;
constexpr int kTilePanels = 1;  // 12 accumulators of 16 registers
constexpr int kTogether = 1;
constexpr bool kTermIsLong = false;

RANKWISE_INLINE Vec zero() {
    return _mm256_setzero_ps();
}
RANKWISE_INLINE Vec broadcast(const float* p) {
    return _mm256_broadcast_ss(p);
}
RANKWISE_INLINE Vec load(const float* p) {
    return _mm256_loadu_ps(p);
}
RANKWISE_INLINE void store(float* p, Vec v) {
    _mm256_storeu_ps(p, v);
}
RANKWISE_INLINE Vec fma(Vec a, Vec b, Vec c) {
    return _mm256_fmadd_ps(a, b, c);
}
RANKWISE_INLINE Vec add(Vec a, Vec b) {
    return _mm256_add_ps(a, b);
}
RANKWISE_INLINE Mask first_lanes(std::int64_t count) {
    const int lanes = count >= kWidth ? kWidth : count <= 0 ? 0 : static_cast<int>(count);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(lanes), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
RANKWISE_INLINE Vec load(const float* p, Mask mask) {
    return _mm256_maskload_ps(p, mask);
}
RANKWISE_INLINE void store(float* p, Vec v, Mask mask) {
    _mm256_maskstore_ps(p, mask, v);
}
RANKWISE_INLINE Vec high_half(Vec v) {
    return _mm256_castsi256_ps(
        _mm256_and_si256(_mm256_castps_si256(v), _mm256_set1_epi32(-0x10000)));
}
RANKWISE_INLINE Vec low_half(Vec v) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(v), 16));
}
#endif

constexpr int kLine = 64;                // bytes
constexpr int kUnits = kPanel / kWidth;  // registers of one row of one panel

/// Accumulators of R rows and P panels; unit u lies in panel u / kUnits.
template <int R, int P>
using Tile = Vec[R][P * kUnits];

template <int R, int P>
RANKWISE_INLINE void clear(Tile<R, P>& c) {
    RANKWISE_UNROLL for (int i = 0; i < R; ++i) {
        RANKWISE_UNROLL for (int u = 0; u < P * kUnits; ++u) c[i][u] = zero();
    }
}

/// Terms that are floats.
struct Single {
    static constexpr int kWords = 1;  // of x a term
    static constexpr bool kBf16 = false;
    RANKWISE_INLINE Vec weight(Vec w, int) { return w; }
    RANKWISE_INLINE Vec multiply_add(Vec a, Vec b, Vec c) { return fma(a, b, c); }
};

/// Terms that are pairs of bf16 elements, the first in the low half: the product of the second
/// elements is added, then that of the first.
struct Pair {
    static constexpr bool kBf16 = true;
#ifdef __AVX512BF16__
    using Packed = Pair;              // what it becomes where both sides are packed
    static constexpr int kWords = 1;  // of x: the pair
    RANKWISE_INLINE Vec weight(Vec w, int) {
        return w;
    }
    RANKWISE_INLINE Vec multiply_add(Vec a, Vec b, Vec c) {
        return _mm512_dpbf16_ps(c, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
    }
#else
    using Packed = Single;
    static constexpr int kWords = 2;  // of x: the second element as a float, then the first
    RANKWISE_INLINE Vec weight(Vec w, int word) {
        return word == 0 ? high_half(w) : low_half(w);
    }
    RANKWISE_INLINE Vec multiply_add(Vec a, Vec b, Vec c) {
        return fma(a, b, c);
    }
#endif
};

/// What accumulate() does besides with each term.
struct Nothing {
    void with_term(const float* /*b*/) const {}
};

/// c += a b over `count` terms. a: term k of row i at a[i * row_step + k * term_step]; b: term k of
/// panel p at b[p * panel_stride + k * step].
template <class Term, int R, int P, class Besides>
requires requires(Besides besides) {
    besides.with_term(nullptr);
}
RANKWISE_INLINE void accumulate(Tile<R, P>& c, const float* a, std::ptrdiff_t row_step,
                                std::ptrdiff_t term_step, const float* b,
                                std::ptrdiff_t panel_stride, std::ptrdiff_t step,
                                std::int64_t count, Besides& besides) {
    constexpr int kU = P * kUnits;
#pragma GCC unroll 4
    for (std::int64_t k = 0; k < count; ++k) {
        besides.with_term(b);
        RANKWISE_UNROLL for (int word = 0; word < Term::kWords; ++word) {
            // The second half is read again: keeping it would cost the accumulators registers.
            if (word > 0) asm volatile("" : "+r"(b) : : "memory");
            if constexpr (R >= kU) {
                Vec bv[kU];
                RANKWISE_UNROLL for (int u = 0; u < kU; ++u) {
                    bv[u] = Term::weight(
                        load(b + (u / kUnits) * panel_stride + (u % kUnits) * kWidth), word);
                }
                RANKWISE_UNROLL for (int i = 0; i < R; ++i) {
                    const Vec av = broadcast(a + i * row_step + word);
                    RANKWISE_UNROLL for (int u = 0; u < kU; ++u) {
                        c[i][u] = Term::multiply_add(av, bv[u], c[i][u]);
                    }
                }
            } else {
                Vec av[R];
                RANKWISE_UNROLL for (int i = 0; i < R; ++i) {
                    av[i] = broadcast(a + i * row_step + word);
                }
                RANKWISE_UNROLL for (int u = 0; u < kU; ++u) {
                    const Vec bv = Term::weight(
                        load(b + (u / kUnits) * panel_stride + (u % kUnits) * kWidth), word);
                    RANKWISE_UNROLL for (int i = 0; i < R; ++i) {
                        c[i][u] = Term::multiply_add(av[i], bv, c[i][u]);
                    }
                }
            }
        }
        a += term_step;
        b += step;
        // Else an address is kept for each row, for which eight rows leave too few registers.
        if constexpr (R == 8) asm("" : "+r"(a));
    }
}

// Memory to bring near while a tile is computed. Into the first-level cache, though it holds
// little: what is fetched into the second alone disturbs the processor's own fetching there, which
// is the faster of the two. A line or a few with every term, where tiles have the time for that;
// the arithmetic waits behind many at once.

/// A line with a term, `step` bytes after the one before; of fewer than 64 a line is asked for
/// several times.
struct Lines {
    const char* next = nullptr;
    std::ptrdiff_t step = 0;

    void with_term(const float* /*b*/) {
        _mm_prefetch(next, _MM_HINT_T0);
        next += step;
    }
};

/// What is read a little later itself, of P panels that lie together.
template <int P>
struct LittleLater {
    static constexpr std::ptrdiff_t kDistance = 6144;  // bytes

    void with_term(const float* b) const {
        const char* later = reinterpret_cast<const char*>(b) + kDistance;
        RANKWISE_UNROLL for (int at = 0; at < P * kPanel * 4; at += kLine) {
            _mm_prefetch(later + at, _MM_HINT_T0);
        }
    }
};

/// Every kBurstTerms terms some pieces of kLines lines, each `step` bytes after the one before.
template <int kLines>
struct Bursts {
    const char* next = nullptr;
    std::ptrdiff_t step = kLine;
    std::int64_t pieces = 0;

    void fetch() {
        for (std::int64_t piece = 0; piece < pieces; ++piece, next += step) {
            RANKWISE_UNROLL for (int line = 0; line < kLines; ++line) {
                _mm_prefetch(next + line * kLine, _MM_HINT_T0);
            }
        }
    }
};
constexpr int kBurstTerms = 16;

template <class Term, int R, int P, int kLines>
RANKWISE_INLINE void accumulate(Tile<R, P>& c, const float* a, std::ptrdiff_t row_step,
                                std::ptrdiff_t term_step, const float* b,
                                std::ptrdiff_t panel_stride, std::ptrdiff_t step,
                                std::int64_t count, Bursts<kLines>& bursts) {
    Nothing besides;
    for (; bursts.pieces != 0 && count >= kBurstTerms; count -= kBurstTerms) {
        bursts.fetch();
        accumulate<Term, R, P>(c, a, row_step, term_step, b, panel_stride, step,
                               std::int64_t{kBurstTerms}, besides);
        a += kBurstTerms * term_step;
        b += kBurstTerms * step;
    }
    accumulate<Term, R, P>(c, a, row_step, term_step, b, panel_stride, step, count, besides);
}

/// Whether all lanes of a tile of P panels hold columns; otherwise masks cut what lies beyond, at
/// some cost.
template <int P>
RANKWISE_INLINE bool is_full(std::int64_t columns) {
    return columns >= P * kPanel;
}

template <int R, int P>
RANKWISE_INLINE void load_tile(Tile<R, P>& c, const float* from, std::int64_t stride,
                               std::int64_t columns) {
    if (is_full<P>(columns)) {
        RANKWISE_UNROLL for (int i = 0; i < R; ++i) {
            RANKWISE_UNROLL for (int u = 0; u < P * kUnits; ++u) {
                c[i][u] = load(from + i * stride + u * kWidth);
            }
        }
        return;
    }
    RANKWISE_UNROLL for (int u = 0; u < P * kUnits; ++u) {
        const Mask mask = first_lanes(columns - u * kWidth);
        RANKWISE_UNROLL for (int i = 0; i < R; ++i) {
            c[i][u] = load(from + i * stride + u * kWidth, mask);
        }
    }
}

/// c = to + c.
template <int R, int P>
RANKWISE_INLINE void add_tile(Tile<R, P>& c, const float* to, std::int64_t stride,
                              std::int64_t columns) {
    Tile<R, P> before;
    load_tile<R, P>(before, to, stride, columns);
    RANKWISE_UNROLL for (int i = 0; i < R; ++i) {
        RANKWISE_UNROLL for (int u = 0; u < P * kUnits; ++u) c[i][u] = add(before[i][u], c[i][u]);
    }
}

template <int R, int P>
RANKWISE_INLINE void store_tile(const Tile<R, P>& c, float* to, std::int64_t stride,
                                std::int64_t columns) {
    if (is_full<P>(columns)) {
        RANKWISE_UNROLL for (int i = 0; i < R; ++i) {
            RANKWISE_UNROLL for (int u = 0; u < P * kUnits; ++u) {
                store(to + i * stride + u * kWidth, c[i][u]);
            }
        }
        return;
    }
    RANKWISE_UNROLL for (int u = 0; u < P * kUnits; ++u) {
        const Mask mask = first_lanes(columns - u * kWidth);
        RANKWISE_UNROLL for (int i = 0; i < R; ++i) {
            store(to + i * stride + u * kWidth, c[i][u], mask);
        }
    }
}

}  // namespace
}  // namespace rankwise::kernels::cpu::RANKWISE_ISA
