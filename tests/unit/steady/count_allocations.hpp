// How often this program has asked for memory.
#pragma once

#include <cstdint>

namespace rankwise::test {

/// Calls of malloc and its kin so far, by every thread; operator new is one of them.
[[nodiscard]] std::int64_t allocations();

}  // namespace rankwise::test
