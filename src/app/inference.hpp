// What commands without a recipe compute with: a model from disk on this rank's device.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "io/fs.hpp"
#include "kernels/device.hpp"
#include "kernels/memory.hpp"
#include "src/app/command.hpp"
#include "src/app/engine_options.hpp"
#include "src/app/session.hpp"
#include "src/model/context.hpp"
#include "src/model/weights.hpp"
#include "src/stages/model_source.hpp"
#include "src/text/tokenizer.hpp"

namespace rankwise::app {

/// [device] and [generation], which such commands take as --section.key: how they compute, never
/// what.
struct InferenceOptions {
    DeviceOptions device;
    GenerationOptions generation;
    /// Adds what is wrong to `problems`.
    void read(const Arguments& arguments, std::vector<std::string>& problems);
};

/// One model's weights on every rank, forward passes only.
class Inference {
  public:
    /// Collective.
    /// @param model      anything that stages::ModelSource opens
    /// @param tokenizer  folder or tokenizer.json to take instead of the model's; empty: the
    ///                   model's
    /// @throws StartRefused on all ranks with what any of them cannot do.
    Inference(Session& session, const InferenceOptions& options, const std::string& model,
              const std::string& tokenizer);
    Inference(const Inference&) = delete;
    Inference& operator=(const Inference&) = delete;

    [[nodiscard]] Session& session() const { return session_; }
    [[nodiscard]] const InferenceOptions& options() const { return options_; }
    [[nodiscard]] model::Compute& compute() { return *compute_; }
    [[nodiscard]] const model::Weights& weights() const { return *weights_; }
    [[nodiscard]] const model::ModelConfig& config() const { return weights_->config(); }
    /// "models/qwen: 494,032,768 parameters, 2 ranks, cpu …"
    [[nodiscard]] std::string title() const;

    /// Null if there is none: the command then works with ids.
    [[nodiscard]] const text::Tokenizer* tokenizer() const {
        return tokenizer_ ? &*tokenizer_ : nullptr;
    }
    /// Ids of a text. @throws BadInput naming `where` if there is no tokenizer, or no token for a
    /// part of the text.
    [[nodiscard]] std::vector<TokenId> encode(std::string_view text, bool add_special_tokens,
                                              const std::string& where) const;
    /// Ids that may be drawn: the tokenizer's, else all rows of the vocabulary.
    [[nodiscard]] std::int64_t ids() const;
    /// Ids that end an answer: the tokenizer's, as in training; without any, the configuration's.
    [[nodiscard]] std::vector<TokenId> stop_ids() const;

  private:
    void build(const std::string& model, const std::string& tokenizer);

    Session& session_;
    InferenceOptions options_;
    std::unique_ptr<io::FileSystem> fs_;
    std::unique_ptr<kernels::Device> device_;
    std::unique_ptr<kernels::Stream> stream_;
    std::unique_ptr<kernels::Arena> arena_;
    std::unique_ptr<model::Compute> compute_;
    std::unique_ptr<model::Weights> weights_;
    std::optional<text::Tokenizer> tokenizer_;
    std::string title_;
    std::vector<std::string> notes_;
};

}  // namespace rankwise::app
