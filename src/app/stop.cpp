#include "src/app/stop.hpp"

#include <time.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <limits>

namespace rankwise::app {
namespace {

// A signal handler can only reach what is static; nothing else in the program is.
volatile std::sig_atomic_t caught_signal = 0;
volatile std::sig_atomic_t last_interrupt_s = -1000;

constexpr std::array kSignals{SIGUSR1, SIGTERM, SIGINT};

extern "C" void on_stop_signal(int signal) {
    if (signal == SIGINT) {
        timespec now{};
        clock_gettime(CLOCK_MONOTONIC, &now);
        const auto seconds = static_cast<std::sig_atomic_t>(now.tv_sec & 0x3fffffff);
        if (seconds - last_interrupt_s <= 2) _exit(130);
        last_interrupt_s = seconds;
    }
    if (caught_signal != SIGTERM) caught_signal = signal;
}

void set_handlers(void (*handler)(int)) {
    struct sigaction action {};
    action.sa_handler = handler;
    action.sa_flags = SA_RESTART;
    sigemptyset(&action.sa_mask);
    for (const int signal : kSignals) sigaction(signal, &action, nullptr);
}

}  // namespace

std::string_view name_of(StopReason reason) {
    switch (reason) {
        case StopReason::none:
            return "nothing";
        case StopReason::time_limit:
            return "the time limit";
        case StopReason::usr1:
            return "SIGUSR1";
        case StopReason::interrupt:
            return "Ctrl-C";
        case StopReason::terminate:
            return "SIGTERM";
    }
    return "";
}

void install_stop_signals() {
    caught_signal = 0;
    set_handlers(on_stop_signal);
    // A file at the limit of its size is an error of the write, which says which file it was.
    std::signal(SIGXFSZ, SIG_IGN);
}

void remove_stop_signals() {
    set_handlers(SIG_DFL);
    std::signal(SIGXFSZ, SIG_DFL);
    caught_signal = 0;
    last_interrupt_s = -1000;
}

StopReason pending_stop_signal() {
    switch (caught_signal) {
        case SIGUSR1:
            return StopReason::usr1;
        case SIGINT:
            return StopReason::interrupt;
        case SIGTERM:
            return StopReason::terminate;
        default:
            return StopReason::none;
    }
}

StopConditions::StopConditions(double time_limit_s, std::shared_ptr<const Clock> clock)
    : clock_(std::move(clock)),
      end_s_(time_limit_s > 0.0 ? clock_->now_s() + time_limit_s
                                : std::numeric_limits<double>::infinity()) {}

double StopConditions::seconds_left() const {
    return end_s_ - clock_->now_s();
}

StopReason StopConditions::local() const {
    const StopReason signal = pending_stop_signal();
    if (signal != StopReason::none) return signal;
    return seconds_left() <= 0.0 ? StopReason::time_limit : StopReason::none;
}

StopReason StopConditions::agreed(parallel::Communicator& world) const {
    return static_cast<StopReason>(
        world.all_reduce_max("stop", static_cast<std::int64_t>(local())));
}

}  // namespace rankwise::app
