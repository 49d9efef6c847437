// The most multiply-adds a second that one core does without touching memory.
#pragma once

#include <cstdint>

namespace rankwise::test {

/// Does `count` rounds of independent fused multiply-adds on registers; returns how many
/// multiply-adds that was.
std::int64_t spin_avx2(std::int64_t count);
std::int64_t spin_avx512(std::int64_t count);

}  // namespace rankwise::test
