// What one rank holds of every parameter, without its weights: for weights, checkpoints and plans
// of both.
#pragma once

#include <string>
#include <vector>

#include "parallel/pipeline_schedule.hpp"
#include "src/model/pipeline_part.hpp"

namespace rankwise::model {

/// By parameter, in the table's order, over the axes that split a model. Data ranks share out the
/// rows of these parts.
struct HeldParts {
    std::vector<Box> boxes;                       ///< this rank's part; without rows: none
    std::vector<Shape> shapes;                    ///< of the parts
    std::vector<bool> counts;                     ///< what several ranks hold counts on the lowest
    std::vector<parallel::DataRanks> data_ranks;  ///< that hold the part
};

[[nodiscard]] HeldParts held_parts(const ModelConfig& config, const DecoderParameters& parameters,
                                   TensorPlace place, const PipelinePart& pipeline);

/// Rows that a data rank of so many writes into a checkpoint: those that it owns of the parts that
/// count on its other axes. The same whatever `zero` is.
/// @param left_out  by parameter: those that nothing is saved of. Empty: none
[[nodiscard]] std::vector<parallel::ShardPiece> saved_rows(const HeldParts& parts, int data_ranks,
                                                           int data_rank,
                                                           const std::vector<bool>& left_out = {});

/// Why a model cannot be dealt to the ranks of a mesh, one sentence for each axis, with the degrees
/// that it can have: "tensor = 3: [model.policy] has …". Empty: it can.
/// @param who  what the model is called
[[nodiscard]] std::vector<std::string> misfits(const std::string& who, const ModelConfig& config,
                                               const parallel::MeshShape& shape,
                                               parallel::Schedule schedule);

}  // namespace rankwise::model
