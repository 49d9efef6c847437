// An update of a model as benchmarks measure it.
#pragma once

#include <cstdint>
#include <vector>

#include "src/app/bench_rows.hpp"
#include "src/update/trainer.hpp"

namespace rankwise::app {

/// Tokens without meaning.
[[nodiscard]] std::vector<TokenId> bench_tokens(std::int64_t count, std::int64_t vocabulary,
                                                std::int64_t seed);

/// Forward, backward and AdamW over a model's usual sequences, shared out over the data ranks.
class BenchUpdate {
  public:
    /// @param policy  of that model; all three outlive this
    BenchUpdate(BenchContext& context, const BenchModel& model, model::Weights& policy);

    [[nodiscard]] update::Trainer& trainer() { return trainer_; }
    /// Collective.
    void step();

    /// Of one step, on this rank.
    [[nodiscard]] BenchWork work(const BenchContext& context) const;
    [[nodiscard]] RowFacts facts(const BenchContext& context) const;

  private:
    const BenchModel& model_;
    update::Trainer trainer_;
    update::PlanOptions plan_options_;
    std::vector<std::vector<TokenId>> sequences_;
    update::MinibatchPlan plan_;
};

}  // namespace rankwise::app
