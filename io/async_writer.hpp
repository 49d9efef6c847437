// Writing files while the next step computes.
#pragma once

#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>

namespace rankwise::io {

/// One I/O thread, one job at a time. A job must own (or outlive with) all that it touches, and
/// takes no part in communication. What a job throws comes out of the next join() or start(), on
/// the caller's thread, once.
class AsyncWriter {
  public:
    AsyncWriter();
    AsyncWriter(const AsyncWriter&) = delete;
    AsyncWriter& operator=(const AsyncWriter&) = delete;
    /// Waits for the job; its error is lost, so join() first.
    ~AsyncWriter();

    /// Waits for the job before, rethrows its error, then hands over this one and returns.
    void start(std::function<void()> job);
    /// Waits until nothing is under way; rethrows the error of the last job.
    void join();
    /// Waits likewise; an error stays for the next join().
    void wait();
    [[nodiscard]] bool busy() const;

  private:
    void loop();

    mutable std::mutex mutex_;
    std::condition_variable changed_;
    std::function<void()> job_;
    std::exception_ptr error_;
    bool busy_ = false;
    bool stop_ = false;
    std::thread thread_;
};

}  // namespace rankwise::io
