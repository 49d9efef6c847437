// Time, as something that is passed in: tests bring their own.
#pragma once

#include <chrono>

namespace rankwise {

/// Seconds since some fixed moment; only differences mean anything. Nothing that is computed may
/// depend on it.
class Clock {
  public:
    virtual ~Clock() = default;
    [[nodiscard]] virtual double now_s() const = 0;
};

class SteadyClock final : public Clock {
  public:
    [[nodiscard]] double now_s() const override {
        return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch())
            .count();
    }
};

}  // namespace rankwise
