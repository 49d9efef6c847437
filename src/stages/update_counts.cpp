#include "src/stages/update_counts.hpp"

#include <algorithm>
#include <vector>

namespace rankwise::stages {

void UpdateCounts::add(std::span<const update::SampleSize> samples,
                       const update::MinibatchPlan& plan) {
    chunks_ += std::count_if(plan.chunks.begin(), plan.chunks.end(),
                             [](const Range& chunk) { return !chunk.empty(); });
    bundles_ += std::ssize(plan.bundles);
    const auto group_of = [&](const update::Bundle& bundle) {
        return samples[static_cast<std::size_t>(bundle.samples.begin)].group;
    };
    // A group is cut where a bundle begins with its second or a later sample; counted once a group.
    for (std::size_t b = 1; b < plan.bundles.size(); ++b) {
        const std::int64_t group = group_of(plan.bundles[b]);
        const bool goes_on = group == group_of(plan.bundles[b - 1]);
        const bool counted = b >= 2 && group == group_of(plan.bundles[b - 2]);
        groups_cut_ += goes_on && !counted ? 1 : 0;
    }
}

void UpdateCounts::add_experts(const Environment& environment,
                               std::span<const std::int64_t> chunk_loads) {
    if (chunk_loads.empty()) return;
    std::vector<std::int64_t> loads(chunk_loads.begin(), chunk_loads.end());
    // Each tensor rank has routed its own tokens of the same chunks.
    environment.mesh.axis(parallel::Axis::tensor).all_reduce_sum("experts", loads);
    for (const std::int64_t load : loads) {
        empty_experts_ += load == 0 ? 1 : 0;
        most_tokens_ = std::max(most_tokens_, load);
    }
}

void UpdateCounts::append(const Environment& environment, const update::TokenCounts& before,
                          const update::TokenCounts& after, io::MetricLine& metrics) const {
    parallel::Communicator& data = environment.data();
    const std::int64_t rows = data.all_reduce_sum("update tokens", after.rows - before.rows);
    const std::int64_t shared =
        data.all_reduce_sum("update tokens shared", after.shared_rows - before.shared_rows);
    metrics.emplace_back("update/chunks", chunks_);
    metrics.emplace_back("update/bundles", bundles_);
    metrics.emplace_back("update/groups_cut", groups_cut_);
    metrics.emplace_back("update/tokens", rows);
    metrics.emplace_back("update/tokens_shared", shared);
    if (environment.models.at("policy").config().experts.routed == 0) return;
    parallel::Communicator& pipeline = environment.mesh.axis(parallel::Axis::pipeline);
    metrics.emplace_back(
        "experts/empty",
        pipeline.all_reduce_sum("experts", data.all_reduce_sum("experts", empty_experts_)));
    metrics.emplace_back(
        "experts/most_tokens",
        pipeline.all_reduce_max("experts", data.all_reduce_max("experts", most_tokens_)));
}

void IdleRanks::look_at(const Environment& environment, const update::MinibatchPlan& plan) {
    const std::int64_t ranks = environment.data().size();
    const std::int64_t chunks = std::ssize(plan.chunks);
    if (said_ || chunks == 0 || chunks >= ranks) return;
    said_ = true;
    if (environment.mesh.world().rank() > 0) return;
    environment.log.warning(
        "stage {}: an update is cut into {} micro-batches for {} data ranks, so that {} of them "
        "have nothing to compute. As few ranks as micro-batches are as fast; a higher "
        "chunk_multiple gives all of them work, but is another computation",
        environment.stage, chunks, ranks, ranks - chunks);
}

}  // namespace rankwise::stages
