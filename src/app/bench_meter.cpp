#include "src/app/bench_meter.hpp"

#include <algorithm>
#include <cmath>

namespace rankwise::app {
namespace {

/// What a round should last at least: much longer than a thread takes to wake.
constexpr double kRoundSeconds = 0.004;
/// Rounds of a spin between two looks at the clock: about a millisecond.
constexpr std::int64_t kSpinRounds = 300'000;
/// Bytes read beside a round.
constexpr std::int64_t kPieceBytes = std::int64_t{64} << 20;

}  // namespace

DeviceLimits::DeviceLimits(kernels::Device& device, kernels::Stream& stream, const Clock& clock,
                           std::int64_t stream_bytes)
    : device_(device), stream_(stream), clock_(clock), stream_bytes_(stream_bytes) {}

double DeviceLimits::flop_per_s(kernels::Arithmetic kind) {
    const double begin_s = clock_.now_s();
    const std::int64_t flop = device_.spin(kind, kSpinRounds, stream_);
    return static_cast<double>(flop) / std::max(clock_.now_s() - begin_s, 1e-9);
}

void DeviceLimits::prepare_stream() {
    if (!memory_.span().empty()) return;
    memory_ = kernels::DeviceBuffer<float>(
        device_, stream_bytes_ / static_cast<std::int64_t>(sizeof(float)));
    device_.zero(cast_span<std::byte>(memory_.span()), stream_);  // so that there is memory behind
}

double DeviceLimits::bytes_per_s(int pattern) {
    prepare_stream();
    const double begin_s = clock_.now_s();
    sink_ += device_.read(memory_.span(), pattern, stream_);
    return static_cast<double>(memory_.span().size_bytes()) /
           std::max(clock_.now_s() - begin_s, 1e-9);
}

double DeviceLimits::bytes_per_s() {
    prepare_stream();
    if (pattern_ < 0) {
        double best = 0.0;
        for (int pattern = 0; pattern < device_.read_patterns(); ++pattern) {
            const double rate = std::max(bytes_per_s(pattern), bytes_per_s(pattern));
            if (rate > best) {
                best = rate;
                pattern_ = pattern;
            }
        }
    }
    const std::int64_t size =
        std::min(kPieceBytes / static_cast<std::int64_t>(sizeof(float)), memory_.size());
    if (next_ + size > memory_.size()) next_ = 0;
    const double begin_s = clock_.now_s();
    sink_ += device_.read(memory_.span().subspan(next_, size), pattern_, stream_);
    next_ += size;
    return static_cast<double>(size) * sizeof(float) / std::max(clock_.now_s() - begin_s, 1e-9);
}

void Meter::expect(std::vector<BenchWork> parts) {
    if (options_.limits) expected_ = std::move(parts);
}

bool Meter::more() {
    const double now_s = clock_.now_s();
    if (begin_s_ < 0.0) begin_s_ = now_s;
    const auto rounds = static_cast<std::int64_t>(seconds_.size());
    const bool wanted = rounds < options_.least_rounds ||
                        (rounds < options_.most_rounds && now_s - begin_s_ < options_.seconds);
    std::vector<std::int64_t> agreed{wanted ? 1 : 0};
    world_.broadcast("bench", agreed, 0);
    return agreed.front() == 1;
}

std::int64_t Meter::repeats_for(double seconds) {
    std::vector<std::int64_t> agreed{static_cast<std::int64_t>(
        std::clamp(std::ceil(kRoundSeconds / std::max(seconds, 1e-9)), 1.0, 1e6))};
    world_.broadcast("bench", agreed, 0);
    return agreed.front();
}

void Meter::sample(double seconds) {
    double limit_s = 0.0;
    bool peak = false;
    bool stream = false;
    const auto any = [&](auto member) {
        return std::ranges::any_of(expected_,
                                   [&](const BenchWork& part) { return part.*member > 0.0; });
    };
    const double flop_per_s = any(&BenchWork::flop) ? limits_.flop_per_s(arithmetic_) : 0.0;
    const double bytes_per_s = any(&BenchWork::bytes) ? limits_.bytes_per_s() : 0.0;
    for (const BenchWork& part : expected_) {
        const double by_flop = flop_per_s > 0.0 ? part.flop / flop_per_s : 0.0;
        const double by_bytes = bytes_per_s > 0.0 ? part.bytes / bytes_per_s : 0.0;
        limit_s += std::max(by_flop, by_bytes);
        if (by_flop >= by_bytes && by_flop > 0.0) peak = true;
        if (by_bytes > by_flop) stream = true;
    }
    sample_against(seconds, limit_s,
                   peak && stream ? "peak + stream"
                   : peak         ? "peak"
                   : stream       ? "stream"
                                  : "");
}

void Meter::sample_against(double seconds, double limit_seconds, const std::string& limit) {
    seconds_.push_back(seconds);
    limits_s_.push_back(limit_seconds);
    limit_ = limit;
}

void Meter::part(const std::string& name, double seconds) {
    auto place =
        std::ranges::find(parts_, name, &std::pair<std::string, std::vector<double>>::first);
    if (place == parts_.end()) place = parts_.insert(parts_.end(), {name, {}});
    place->second.push_back(seconds);
}

Timed Meter::measured() const {
    Timed measured{.rounds = static_cast<std::int64_t>(seconds_.size()), .limit = limit_};
    if (seconds_.empty()) return measured;
    measured.seconds = quantile(seconds_, 0.5);
    measured.seconds_low = quantile(seconds_, 0.25);
    measured.seconds_high = quantile(seconds_, 0.75);
    if (limit_.empty()) return measured;
    measured.limit_seconds = quantile(limits_s_, 0.5);
    std::vector<double> shares;
    for (std::size_t i = 0; i < seconds_.size(); ++i) shares.push_back(limits_s_[i] / seconds_[i]);
    measured.share = quantile(shares, 0.5);
    return measured;
}

std::vector<std::pair<std::string, double>> Meter::parts() const {
    std::vector<std::pair<std::string, double>> medians;
    for (const auto& [name, seconds] : parts_) medians.emplace_back(name, quantile(seconds, 0.5));
    return medians;
}

double quantile(std::vector<double> values, double share) {
    ensure(!values.empty(), "a quantile of nothing");
    std::sort(values.begin(), values.end());
    const double place = share * static_cast<double>(values.size() - 1);
    const auto below = static_cast<std::size_t>(place);
    if (below + 1 >= values.size()) return values.back();
    return values[below] + (place - std::floor(place)) * (values[below + 1] - values[below]);
}

}  // namespace rankwise::app
