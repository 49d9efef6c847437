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
// Of those the first are without a pause, which lasts about as long as a word takes to come from
// another core: the end of a loop is seen sooner.
constexpr int kEagerSpins = 256;

// In ticks of the time stamp counter, of which there are two to four in a nanosecond.
/// For how much longer a thread spins that has its core to itself: as long as most of what one
/// thread does by itself between two loops. Who sleeps is late, and on virtual machines by much.
constexpr std::uint64_t kPatience = 2'000'000;
/// Between two looks at a word: no interrupt takes as long, the core was another thread's.
constexpr std::uint64_t kCoreTaken = 200'000;
/// Waits in which a thread that had its core taken sleeps early.
constexpr int kEarlySleeps = 4096;

/// Whether this thread runs a task: a loop inside is its own.
thread_local bool inside_task = false;
/// Waits in which this thread goes to sleep early still.
thread_local int early_sleeps = 0;

/// Whether `word` differs from `old` within the time that this thread may go on spinning.
template <class Word>
bool changes_soon(const std::atomic<Word>& word, Word old) {
    if (early_sleeps > 0) {
        --early_sleeps;
        return false;
    }
    const std::uint64_t begin = __rdtsc();
    for (std::uint64_t last = begin, now = begin; now - begin < kPatience; last = now) {
        if (word.load(std::memory_order_acquire) != old) return true;
        _mm_pause();
        now = __rdtsc();
        if (now - last > kCoreTaken) {
            early_sleeps = kEarlySleeps;
            return false;
        }
    }
    return false;
}

/// Waits until `word` differs from `old`: spins, then sleeps.
template <class Word>
Word wait_for_change(const std::atomic<Word>& word, Word old) {
    for (int spin = 0; spin < kSpins; ++spin) {
        const Word now = word.load(std::memory_order_acquire);
        if (now != old) return now;
        if (spin >= kEagerSpins) _mm_pause();
    }
    if (!changes_soon(word, old)) word.wait(old, std::memory_order_acquire);
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
    /// The tasks of the current loop that one thread takes before others do: the loop's number
    /// (high half) and how many of them nobody has taken (low half). A task is taken by lowering
    /// the word; if that succeeds the loop was alive all the while, so what is said of it below was
    /// its own.
    struct alignas(64) Share {
        std::atomic<std::uint64_t> word{0};
    };

    std::vector<Share> shares;  // a thread's are the same part of every loop
    std::atomic<const Task*> task{nullptr};
    std::atomic<std::int64_t> tasks{0};

    std::atomic<std::uint32_t> begun{0};       // loops begun: what idle threads wait on
    std::atomic<std::uint32_t> unfinished{0};  // tasks of the loop not yet done
    std::atomic<bool> stop{false};
    std::mutex error_mutex;
    std::exception_ptr error;
    std::vector<std::thread> workers;

    explicit State(int threads) : shares(static_cast<std::size_t>(threads)) {}

    void begin(std::int64_t count, const Task& of_loop) {
        task.store(&of_loop, std::memory_order_relaxed);
        tasks.store(count, std::memory_order_relaxed);
        unfinished.store(static_cast<std::uint32_t>(count), std::memory_order_relaxed);
        const std::uint64_t number =
            (shares.front().word.load(std::memory_order_relaxed) >> 32U) + 1;
        const auto threads = std::ssize(shares);
        for (std::int64_t i = 0; i < threads; ++i) {
            const auto left = static_cast<std::uint64_t>(split(count, threads, i).size());
            shares[static_cast<std::size_t>(i)].word.store(number << 32U | left,
                                                           std::memory_order_release);
        }
        begun.fetch_add(1, std::memory_order_acq_rel);
        begun.notify_all();
    }

    /// Takes and runs tasks of one share until none is left to take.
    void take_from(std::size_t index) {
        std::atomic<std::uint64_t>& share = shares[index].word;
        std::uint64_t word = share.load(std::memory_order_acquire);
        while ((word & 0xFFFFFFFFU) != 0) {
            const Task* of_loop = task.load(std::memory_order_relaxed);
            const Range own = split(tasks.load(std::memory_order_relaxed), std::ssize(shares),
                                    static_cast<std::int64_t>(index));
            const std::int64_t next = own.end - static_cast<std::int64_t>(word & 0xFFFFFFFFU);
            if (!share.compare_exchange_weak(word, word - 1, std::memory_order_acq_rel,
                                             std::memory_order_acquire)) {
                continue;
            }
            try {
                (*of_loop)(next);
            } catch (...) {
                const std::lock_guard lock(error_mutex);
                if (!error) error = std::current_exception();
            }
            if (unfinished.fetch_sub(1, std::memory_order_acq_rel) == 1) unfinished.notify_all();
            word = share.load(std::memory_order_acquire);
        }
    }

    /// A thread's own tasks first, then what others have not begun.
    void work(std::size_t thread) {
        inside_task = true;
        for (std::size_t i = 0; i < shares.size(); ++i) take_from((thread + i) % shares.size());
        inside_task = false;
    }

    void idle(std::size_t thread) {
        const FlushDenormals flush;
        std::uint32_t seen = 0;
        while (true) {
            seen = wait_for_change(begun, seen);
            if (stop.load(std::memory_order_acquire)) return;
            work(thread);
        }
    }

    void end() {
        stop.store(true, std::memory_order_release);
        begun.fetch_add(1, std::memory_order_acq_rel);
        begun.notify_all();
        for (std::thread& worker : workers) worker.join();
    }
};

ThreadTeam::ThreadTeam(int threads) {
    ensure(threads >= 1, "a thread team of {} threads: at least one is needed", threads);
    state_ = std::make_unique<State>(threads);
    try {
        for (std::size_t i = 1; i < static_cast<std::size_t>(threads); ++i) {
            state_->workers.emplace_back([state = state_.get(), i] { state->idle(i); });
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
    return inside_task ? 1 : narrow<int>(state_->workers.size()) + 1;
}

void ThreadTeam::run(std::int64_t tasks, Task task) {
    const FlushDenormals flush;
    State& state = *state_;
    if (tasks <= 1 || state.workers.empty() || inside_task) {
        for (std::int64_t i = 0; i < tasks; ++i) task(i);
        return;
    }
    ensure(tasks < std::numeric_limits<std::uint32_t>::max(), "a parallel loop of {} tasks", tasks);
    state.begin(tasks, task);
    state.work(0);
    for (std::uint32_t left = state.unfinished.load(std::memory_order_acquire); left != 0;) {
        left = wait_for_change(state.unfinished, left);
    }
    if (std::exception_ptr error = std::exchange(state.error, nullptr)) {
        std::rethrow_exception(error);
    }
}

}  // namespace rankwise::kernels::cpu
