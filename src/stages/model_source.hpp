// A model on disk, by whatever path a person gives for it.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "io/checkpoint_reader.hpp"
#include "io/safetensors.hpp"
#include "src/model/weights.hpp"
#include "src/text/tokenizer.hpp"

namespace rankwise::stages {

/// One of
///   a Hugging Face folder                 config.json, *.safetensors, perhaps tokenizer.json
///   a checkpoint                          runs/NAME/checkpoints/step_00000120
///   a run, or its folder of checkpoints   stands for the newest checkpoint that is whole
/// Of a checkpoint the policy's weights are taken, with the configuration and the tokenizer saved
/// beside them; optimizer, cursors and other models are not.
class ModelSource {
  public:
    /// @param fs  outlives this
    /// @throws BadInput if the path is none of these, or a file of the model is missing or
    /// malformed; CorruptFile if a checkpoint is damaged or not whole (names the way out), or every
    /// checkpoint of a run is.
    [[nodiscard]] static ModelSource open(io::FileSystem& fs, const io::Path& path);

    /// What is read: the folder, or one checkpoint's.
    [[nodiscard]] const io::Path& path() const { return path_; }
    [[nodiscard]] bool is_checkpoint() const { return checkpoint_ != nullptr; }
    /// For people: "models/qwen", "checkpoint runs/a/checkpoints/step_00000120 (stage zero)".
    [[nodiscard]] std::string title() const;
    /// Newer checkpoints of the run that were passed by because they are not whole, and why.
    [[nodiscard]] const std::vector<std::string>& notes() const { return notes_; }

    [[nodiscard]] const model::ModelConfig& config() const { return config_; }
    /// Nothing if a model folder has no tokenizer.json.
    [[nodiscard]] const std::optional<text::Tokenizer>& tokenizer() const { return tokenizer_; }

    /// @throws BadInput listing every key in which `config` is another model (model::differences).
    void require_same_model(const model::ModelConfig& config) const;

    /// The same on ranks that see the same files. Of a checkpoint all of it, through the checksums
    /// in its manifest; of a folder the configuration, every tensor's name, type and shape, and
    /// some bytes of each (of some, where there are thousands): two trainings of a model differ in
    /// them. Cheap beside load().
    [[nodiscard]] UInt128 fingerprint() const;

    /// Fills weights of this model and packs. Reads everything and checks every checksum.
    /// @throws as model::load_folder or load_weights.
    void load(model::Weights& weights, model::Compute& compute) const;

    /// Rows of a parameter of decoder_parameters(config()), as floats, row by row.
    void read_rows(const Parameter& parameter, ParameterId id, Range rows,
                   std::span<float> values) const;
    /// After the last read_rows(): whether what was read is what was saved.
    /// @throws CorruptFile if not.
    void finish() const;

  private:
    ModelSource(io::FileSystem& fs, io::Path path, std::vector<std::string> notes);

    io::FileSystem* fs_;
    io::Path path_;
    std::vector<std::string> notes_;
    std::unique_ptr<io::CheckpointReader> checkpoint_;
    std::unique_ptr<io::SafetensorsFolder> folder_;
    model::ModelConfig config_;
    std::optional<text::Tokenizer> tokenizer_;
};

/// @throws BadInput unless every id that both tokenizers have is the same token in both; one may
/// have ids beyond the other's. The names stand for them in the message.
void require_same_tokens(const text::Tokenizer& a, const std::string& a_name,
                         const text::Tokenizer& b, const std::string& b_name);

}  // namespace rankwise::stages
