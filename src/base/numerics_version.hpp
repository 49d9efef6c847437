// The version of the arithmetic's rules.
#pragma once

namespace rankwise {

/// Part of digest/options. Raised by every change after which the same recipe gives other bits
/// (tests/golden/digests.json changes in the same commit, which says why).
inline constexpr int kNumericsVersion = 1;

}  // namespace rankwise
