// The compute threads of one rank.
#pragma once

#include <cstdint>
#include <memory>

#include "src/base/function_ref.hpp"

namespace rankwise::kernels::cpu {

/// While one lives, its thread rounds to nearest and flushes denormals (FTZ: results, DAZ:
/// operands); the former mode is restored when it ends.
class FlushDenormals {
  public:
    FlushDenormals();
    ~FlushDenormals();
    FlushDenormals(const FlushDenormals&) = delete;
    FlushDenormals& operator=(const FlushDenormals&) = delete;

  private:
    unsigned saved_;
};

/// `threads` threads, the caller among them, that run one parallel loop at a time. Each flushes
/// denormals (FTZ and DAZ), the caller for the length of the loop. Idle threads spin, briefly where
/// others want their cores, and then sleep, so that oversubscribed ranks make progress. One thread
/// at a time calls run(); a task that does so runs the inner loop by itself.
class ThreadTeam {
  public:
    using Task = FunctionRef<void(std::int64_t index)>;

    /// @throws InternalError if threads < 1; EnvironmentError if the system gives no more threads.
    explicit ThreadTeam(int threads);
    ~ThreadTeam();
    ThreadTeam(const ThreadTeam&) = delete;
    ThreadTeam& operator=(const ThreadTeam&) = delete;

    /// Threads that a loop begun here is shared by: one, inside a task.
    [[nodiscard]] int threads() const;
    /// Runs task(0) … task(tasks - 1), each once; returns when all are done. A thread takes its own
    /// part of them first, in order, and then what the others have not begun: loops over the same
    /// rows find them in the caches of the same thread. The first exception of a task is rethrown
    /// here, after the others have ended. Tasks split outputs, never a sum (N11). With one thread
    /// or one task nothing but the calling thread takes part.
    void run(std::int64_t tasks, Task task);

  private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace rankwise::kernels::cpu
