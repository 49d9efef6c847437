// A clock that a test moves by hand.
#pragma once

#include "src/base/clock.hpp"

namespace rankwise::test {

struct HandClock final : Clock {
    double now = 100.0;  ///< seconds
    [[nodiscard]] double now_s() const override { return now; }
};

}  // namespace rankwise::test
