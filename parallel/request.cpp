#include "parallel/request.hpp"

#include <exception>
#include <utility>

namespace rankwise::parallel {

Request::Request(std::unique_ptr<State> state, std::shared_ptr<FlightRecorder> recorder,
                 std::uint64_t ticket)
    : state_(std::move(state)), recorder_(std::move(recorder)), ticket_(ticket) {}

Request& Request::operator=(Request&& other) noexcept {
    if (this != &other) {
        wait();
        state_ = std::move(other.state_);
        recorder_ = std::move(other.recorder_);
        ticket_ = other.ticket_;
    }
    return *this;
}

Request::~Request() {
    if (std::uncaught_exceptions() > 0) return;
    try {
        wait();
    } catch (...) {  // a transport that has failed fails again in the rank's next call, where it
                     // can be thrown
    }
}

void Request::wait() {
    if (state_ == nullptr) return;
    if (recorder_) recorder_->wait(ticket_);
    state_->wait();
    finish();
}

bool Request::test() {
    if (state_ == nullptr) return true;
    if (!state_->test()) return false;
    finish();
    return true;
}

void Request::finish() {
    state_.reset();
    if (recorder_) recorder_->end(ticket_);
    recorder_.reset();
}

}  // namespace rankwise::parallel
