// Which ids a row may be sampled from.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/sample.hpp"

namespace rankwise::kernels::cpu {

/// Applies a row's filters in double. Memory is kept for the next row; one per thread.
class SampleFilter {
  public:
    /// exp of an array of doubles, in place (MathsKernels::exp_double).
    using Exp = void (*)(const double* from, double* to, std::int64_t count);

    /// top_k, top_p, then min_p on logits / temperature; temperature > 0. A row with a NaN is left
    /// unfiltered. Sums run over ids ascending, that of top_p over what it keeps, the most probable
    /// first.
    template <class Float>
    void apply(std::span<const Float> logits, const SampleRow& row, Exp exp) {
        x_.resize(logits.size());
        for (std::size_t i = 0; i < logits.size(); ++i) {
            x_[i] = static_cast<double>(logits[i]) / row.temperature;
        }
        filter(row, exp);
    }
    /// Whether an id may be chosen.
    [[nodiscard]] bool kept(std::size_t id) const { return x_[id] != kDropped; }
    /// The softmax over the ids that are kept: 0 for the others.
    [[nodiscard]] double probability(std::size_t id) const { return weight_[id] / sum_; }

  private:
    struct Candidate {
        double weight;
        std::size_t id;
    };
    static constexpr double kDropped = -__builtin_inf();

    void filter(const SampleRow& row, Exp exp);
    void keep_top_k(std::int64_t k);
    void keep_top_p(double top_p);
    void keep_min_p(double min_p);
    void weigh(Exp exp);
    void add_up();
    void drop(std::size_t id);

    std::vector<double> x_;       // logit / temperature; kDropped: not kept
    std::vector<double> weight_;  // exp(x - largest x)
    std::vector<Candidate> candidates_;
    std::vector<double> sorted_;
    double sum_ = 0.0;  // of the weights
};

}  // namespace rankwise::kernels::cpu
