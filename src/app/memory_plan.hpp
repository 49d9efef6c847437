// The memory that a run will need, known before it begins.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "parallel/mesh.hpp"
#include "src/app/phase_traffic.hpp"
#include "src/app/session.hpp"
#include "src/model/config.hpp"
#include "src/stages/stage_table.hpp"

namespace rankwise::app {

/// Most bytes that a stage takes on a rank.
struct StageMemory {
    std::string stage, kind, model;
    std::int64_t policy = 0;         ///< masters and packed copies
    std::int64_t reference = 0;      ///< the other models of the set
    std::int64_t gradients = 0;      ///< a minibatch's totals
    std::int64_t optimizer = 0;      ///< moments
    std::int64_t cache = 0;          ///< keys and values of answers under way
    std::int64_t activations = 0;    ///< kept for backward passes, all that are under way
    std::int64_t buffers = 0;        ///< beside these: logits, gradients of a chunk, messages
    std::int64_t saving = 0;         ///< at most copied of what is written in the background
    std::vector<PhaseTraffic> sent;  ///< in the order of a step; without what sends nothing
    /// All of it, without what the program takes by itself.
    [[nodiscard]] std::int64_t bytes() const {
        return policy + reference + gradients + optimizer + cache + activations + buffers + saving;
    }
    std::int64_t reserve = 0;  ///< scratch memory of the rank that planned
};

/// Builds the stage on a kernels::PlanDevice, over a mirror of the run's ranks, and goes through
/// the largest allocations of a step. Answers are taken to be as long as they may become. Of
/// pipeline ranks the memory of the one that needs most, and of each row of `sent` the most.
/// @param environment  of the run: its task and names are used, its device for layouts
[[nodiscard]] StageMemory rehearse(const stages::StageRecipe& recipe,
                                   const stages::Environment& environment,
                                   const parallel::MeshShape& shape,
                                   const stages::PhysicalOptions& physical,
                                   const model::ModelConfig& config);

/// The stage that needs most.
[[nodiscard]] const StageMemory& largest(std::span<const StageMemory> plan);

/// A table, a row a stage, in MB (10^6 bytes). @param program  bytes that the process takes by
/// itself
[[nodiscard]] std::string memory_table(std::span<const StageMemory> plan, std::int64_t program);
/// The same for what a rank sends; empty if nobody sends anything.
[[nodiscard]] std::string traffic_table(std::span<const StageMemory> plan);
/// "memory: at most 171 MB a rank, in stage zero (program 38, policy 13, …)"
[[nodiscard]] std::string memory_line(std::span<const StageMemory> plan, std::int64_t program);
[[nodiscard]] std::string megabytes(std::int64_t bytes);

/// What the process takes before it has a model, and what its libraries and lists will take by the
/// time that it has saved and evaluated (a constant, measured).
[[nodiscard]] std::int64_t program_bytes();

/// Bytes that this process holds now, and the most that it held since reset_peak().
[[nodiscard]] std::int64_t resident_bytes();
[[nodiscard]] std::int64_t peak_resident_bytes();
void reset_peak();
/// Bytes that this node, or the control group of this process, can still give; nothing if it does
/// not say.
[[nodiscard]] std::int64_t available_bytes();

/// @throws EnvironmentError with the table if `ranks_here` ranks that are to start here need more
/// than there is.
void require_memory(std::span<const StageMemory> plan, std::int64_t program, int ranks_here,
                    std::int64_t available);

}  // namespace rankwise::app
