// Where a model's weights come from: random numbers, or a Hugging Face folder.
#pragma once

#include <filesystem>
#include <span>

#include "io/fs.hpp"
#include "src/model/weights.hpp"

namespace rankwise::model {

/// Standard deviations of random weights.
struct InitOptions {
    double std = 0.02;           ///< of matrices
    bool scale_residual = true;  ///< o_proj and down_proj: divided by sqrt(2 layers) (GPT-2)
};

/// Normal weights (Box-Muller over Philox, purpose `initialisation`, stream = parameter, position =
/// row, so that any rank can make any row), norms 1, biases 0. Packs.
void initialise(Weights& weights, const InitOptions& options, std::uint64_t seed, Compute& compute);

/// Reads every parameter of the table from a folder (F32, BF16, F16, widened exactly). Packs.
/// @throws BadInput naming file and tensor: a missing tensor, another shape, a tensor in the folder
/// that is no parameter of the model (a rotary table or a copy of a tied embedding is no problem).
void load_folder(Weights& weights, const std::filesystem::path& folder, Compute& compute);

/// Writes config.json and safetensors (F32) into `folder`, replacing what is there. The tokenizer
/// is the caller's to write.
void export_folder(const Weights& weights, io::FileSystem& fs, const std::filesystem::path& folder,
                   Compute& compute);

}  // namespace rankwise::model
