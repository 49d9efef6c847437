// Where a model's weights come from: random numbers, or a Hugging Face folder.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
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

/// Reads every parameter of the table from a folder (F32, BF16, F16, widened exactly; F8_E4M3 with
/// scales of blocks). Packs.
/// @throws BadInput naming file and tensor: a missing tensor, another shape, a tensor in the folder
/// that is no parameter of the model (a rotary table or a copy of a tied embedding is no problem);
/// a value that is not finite.
void load_folder(Weights& weights, const std::filesystem::path& folder, Compute& compute);

/// How a folder is written.
struct ExportOptions {
    DType dtype = DType::f32;  ///< or bf16, to nearest even
    /// A new file begins before one that would grow beyond this.
    std::int64_t max_file_bytes = std::int64_t{5} << 30U;
};

/// Gives rows of a parameter as floats, row by row.
using ReadRows = std::function<void(ParameterId id, Range rows, std::span<float> values)>;

/// Writes config.json and safetensors of a model into `folder`, replacing what is there, a few rows
/// at a time: nobody needs the whole model in memory. The tokenizer is the caller's to write.
void export_folder(const ModelConfig& config, const ReadRows& read, io::FileSystem& fs,
                   const std::filesystem::path& folder, const ExportOptions& options = {});
/// The same of weights on a device. Collective over the ranks that share them; the first writes.
void export_folder(const Weights& weights, io::FileSystem& fs, const std::filesystem::path& folder,
                   Compute& compute);

}  // namespace rankwise::model
