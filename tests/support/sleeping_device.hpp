// A device on which each layer takes as long as a test says: it computes on another, and sleeps.
#pragma once

#include <chrono>
#include <thread>

#include "tests/support/forwarding_device.hpp"

namespace rankwise::test {

/// Sleeps once a layer in each of its three pieces of work: forward, in training and generation,
/// the gradient of its input, and those of its weights. Sleeping takes no core, so that any number
/// of ranks fits any machine. A piece of work ends so long after the one before should have ended,
/// not after the machine woke up from it: what wakes late is made good for by the next, and work
/// between them (a rank that waits, waits for a whole piece of another's at least) takes no time.
/// So nothing ends before its time, and lateness does not add up.
class SleepingDevice final : public ForwardingDevice {
  public:
    /// @param own           computes; outlives this
    /// @param intermediate  columns that only the weights of down_proj have
    SleepingDevice(kernels::Device& own, std::int64_t intermediate, std::chrono::milliseconds each)
        : ForwardingDevice(own), intermediate_(intermediate), each_(each) {}

    /// Seconds that all pieces of work should have taken: idle is whatever else.
    [[nodiscard]] double busy_s() const {
        return static_cast<double>(pieces_) * std::chrono::duration<double>(each_).count();
    }

    void segment_attention(const kernels::SegmentAttentionArgs& a, S& s) override {
        sleep();
        ForwardingDevice::segment_attention(a, s);
    }
    void segment_attention_backward(const kernels::SegmentAttentionBackwardArgs& a, S& s) override {
        sleep();
        ForwardingDevice::segment_attention_backward(a, s);
    }
    void weight_gradient(const kernels::WeightGradientArgs& a, S& s) override {
        if (a.dw.cols == intermediate_) sleep();
        ForwardingDevice::weight_gradient(a, s);
    }
    void paged_attention(const kernels::PagedAttentionArgs& a, S& s) override {
        sleep();
        ForwardingDevice::paged_attention(a, s);
    }

  private:
    void sleep() {
        const auto now = std::chrono::steady_clock::now();
        due_ = (now - due_ < each_ / 2 ? due_ : now) + each_;
        std::this_thread::sleep_until(due_);
        ++pieces_;
    }

    std::int64_t intermediate_;
    std::chrono::milliseconds each_;
    std::chrono::steady_clock::time_point due_;  // when the last piece should have ended
    std::int64_t pieces_ = 0;
};

}  // namespace rankwise::test
