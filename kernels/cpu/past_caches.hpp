// Writing past the caches what is read much later: a third of the traffic of ordinary stores is the
// old contents of the lines that are written.
#pragma once

#include <emmintrin.h>

#include <cstdint>

namespace rankwise::kernels::cpu {

/// Bytes from which on it is worth it: more would drive out what the caches hold.
inline constexpr std::int64_t kPastCaches = std::int64_t{1} << 20;

inline constexpr std::int64_t kCacheLine = 64;

/// One line from anywhere to a multiple of kCacheLine. Others may read it after written_past().
inline void copy_line_past(const void* from, void* to) {
    const auto* source = static_cast<const __m128i*>(from);
    auto* target = static_cast<__m128i*>(to);
    for (int i = 0; i < 4; ++i) _mm_stream_si128(target + i, _mm_loadu_si128(source + i));
}

inline void written_past() {
    _mm_sfence();
}

}  // namespace rankwise::kernels::cpu
