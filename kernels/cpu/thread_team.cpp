#include "kernels/cpu/thread_team.hpp"

#include <immintrin.h>

#include <atomic>
#include <exception>
#include <limits>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "src/base/checked.hpp"

namespace rankwise::kernels::cpu {
namespace {

constexpr unsigned kFlushToZero = 0x8000;
constexpr unsigned kDenormalsAreZero = 0x0040;
constexpr unsigned kMaskedToNearest = 0x1F80;

// Some tens of microseconds: longer than the gap between two ops of one layer, shorter than a time
// slice that another rank on the same core waits for.
constexpr int kSpins = 1000;

/// Waits until `word` differs from `old`: spins, then sleeps.
template <class Word>
Word wait_for_change(const std::atomic<Word>& word, Word old) {
    for (int spin = 0; spin < kSpins; ++spin) {
        const Word now = word.load(std::memory_order_acquire);
        if (now != old) return now;
        _mm_pause();
    }
    word.wait(old, std::memory_order_acquire);
    return word.load(std::memory_order_acquire);
}

}  // namespace

FlushDenormals::FlushDenormals() : saved_(_mm_getcsr()) {
    _mm_setcsr(kMaskedToNearest | kFlushToZero | kDenormalsAreZero);
}

FlushDenormals::~FlushDenormals() {
    _mm_setcsr(saved_);
}

struct ThreadTeam::State {
    // The current loop: its number (high half) and how many of its tasks nobody has taken (low
    // half). A task is taken by lowering the word; if that succeeds the loop was alive all the
    // while, so the fields below were its own.
    std::atomic<std::uint64_t> loop{0};
    std::atomic<const void*> context{nullptr};
    std::atomic<void (*)(const void*, std::int64_t)> call{nullptr};
    std::atomic<std::int64_t> tasks{0};

    std::atomic<std::uint32_t> begun{0};       // loops begun: what idle threads wait on
    std::atomic<std::uint32_t> unfinished{0};  // tasks of the loop not yet done
    std::atomic<bool> stop{false};
    std::mutex error_mutex;
    std::exception_ptr error;
    std::vector<std::thread> workers;

    /// Takes and runs tasks of the current loop until none is left to take.
    void work() {
        std::uint64_t word = loop.load(std::memory_order_acquire);
        while ((word & 0xFFFFFFFFU) != 0) {
            const AnyTask task{context.load(std::memory_order_relaxed),
                               call.load(std::memory_order_relaxed)};
            const std::int64_t index = tasks.load(std::memory_order_relaxed) -
                                       static_cast<std::int64_t>(word & 0xFFFFFFFFU);
            if (!loop.compare_exchange_weak(word, word - 1, std::memory_order_acq_rel,
                                            std::memory_order_acquire)) {
                continue;
            }
            try {
                task.call(task.context, index);
            } catch (...) {
                const std::lock_guard lock(error_mutex);
                if (!error) error = std::current_exception();
            }
            if (unfinished.fetch_sub(1, std::memory_order_acq_rel) == 1) unfinished.notify_all();
            word = loop.load(std::memory_order_acquire);
        }
    }

    void idle() {
        const FlushDenormals flush;
        std::uint32_t seen = 0;
        while (true) {
            seen = wait_for_change(begun, seen);
            if (stop.load(std::memory_order_acquire)) return;
            work();
        }
    }

    void end() {
        stop.store(true, std::memory_order_release);
        begun.fetch_add(1, std::memory_order_acq_rel);
        begun.notify_all();
        for (std::thread& worker : workers) worker.join();
    }
};

ThreadTeam::ThreadTeam(int threads) : state_(std::make_unique<State>()) {
    ensure(threads >= 1, "a thread team of {} threads: at least one is needed", threads);
    try {
        for (int i = 1; i < threads; ++i) {
            state_->workers.emplace_back([state = state_.get()] { state->idle(); });
        }
    } catch (const std::system_error& error) {
        state_->end();
        throw EnvironmentError(
            fmt::format("cannot start {} compute threads ({}): lower --device.threads or raise the "
                        "limit on processes (ulimit -u)",
                        threads, error.what()));
    }
}

ThreadTeam::~ThreadTeam() {
    state_->end();
}

int ThreadTeam::threads() const {
    return narrow<int>(state_->workers.size()) + 1;
}

void ThreadTeam::run_any(std::int64_t tasks, AnyTask task) {
    const FlushDenormals flush;
    State& state = *state_;
    if (tasks <= 1 || state.workers.empty()) {
        for (std::int64_t i = 0; i < tasks; ++i) task.call(task.context, i);
        return;
    }
    ensure(tasks < std::numeric_limits<std::uint32_t>::max(), "a parallel loop of {} tasks", tasks);
    state.context.store(task.context, std::memory_order_relaxed);
    state.call.store(task.call, std::memory_order_relaxed);
    state.tasks.store(tasks, std::memory_order_relaxed);
    state.unfinished.store(static_cast<std::uint32_t>(tasks), std::memory_order_relaxed);
    const std::uint64_t number = (state.loop.load(std::memory_order_relaxed) >> 32U) + 1;
    state.loop.store(number << 32U | static_cast<std::uint64_t>(tasks), std::memory_order_release);
    state.begun.fetch_add(1, std::memory_order_acq_rel);
    state.begun.notify_all();

    state.work();
    for (std::uint32_t left = state.unfinished.load(std::memory_order_acquire); left != 0;) {
        left = wait_for_change(state.unfinished, left);
    }
    if (std::exception_ptr error = std::exchange(state.error, nullptr)) {
        std::rethrow_exception(error);
    }
}

}  // namespace rankwise::kernels::cpu
