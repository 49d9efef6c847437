#include "kernels/cpu/sample_filter.hpp"

#include <algorithm>
#include <functional>

namespace rankwise::kernels::cpu {

void SampleFilter::filter(const SampleRow& row, Exp exp) {
    const bool has_nan = std::ranges::any_of(x_, [](double x) { return x != x; });
    if (!has_nan && row.top_k > 0) keep_top_k(row.top_k);
    weigh(exp);
    if (has_nan) return;
    if (row.top_p < 1.0) keep_top_p(row.top_p);
    if (row.min_p > 0.0) keep_min_p(row.min_p);
}

void SampleFilter::keep_top_k(std::int64_t k) {
    const auto count = static_cast<std::size_t>(k);
    if (count >= x_.size()) return;
    sorted_ = x_;
    const auto place = sorted_.begin() + (k - 1);
    std::nth_element(sorted_.begin(), place, sorted_.end(), std::greater<>());
    const double limit = *place;
    for (double& x : x_) {
        if (x < limit) x = kDropped;
    }
}

void SampleFilter::weigh(Exp exp) {
    double largest = kDropped;
    for (double x : x_) largest = std::max(largest, x);
    weight_.resize(x_.size());
    for (std::size_t i = 0; i < x_.size(); ++i) weight_[i] = x_[i] - largest;
    exp(weight_.data(), weight_.data(), static_cast<std::int64_t>(weight_.size()));
    add_up();
}

void SampleFilter::add_up() {
    sum_ = 0.0;
    for (double weight : weight_) sum_ += weight;
}

void SampleFilter::drop(std::size_t id) {
    x_[id] = kDropped;
    weight_[id] = 0.0;
}

void SampleFilter::keep_top_p(double top_p) {
    // Ids whose probability is below (1 - top_p) / ids come after top_p is reached: only the others
    // are ranked.
    const double small = 0.5 * (1.0 - top_p) / static_cast<double>(x_.size());
    candidates_.clear();
    for (std::size_t i = 0; i < x_.size(); ++i) {
        if (probability(i) > small) {
            candidates_.push_back({weight_[i], i});
        } else {
            drop(i);
        }
    }
    if (candidates_.empty()) return;
    const auto later = [](const Candidate& a, const Candidate& b) {
        return a.weight != b.weight ? a.weight < b.weight : a.id > b.id;
    };
    auto end = candidates_.end();
    std::make_heap(candidates_.begin(), end, later);
    double before = 0.0;  // the share of those that come first
    do {
        before += candidates_.front().weight / sum_;
        std::pop_heap(candidates_.begin(), end--, later);
    } while (end != candidates_.begin() && before < top_p);
    for (auto rest = candidates_.begin(); rest != end; ++rest) drop(rest->id);
    add_up();
}

void SampleFilter::keep_min_p(double min_p) {
    double largest = 0.0;
    for (double weight : weight_) largest = std::max(largest, weight);
    const double limit = min_p * (largest / sum_);
    for (std::size_t i = 0; i < x_.size(); ++i) {
        if (probability(i) < limit) drop(i);
    }
    add_up();
}

}  // namespace rankwise::kernels::cpu
