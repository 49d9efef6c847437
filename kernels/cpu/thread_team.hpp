// The compute threads of one rank.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

namespace rankwise::kernels::cpu {

/// `threads` threads, the caller among them, that run one parallel loop at a time. Each flushes denormals (FTZ and DAZ), the
/// caller for the length of the loop. Idle threads spin briefly and then sleep, so that oversubscribed ranks make progress.
class ThreadTeam {
  public:
    explicit ThreadTeam(int threads);
    ~ThreadTeam();
    ThreadTeam(const ThreadTeam&) = delete;
    ThreadTeam& operator=(const ThreadTeam&) = delete;

    [[nodiscard]] int threads() const;
    /// Runs task(0) … task(tasks - 1), each once, on whichever threads are free; returns when all are done. The first
    /// exception of a task is rethrown here. Tasks split outputs, never a sum (N11).
    void run(std::int64_t tasks, const std::function<void(std::int64_t)>& task);

  private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace rankwise::kernels::cpu
