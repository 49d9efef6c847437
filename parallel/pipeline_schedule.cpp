#include "parallel/pipeline_schedule.hpp"

#include <algorithm>

#include "src/base/checked.hpp"

namespace rankwise::parallel {
namespace {

constexpr std::string_view kNames[] = {"1f1b", "interleaved", "zero_bubble"};

std::vector<PipelineStep> one_forward_one_backward(int ranks, int rank, std::int64_t count) {
    const std::int64_t ahead = std::min<std::int64_t>(ranks - 1 - rank, count);
    std::vector<PipelineStep> steps;
    for (std::int64_t m = 0; m < ahead; ++m) steps.push_back({StepKind::forward, m, 0});
    for (std::int64_t m = 0; m < count; ++m) {
        if (ahead + m < count) steps.push_back({StepKind::forward, ahead + m, 0});
        steps.push_back({StepKind::backward, m, 0});
    }
    return steps;
}

/// Rank p puts the gradients of weights off by p micro-batches: so the first P micro-batches go
/// back to the first rank without a pause, and every rank has as many in flight.
std::vector<PipelineStep> zero_bubble(int ranks, int rank, std::int64_t count) {
    const std::int64_t ahead = std::min<std::int64_t>(ranks - 1 - rank, count);
    std::vector<PipelineStep> steps;
    for (std::int64_t m = 0; m < ahead; ++m) steps.push_back({StepKind::forward, m, 0});
    for (std::int64_t m = 0; m < count; ++m) {
        if (ahead + m < count) steps.push_back({StepKind::forward, ahead + m, 0});
        steps.push_back({StepKind::backward_input, m, 0});
        if (m >= rank) steps.push_back({StepKind::backward_weight, m - rank, 0});
    }
    for (std::int64_t m = std::max<std::int64_t>(0, count - rank); m < count; ++m)
        steps.push_back({StepKind::backward_weight, m, 0});
    return steps;
}

/// Micro-batches go in groups of P: each group through virtual stage 0, then 1, …; backward in the
/// reverse order of virtual stages. An incomplete last group is a complete one of which some are
/// left out: what is left waits for nothing that is not there.
std::vector<PipelineStep> interleaved(int ranks, int rank, std::int64_t count, int virtual_stages) {
    const std::int64_t group = std::int64_t{ranks} * virtual_stages;
    const std::int64_t total = round_up(count, ranks) * virtual_stages;
    std::vector<PipelineStep> steps;
    const auto add = [&](StepKind kind, std::int64_t index) {
        const std::int64_t micro_batch = index / group * ranks + index % ranks;
        const int stage = narrow<int>(index % group / ranks);
        if (micro_batch >= count) return;
        steps.push_back(
            {kind, micro_batch, kind == StepKind::forward ? stage : virtual_stages - 1 - stage});
    };
    const std::int64_t ahead = std::min(
        2 * std::int64_t{ranks - 1 - rank} + (virtual_stages - 1) * std::int64_t{ranks}, total);
    for (std::int64_t i = 0; i < ahead; ++i) add(StepKind::forward, i);
    for (std::int64_t i = 0; i < total; ++i) {
        if (ahead + i < total) add(StepKind::forward, ahead + i);
        add(StepKind::backward, i);
    }
    return steps;
}

}  // namespace

std::string_view name_of(Schedule schedule) {
    return kNames[static_cast<std::size_t>(schedule)];
}

std::vector<std::string> schedule_names() {
    return {std::begin(kNames), std::end(kNames)};
}

Schedule schedule_of(std::string_view name) {
    const auto found = std::find(std::begin(kNames), std::end(kNames), name);
    ensure(found != std::end(kNames), "no pipeline schedule is named {}", name);
    return static_cast<Schedule>(found - std::begin(kNames));
}

int virtual_stages_of(Schedule schedule) {
    return schedule == Schedule::interleaved ? 2 : 1;
}

std::vector<PipelineStep> pipeline_steps(Schedule schedule, int ranks, int rank,
                                         std::int64_t micro_batches, int virtual_stages) {
    ensure(rank >= 0 && rank < ranks && virtual_stages >= 1,
           "a schedule of rank {} of {} with {} virtual stages", rank, ranks, virtual_stages);
    if (schedule == Schedule::interleaved)
        return interleaved(ranks, rank, micro_batches, virtual_stages);
    ensure(virtual_stages == 1, "schedule {} with {} virtual stages", name_of(schedule),
           virtual_stages);
    if (schedule == Schedule::zero_bubble) return zero_bubble(ranks, rank, micro_batches);
    return one_forward_one_backward(ranks, rank, micro_batches);
}

std::vector<PipelineStep> forward_steps(int ranks, int rank, std::int64_t micro_batches,
                                        int virtual_stages) {
    const Schedule schedule =
        virtual_stages > 1 ? Schedule::interleaved : Schedule::one_forward_one_backward;
    std::vector<PipelineStep> steps =
        pipeline_steps(schedule, ranks, rank, micro_batches, virtual_stages);
    std::erase_if(steps, [](const PipelineStep& step) { return step.kind != StepKind::forward; });
    return steps;
}

std::int64_t most_in_flight(std::span<const PipelineStep> steps) {
    std::int64_t now = 0;
    std::int64_t most = 0;
    for (const PipelineStep& step : steps) {
        if (step.kind == StepKind::forward) most = std::max(most, ++now);
        if (step.kind == StepKind::backward || step.kind == StepKind::backward_weight) --now;
    }
    return most;
}

}  // namespace rankwise::parallel
