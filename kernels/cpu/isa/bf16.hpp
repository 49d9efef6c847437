// bf16 elements in and out of registers of floats. Rounding is to nearest even; a NaN stays a quiet
// NaN. Results are never denormal here: whoever computed them has flushed them.
#pragma once

#include "kernels/cpu/isa/matmul_tile.hpp"

namespace rankwise::kernels::cpu::RANKWISE_ISA {
namespace {

constexpr int kEight = 8;

/// Eight elements; the first `count` of eight, the others +0.
RANKWISE_INLINE __m128i load_eight(const std::uint16_t* from) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
}
RANKWISE_INLINE __m128i load_eight(const std::uint16_t* from, std::int64_t count) {
    alignas(16) std::uint16_t elements[kEight] = {};
    for (std::int64_t i = 0; i < count; ++i) elements[i] = from[i];
    return _mm_load_si128(reinterpret_cast<const __m128i*>(elements));
}
RANKWISE_INLINE __m256 widen_eight(__m128i elements) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(elements), 16));
}
/// Words of two elements, those of `first` in the low halves.
RANKWISE_INLINE __m256 pair_eight(__m128i first, __m128i second) {
    return _mm256_castsi256_ps(_mm256_or_si256(
        _mm256_cvtepu16_epi32(first), _mm256_slli_epi32(_mm256_cvtepu16_epi32(second), 16)));
}
RANKWISE_INLINE __m128i round_eight(__m256 v) {
    const __m256i bits = _mm256_castps_si256(v);
    const __m256i upper = _mm256_srli_epi32(bits, 16);
    const __m256i odd = _mm256_and_si256(upper, _mm256_set1_epi32(1));
    const __m256i nearest = _mm256_srli_epi32(
        _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF))), 16);
    const __m256i nan = _mm256_or_si256(upper, _mm256_set1_epi32(0x40));
    const __m256i result =
        _mm256_blendv_epi8(nearest, nan, _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q)));
    const __m256i packed = _mm256_packus_epi32(result, result);
    return _mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08));
}

#ifdef __AVX512F__
using Elements = __m256i;  // kWidth of them

RANKWISE_INLINE Elements load_elements(const std::uint16_t* from) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
}
/// The first `count`, which may be negative or beyond the width; the others +0.
RANKWISE_INLINE Elements load_elements(const std::uint16_t* from, std::int64_t count) {
    return _mm256_maskz_loadu_epi16(first_lanes(count), from);
}
RANKWISE_INLINE void store_elements(std::uint16_t* to, Elements v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), v);
}
RANKWISE_INLINE void store_elements(std::uint16_t* to, Elements v, std::int64_t count) {
    _mm256_mask_storeu_epi16(to, first_lanes(count), v);
}
RANKWISE_INLINE Vec widen(Elements v) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16));
}
RANKWISE_INLINE Vec pair(Elements first, Elements second) {
    return _mm512_castsi512_ps(_mm512_or_si512(
        _mm512_cvtepu16_epi32(first), _mm512_slli_epi32(_mm512_cvtepu16_epi32(second), 16)));
}
RANKWISE_INLINE Elements rounded(Vec v) {
#ifdef __AVX512BF16__
    return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(v));
#else
    const __m512i bits = _mm512_castps_si512(v);
    const __m512i upper = _mm512_srli_epi32(bits, 16);
    const __m512i odd = _mm512_and_si512(upper, _mm512_set1_epi32(1));
    const __m512i nearest = _mm512_srli_epi32(
        _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF))), 16);
    const __m512i result = _mm512_mask_or_epi32(nearest, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q),
                                                upper, _mm512_set1_epi32(0x40));
    return _mm512_cvtepi32_epi16(result);
#endif
}
#else
using Elements = __m128i;

RANKWISE_INLINE Elements load_elements(const std::uint16_t* from) {
    return load_eight(from);
}
RANKWISE_INLINE Elements load_elements(const std::uint16_t* from, std::int64_t count) {
    return load_eight(from, count < kEight ? count : kEight);
}
RANKWISE_INLINE void store_elements(std::uint16_t* to, Elements v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), v);
}
RANKWISE_INLINE void store_elements(std::uint16_t* to, Elements v, std::int64_t count) {
    alignas(16) std::uint16_t elements[kEight];
    _mm_store_si128(reinterpret_cast<__m128i*>(elements), v);
    for (std::int64_t i = 0; i < count && i < kEight; ++i) to[i] = elements[i];
}
RANKWISE_INLINE Vec widen(Elements v) {
    return widen_eight(v);
}
RANKWISE_INLINE Vec pair(Elements first, Elements second) {
    return pair_eight(first, second);
}
RANKWISE_INLINE Elements rounded(Vec v) {
    return round_eight(v);
}
#endif

/// Rounds a tile to bf16 and stores it; with `adding` what is there plus the rounded tile, rounded
/// again.
template <int R, int P>
RANKWISE_INLINE void store_tile(const Tile<R, P>& c, std::uint16_t* to, std::int64_t stride,
                                std::int64_t columns, bool adding) {
    const bool full = is_full<P>(columns);
    RANKWISE_UNROLL for (int u = 0; u < P * kUnits; ++u) {
        const std::int64_t left = columns - u * kWidth;
        RANKWISE_UNROLL for (int i = 0; i < R; ++i) {
            std::uint16_t* here = to + i * stride + u * kWidth;
            Elements result = rounded(c[i][u]);
            if (adding) {
                const Elements before = full ? load_elements(here) : load_elements(here, left);
                result = rounded(add(widen(before), widen(result)));
            }
            if (full) {
                store_elements(here, result);
            } else {
                store_elements(here, result, left);
            }
        }
    }
}

}  // namespace
}  // namespace rankwise::kernels::cpu::RANKWISE_ISA
