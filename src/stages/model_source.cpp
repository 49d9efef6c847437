#include "src/stages/model_source.hpp"

#include <algorithm>

#include "io/checkpoint.hpp"
#include "src/model/initialise.hpp"
#include "src/stages/checkpointing.hpp"

namespace rankwise::stages {
namespace {

constexpr const char* kPolicy = "policy";

bool is_folder(const io::Path& path) {
    std::error_code error;
    return std::filesystem::is_directory(path, error);
}

bool has_steps(io::FileSystem& fs, const io::Path& path) {
    const std::vector<std::string> names = fs.list(path);
    return std::any_of(names.begin(), names.end(),
                       [](const std::string& name) { return io::step_of(name).has_value(); });
}

bool has_shards(io::FileSystem& fs, const io::Path& path) {
    const std::vector<std::string> names = fs.list(path);
    return std::any_of(names.begin(), names.end(), [](const std::string& name) {
        return name.starts_with("shard_") && name.ends_with(".h5");
    });
}

io::Path newest_checkpoint(io::FileSystem& fs, const io::Path& directory,
                           std::vector<std::string>& notes) {
    io::Found found = io::find_latest(fs, directory, io::Check::sizes);
    if (found.path) {
        notes = std::move(found.passed_by);
        return *found.path;
    }
    if (!found.passed_by.empty()) {
        throw CorruptFile(fmt::format("{}: no checkpoint is whole: {}", directory.string(),
                                      fmt::join(found.passed_by, "; ")));
    }
    throw BadInput(fmt::format("{}: there is no checkpoint yet", directory.string()));
}

/// The folder that a path stands for.
io::Path resolve(io::FileSystem& fs, const io::Path& path, std::vector<std::string>& notes) {
    require(fs.exists(path),
            "{}: there is no such model; give a model folder, a checkpoint or a run",
            path.string());
    require(
        is_folder(path),
        "{}: is a file; give a model folder (config.json, *.safetensors), a checkpoint or a run",
        path.string());
    // A half-written checkpoint is one too: reading its manifest says what is wrong with it.
    if (fs.exists(path / "manifest.h5") || has_shards(fs, path) ||
        fs.exists(path / "config.json")) {
        return path;
    }
    if (fs.exists(path / "checkpoints")) return newest_checkpoint(fs, path / "checkpoints", notes);
    if (has_steps(fs, path)) return newest_checkpoint(fs, path, notes);
    throw BadInput(
        fmt::format("{}: is neither a model folder (config.json), a checkpoint (manifest.h5) nor a "
                    "run (checkpoints)",
                    path.string()));
}

const std::string& saved_text(const io::CheckpointReader& reader, const std::string& name) {
    const auto& values = reader.state().values;
    const auto found = values.find(name);
    require(found != values.end() && std::holds_alternative<std::string>(found->second),
            "{}: holds no {}: it was saved by an older version of this program; go on with its run "
            "for a step, which saves anew",
            reader.path().string(), name);
    return std::get<std::string>(found->second);
}

text::Tokenizer saved_tokenizer(const io::CheckpointReader& reader) {
    const auto& values = reader.state().values;
    const auto beside = [&](const char* file) {
        const std::string name = tokenizer_value(file);
        return values.contains(name) ? saved_text(reader, name) : std::string();
    };
    return text::Tokenizer::from_json(saved_text(reader, tokenizer_value("tokenizer.json")),
                                      (reader.path() / "tokenizer.json").string(),
                                      beside("tokenizer_config.json"),
                                      beside("generation_config.json"));
}

}  // namespace

ModelSource ModelSource::open(io::FileSystem& fs, const io::Path& path) {
    std::vector<std::string> notes;
    const io::Path resolved = resolve(fs, path, notes);
    return {fs, resolved, std::move(notes)};
}

ModelSource::ModelSource(io::FileSystem& fs, io::Path path, std::vector<std::string> notes)
    : fs_(&fs), path_(std::move(path)), notes_(std::move(notes)) {
    if (fs.exists(path_ / "config.json")) {
        config_ = model::read_config(path_);
        folder_ = std::make_unique<io::SafetensorsFolder>(path_, model::read_fp8_blocks(path_));
        if (fs.exists(path_ / "tokenizer.json")) tokenizer_ = text::Tokenizer::from_file(path_);
    } else {
        checkpoint_ = std::make_unique<io::CheckpointReader>(fs, path_);
        const std::string name = config_value(kPolicy);
        config_ = model::config_from_json(saved_text(*checkpoint_, name),
                                          fmt::format("{}: {}", path_.string(), name));
        tokenizer_ = saved_tokenizer(*checkpoint_);
    }
    require(!tokenizer_ || tokenizer_->vocab_size() <= config_.vocab_size,
            "{}: the tokenizer has {} ids, but the model's vocabulary {}: they do not belong "
            "together",
            path_.string(), tokenizer_ ? tokenizer_->vocab_size() : 0, config_.vocab_size);
}

std::string ModelSource::title() const {
    if (!checkpoint_) return path_.string();
    return fmt::format("checkpoint {} (stage {})", path_.string(), checkpoint_->state().stage);
}

void ModelSource::require_same_model(const model::ModelConfig& config) const {
    const std::vector<std::string> list = model::differences(config_, config);
    require(list.empty(),
            "{}: is another model than the run's: {}; weights go only between equal "
            "models",
            path_.string(), fmt::join(list, "; "));
}

UInt128 ModelSource::fingerprint() const {
    if (checkpoint_) return io::manifest_digest(*fs_, path_);
    constexpr std::size_t kTensors = 4096;  // of which bytes are read
    constexpr std::size_t kBytes = 64;
    const std::string config = model::to_json(config_);
    UInt128 digest = xxh3_128(config.data(), config.size());
    const std::vector<std::string>& names = folder_->names();
    const std::size_t stride = 1 + names.size() / kTensors;
    for (std::size_t i = 0; i < names.size(); ++i) {
        const io::SafetensorsEntry& tensor = folder_->at(names[i]);
        const std::string what =
            fmt::format("{} {} {}", names[i], name_of(tensor.dtype), fmt::join(tensor.shape, ","));
        digest += xxh3_128(what.data(), what.size());
        if (i % stride != 0) continue;
        const std::size_t size = std::min(kBytes, tensor.bytes.size());
        for (const std::size_t at : {std::size_t{0}, (tensor.bytes.size() - size) / 2}) {
            const auto some = tensor.bytes.subspan(at, size);
            digest += xxh3_128(some.data(), some.size(), i);
        }
    }
    return digest;
}

void ModelSource::load(model::Weights& weights, model::Compute& compute) const {
    if (checkpoint_) {
        load_weights(*checkpoint_, kPolicy, weights, compute);
    } else {
        model::load_folder(weights, path_, compute);
    }
}

void ModelSource::read_rows(const Parameter& parameter, ParameterId id, Range rows,
                            std::span<float> values) const {
    const Box box{rows, {0, parameter.shape.cols}};
    if (checkpoint_) {
        checkpoint_->read(kPolicy, kWeightsKind, id, box, DType::f32,
                          std::as_writable_bytes(values));
    } else {
        folder_->require_shape(parameter.name, parameter.shape);
        folder_->read(parameter.name, box, values);
    }
}

void ModelSource::finish() const {
    if (checkpoint_) checkpoint_->finish();
}

void require_same_tokens(const text::Tokenizer& a, const std::string& a_name,
                         const text::Tokenizer& b, const std::string& b_name) {
    const std::int64_t common = std::min(a.vocab_size(), b.vocab_size());
    for (std::int64_t i = 0; i < common; ++i) {
        const auto id = static_cast<TokenId>(i);
        const std::string in_a = a.token(id);
        const std::string in_b = b.token(id);
        require(in_a == in_b,
                "id {} is the token '{}' of {}, but '{}' of {}: the models speak different "
                "vocabularies",
                i, in_a, a_name, in_b, b_name);
    }
}

}  // namespace rankwise::stages
