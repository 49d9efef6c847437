// How long something takes, beside the limits of the machine measured in the same moments.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "kernels/device.hpp"
#include "parallel/communicator.hpp"
#include "src/base/clock.hpp"

namespace rankwise::app {

/// The least that something must do: floating-point operations (a multiply-add: two), and bytes
/// that come from memory or go there.
struct BenchWork {
    double flop = 0.0;
    double bytes = 0.0;
};

/// What a device can do at most, measured whenever it is asked, so that a share of it means
/// something on a machine that is not quiet.
class DeviceLimits {
  public:
    /// @param stream_bytes  memory that is read in turn: much more than the caches hold
    DeviceLimits(kernels::Device& device, kernels::Stream& stream, const Clock& clock,
                 std::int64_t stream_bytes);

    /// Operations a second now; 0 if the device has no such arithmetic.
    [[nodiscard]] double flop_per_s(kernels::Arithmetic kind);
    /// Bytes a second now, in the pattern that was the fastest of all at first.
    [[nodiscard]] double bytes_per_s();
    /// The same in one pattern, over all of the memory.
    [[nodiscard]] double bytes_per_s(int pattern);

  private:
    void prepare_stream();

    kernels::Device& device_;
    kernels::Stream& stream_;
    const Clock& clock_;
    std::int64_t stream_bytes_;
    kernels::DeviceBuffer<float> memory_;  // made when first needed
    int pattern_ = -1;
    std::int64_t next_ = 0;  // where the next piece begins
    float sink_ = 0.0F;      // what was read ends here, so that it is read
};

/// What a meter measured: medians, and the quartiles around them.
struct Timed {
    std::int64_t rounds = 0;
    double seconds = 0.0, seconds_low = 0.0, seconds_high = 0.0;
    double limit_seconds = 0.0;  ///< the least that the limits allow; 0: none is known
    double share = 0.0;          ///< median of limit / seconds, round by round
    std::string limit = {};      ///< "peak", "stream", "peak + stream", …; empty: none
};

struct MeterOptions {
    double seconds = 0.5;  ///< to spend on a row
    std::int64_t least_rounds = 3;
    std::int64_t most_rounds = 200;
    bool limits = true;  ///< measure the limits beside each round
};

/// Collects rounds of one row. Collective: every rank makes the same calls, and rank 0's clock
/// decides.
class Meter {
  public:
    Meter(DeviceLimits& limits, parallel::Communicator& world, const Clock& clock,
          MeterOptions options)
        : limits_(limits), world_(world), clock_(clock), options_(options) {}

    /// What a call cannot be faster than: of each part the slower of its operations and its bytes,
    /// one part after the other.
    void expect(std::vector<BenchWork> parts);
    /// Which peak operations are compared with; default fp32.
    void expect(kernels::Arithmetic kind) { arithmetic_ = kind; }

    /// Whether another round is wanted.
    [[nodiscard]] bool more();
    /// One round: calls `work` as often as it takes to be seen by the clock.
    template <class Work>
    void time(const Work& work) {
        if (repeats_ == 0) {
            const double begin_s = clock_.now_s();
            work();
            repeats_ = repeats_for(clock_.now_s() - begin_s);
        }
        world_.barrier("bench");
        const double begin_s = clock_.now_s();
        for (std::int64_t i = 0; i < repeats_; ++i) work();
        sample((clock_.now_s() - begin_s) / static_cast<double>(repeats_));
    }
    /// A round that was timed elsewhere; the limits are measured now.
    void sample(double seconds);
    /// A round beside what it is compared with instead of the limits.
    void sample_against(double seconds, double limit_seconds, const std::string& limit);
    /// Seconds of a named part of the last round.
    void part(const std::string& name, double seconds);

    [[nodiscard]] Timed measured() const;
    /// Medians.
    [[nodiscard]] std::vector<std::pair<std::string, double>> parts() const;

  private:
    [[nodiscard]] std::int64_t repeats_for(double seconds);

    DeviceLimits& limits_;
    parallel::Communicator& world_;
    const Clock& clock_;
    MeterOptions options_;
    std::vector<BenchWork> expected_;
    kernels::Arithmetic arithmetic_ = kernels::Arithmetic::fp32;
    double begin_s_ = -1.0;
    std::int64_t repeats_ = 0;
    std::vector<double> seconds_, limits_s_;
    std::vector<std::pair<std::string, std::vector<double>>> parts_;
    std::string limit_;
};

/// The value below which `share` of them lie, between two of them where it must. @throws
/// InternalError if there are none.
[[nodiscard]] double quantile(std::vector<double> values, double share);

}  // namespace rankwise::app
