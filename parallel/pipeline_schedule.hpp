// In which order a pipeline rank works through micro-batches: pure lists, without ranks or clocks.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace rankwise::parallel {

// P ranks, M micro-batches, V virtual stages a rank: virtual stage v of rank p is stage v P + p of
// the model. The share of time that a rank idles (the bubble), where the backward pass takes twice
// a forward pass and messages no time:
//
//   1f1b         (P - 1) / (M + P - 1)
//   interleaved  (P - 1) / (V M + P - 1) where P divides M; a little more where it does not
//   zero_bubble  (P - 1) / (3 M + P - 1) where M >= P

/// 1f1b: one forward, one backward (PipeDream-Flush; Narayanan et al. 2021). interleaved: the same
/// over several virtual stages a rank (Narayanan et al. 2021, section 2.2). zero_bubble: gradients
/// of weights are split off and fill what would be idle (Qi et al. 2023, schedule H1).
enum class Schedule : std::uint8_t { one_forward_one_backward, interleaved, zero_bubble };

/// "1f1b", "interleaved", "zero_bubble".
[[nodiscard]] std::string_view name_of(Schedule schedule);
[[nodiscard]] std::vector<std::string> schedule_names();
/// @throws InternalError for another name.
[[nodiscard]] Schedule schedule_of(std::string_view name);
/// Virtual stages that a rank has under a schedule: 2 where interleaved, else 1.
[[nodiscard]] int virtual_stages_of(Schedule schedule);

enum class StepKind : std::uint8_t {
    forward,
    backward,         ///< gradients of inputs and weights
    backward_input,   ///< zero_bubble: of inputs, which the stage before waits for
    backward_weight,  ///< and of weights, which nobody waits for
};

struct PipelineStep {
    StepKind kind = StepKind::forward;
    std::int64_t micro_batch = 0;
    int virtual_stage = 0;
    friend bool operator==(const PipelineStep&, const PipelineStep&) = default;
};

/// What `rank` of `ranks` does, in order. Every kind of work of one virtual stage comes in
/// ascending order of micro-batches, so that each parameter's gradients do (NUMERICS N3), and a
/// rank sends in the order in which its neighbour expects. In flight at most: 1f1b min(P - p, M);
/// interleaved min(2 (P - 1 - p) + (V - 1) P + 1, V M); zero_bubble min(P, M).
[[nodiscard]] std::vector<PipelineStep> pipeline_steps(Schedule schedule, int ranks, int rank,
                                                       std::int64_t micro_batches,
                                                       int virtual_stages);

/// The forward steps alone, for passes that do not go back.
[[nodiscard]] std::vector<PipelineStep> forward_steps(int ranks, int rank,
                                                      std::int64_t micro_batches,
                                                      int virtual_stages);

/// Most passes (micro-batch and virtual stage) at a time that have gone forward and are not done:
/// what they keep is in memory.
[[nodiscard]] std::int64_t most_in_flight(std::span<const PipelineStep> steps);

}  // namespace rankwise::parallel
