#include "src/app/inference.hpp"

#include <fmt/format.h>

#include <cstdio>

#include "src/app/command_io.hpp"
#include "src/app/recipe.hpp"

namespace rankwise::app {

void InferenceOptions::read(const Arguments& arguments, std::vector<std::string>& problems) {
    Recipe settings("", "command line", arguments.settings);
    settings.bind("device", device.options());
    settings.bind("generation", generation.options());
    try {
        settings.finish();
    } catch (const Problems& found) {
        problems.insert(problems.end(), found.list().begin(), found.list().end());
    }
}

Inference::Inference(Session& session, const InferenceOptions& options, const std::string& model,
                     const std::string& tokenizer)
    : session_(session), options_(options), fs_(io::posix_file_system()) {
    // A run that goes on may write a newer checkpoint meanwhile: one rank says which it is.
    std::string path;
    session.start_on_main([&] {
        const stages::ModelSource source = stages::ModelSource::open(*fs_, model);
        path = source.path().string();
        notes_ = source.notes();
    });
    broadcast_text(session, "model:path", path);
    session.start_together([&] { build(path, tokenizer); });
    if (session.size() > 1) {
        session.require_same("model", to_hex(weights_->digest(*compute_)),
                             "every rank must see the same files: put it on a shared file system");
    }
    if (session.rank() != 0) return;
    for (const std::string& note : notes_) fmt::print(stderr, "passed by: {}\n", note);
}

void Inference::build(const std::string& model, const std::string& tokenizer) {
    const stages::ModelSource source = stages::ModelSource::open(*fs_, model);
    tokenizer_ =
        tokenizer.empty() ? source.tokenizer() : text::Tokenizer::from_file(io::Path(tokenizer));
    require(!tokenizer_ || tokenizer_->vocab_size() <= source.config().vocab_size,
            "{}: has {} ids, but the vocabulary of {} {}: they do not belong together", tokenizer,
            tokenizer_ ? tokenizer_->vocab_size() : 0, source.path().string(),
            source.config().vocab_size);
    device_ = options_.device.make();
    stream_ = device_->make_stream();
    arena_ = std::make_unique<kernels::Arena>(*device_);
    compute_ = std::make_unique<model::Compute>(model::Compute{*device_, *stream_, *arena_});
    weights_ = std::make_unique<model::Weights>(*device_, source.config(), model::Passes::forward);
    source.load(*weights_, *compute_);
    title_ = source.title();
}

std::string Inference::title() const {
    return fmt::format("{}: {} with {} parameters, {} rank{}, {}", title_,
                       model::name_of(config().family), weights_->table().elements(),
                       session_.size(), session_.size() == 1 ? "" : "s", device_->description());
}

std::vector<TokenId> Inference::encode(std::string_view text, bool add_special_tokens,
                                       const std::string& where) const {
    require(tokenizer_.has_value(),
            "{}: is text, but the model has no tokenizer.json; give --tokenizer, or ids", where);
    try {
        return tokenizer_->encode(text, add_special_tokens);
    } catch (const BadInput& error) {
        throw BadInput(fmt::format("{}: {}", where, error.what()));
    }
}

std::int64_t Inference::ids() const {
    return tokenizer_ ? tokenizer_->vocab_size() : config().vocab_size;
}

std::vector<TokenId> Inference::stop_ids() const {
    if (tokenizer_ && !tokenizer_->eos_ids().empty()) {
        return {tokenizer_->eos_ids().begin(), tokenizer_->eos_ids().end()};
    }
    return config().eos;
}

}  // namespace rankwise::app
