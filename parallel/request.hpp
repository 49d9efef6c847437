// A communication that has been started and not yet waited for.
#pragma once

#include <cstdint>
#include <memory>

#include "parallel/flight_recorder.hpp"

namespace rankwise::parallel {

/// Move-only. The buffers of the call stay untouched (received ones also unread) until wait() has
/// returned or test() has said true. A default-constructed request is complete. One that is
/// destroyed unfinished waits; while an exception unwinds it is abandoned instead, since the job is
/// ending.
class [[nodiscard]] Request {
  public:
    /// What an implementation knows about the transfer.
    class State {
      public:
        virtual ~State() = default;
        /// True when the transfer is complete; never blocks.
        virtual bool test() = 0;
        /// Returns when the transfer is complete.
        virtual void wait() = 0;
    };

    Request() = default;
    Request(std::unique_ptr<State> state, std::shared_ptr<FlightRecorder> recorder,
            std::uint64_t ticket);
    Request(Request&& other) noexcept = default;
    Request& operator=(Request&& other) noexcept;
    ~Request();

    void wait();
    [[nodiscard]] bool test();
    [[nodiscard]] bool done() const { return state_ == nullptr; }

  private:
    void finish();

    std::unique_ptr<State> state_;
    std::shared_ptr<FlightRecorder> recorder_;
    std::uint64_t ticket_ = 0;
};

}  // namespace rankwise::parallel
