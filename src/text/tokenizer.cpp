#include "src/text/tokenizer.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "src/base/error.hpp"
#include "src/text/added_tokens.hpp"
#include "src/text/decoder.hpp"
#include "src/text/model.hpp"
#include "src/text/normalizer.hpp"
#include "src/text/post_processor.hpp"
#include "src/text/pre_tokenizer.hpp"
#include "src/text/utf8.hpp"

namespace rankwise::text {

struct Tokenizer::Parts {
    std::string name;
    std::string json;
    std::string config_json;
    std::string generation_json;
    Vocabulary model_vocabulary;  // what the model may produce
    Vocabulary vocabulary;        // with the added tokens
    std::unordered_set<TokenId> special;
    AddedTokenFinder raw;         // tokens looked for in the text as it is
    AddedTokenFinder normalized;  // and in normalised text
    Normalizer normalizer;
    PreTokenizer pre_tokenizer;
    std::unique_ptr<Model> model;
    std::unique_ptr<Decoder> decoder;
    Frame frame;
    std::optional<TokenId> bos;
    std::optional<TokenId> eos;
    std::optional<TokenId> pad;
    std::vector<TokenId> eos_ids;
};

namespace {

using Parts = Tokenizer::Parts;

constexpr const char* kTokenizerFile = "tokenizer.json";
constexpr const char* kConfigFile = "tokenizer_config.json";
constexpr const char* kGenerationFile = "generation_config.json";

void read_model(const Json& model, Parts& parts, std::string_view where) {
    // Files of old have no "type"; they are BPE if they have merges.
    const bool merges = member(model, "merges") != nullptr;
    const std::string type = string_member_or(model, "type", merges ? "BPE" : "WordLevel", where);
    require(type == "BPE" || type == "WordLevel",
            "{}: the kind \"{}\" is not known; known are BPE and WordLevel", where, type);
    parts.model_vocabulary = Vocabulary(required_member(model, "vocab", where), where);
    parts.vocabulary = parts.model_vocabulary;
    parts.model = type == "BPE" ? make_bpe(model, parts.model_vocabulary, where)
                                : make_word_level(model, parts.model_vocabulary, where);
}

void read_added(const Json& file, Parts& parts) {
    for (const AddedToken& token : read_added_tokens(file, parts.name)) {
        parts.vocabulary.add(token.content, token.id, fmt::format("{}: added_tokens", parts.name));
        if (token.special) parts.special.insert(token.id);
        if (token.normalized) {
            parts.normalized.add(token, parts.normalizer(token.content));
        } else {
            parts.raw.add(token, token.content);
        }
    }
}

std::shared_ptr<Parts> read_parts(std::string_view bytes, std::string name) {
    auto parts = std::make_shared<Parts>();
    parts->name = std::move(name);
    parts->json = bytes;
    const Json file = parse_object(bytes, parts->name);
    const Json& model = required_member(file, "model", parts->name);
    read_model(model, *parts, fmt::format("{}: model", parts->name));
    parts->normalizer = Normalizer(member(file, "normalizer"), parts->name);
    parts->pre_tokenizer = PreTokenizer(member(file, "pre_tokenizer"), parts->name);
    parts->decoder = std::make_unique<Decoder>(member(file, "decoder"), parts->name);
    parts->frame = read_post_processor(member(file, "post_processor"), parts->name);
    read_added(file, *parts);
    return parts;
}

// "bos_token": "<s>" or {"content": "<s>", …}.
std::optional<TokenId> configured_token(const Json& config, const char* key, const Parts& parts,
                                        std::string_view where) {
    const Json* value = member(config, key);
    if (value == nullptr) return std::nullopt;
    const std::string content = value->is_object() ? string_member(*value, "content", where)
                                                   : string_member(config, key, where);
    const auto id = parts.vocabulary.id(content);
    require(id.has_value(), "{}: \"{}\" is \"{}\", which is not a token of {}", where, key, content,
            parts.name);
    return id;
}

void read_tokenizer_config(std::string text, const std::string& where, Parts& parts) {
    parts.config_json = std::move(text);
    const Json config = parse_object(parts.config_json, where);
    parts.bos = configured_token(config, "bos_token", parts, where);
    parts.eos = configured_token(config, "eos_token", parts, where);
    parts.pad = configured_token(config, "pad_token", parts, where);
    const auto& before = parts.frame.before;
    if (bool_member_or(config, "add_bos_token", false, where) && parts.bos &&
        std::find(before.begin(), before.end(), *parts.bos) == before.end()) {
        parts.frame.before.insert(parts.frame.before.begin(), *parts.bos);
    }
    const auto& after = parts.frame.after;
    if (bool_member_or(config, "add_eos_token", false, where) && parts.eos &&
        std::find(after.begin(), after.end(), *parts.eos) == after.end()) {
        parts.frame.after.push_back(*parts.eos);
    }
}

// An id, or a list of ids.
std::vector<TokenId> configured_ids(const Json& config, const char* key, std::string_view where) {
    const Json* value = member(config, key);
    if (value == nullptr) return {};
    const std::string here = fmt::format("{}: \"{}\"", where, key);
    std::vector<TokenId> ids;
    if (value->is_array()) {
        for (const Json& id : *value) ids.push_back(int_value(id, here));
    } else {
        ids.push_back(int_value(*value, here));
    }
    return ids;
}

void read_generation_config(std::string text, const std::string& where, Parts& parts) {
    parts.generation_json = std::move(text);
    const Json config = parse_object(parts.generation_json, where);
    const auto first_of = [&](const char* key) -> std::optional<TokenId> {
        const auto ids = configured_ids(config, key, where);
        if (ids.empty()) return std::nullopt;
        return ids.front();
    };
    if (!parts.bos) parts.bos = first_of("bos_token_id");
    if (!parts.eos) parts.eos = first_of("eos_token_id");
    if (!parts.pad) parts.pad = first_of("pad_token_id");
    parts.eos_ids = configured_ids(config, "eos_token_id", where);
}

void settle_eos_ids(Parts& parts) {
    std::vector<TokenId> ids;
    if (parts.eos) ids.push_back(*parts.eos);
    for (const TokenId id : parts.eos_ids) {
        if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
    }
    parts.eos_ids = std::move(ids);
}

// Text between added tokens to ids.
void encode_plain(const Parts& parts, std::string_view text, bool at_start,
                  std::vector<TokenId>& ids) {
    for (const Piece& piece : parts.pre_tokenizer({std::string(text), at_start})) {
        parts.model->encode(piece.text, ids);
    }
}

}  // namespace

Tokenizer Tokenizer::from_file(const std::filesystem::path& path) {
    std::error_code error;
    const bool folder = std::filesystem::is_directory(path, error);
    const std::filesystem::path file = folder ? path / kTokenizerFile : path;
    std::shared_ptr<Parts> parts = read_parts(read_file(file), file.string());
    const auto read_beside = [&](const char* name, const auto& read) {
        const std::filesystem::path beside = file.parent_path() / name;
        if (std::filesystem::exists(beside, error))
            read(read_file(beside), beside.string(), *parts);
    };
    read_beside(kConfigFile, read_tokenizer_config);
    read_beside(kGenerationFile, read_generation_config);
    settle_eos_ids(*parts);
    return Tokenizer(std::move(parts));
}

Tokenizer Tokenizer::from_json(std::string_view tokenizer_json, std::string name,
                               std::string config_json, std::string generation_json) {
    std::shared_ptr<Parts> parts = read_parts(tokenizer_json, name);
    if (!config_json.empty())
        read_tokenizer_config(std::move(config_json), name + " (configuration)", *parts);
    if (!generation_json.empty())
        read_generation_config(std::move(generation_json), name + " (generation)", *parts);
    settle_eos_ids(*parts);
    return Tokenizer(std::move(parts));
}

std::vector<TokenId> Tokenizer::encode(std::string_view text, bool add_special_tokens) const {
    const auto invalid = first_invalid_utf8(text);
    require(!invalid, "text to be tokenized with {} is not UTF-8: byte {} of {} is 0x{:02X}",
            parts_->name, invalid.value_or(0), text.size(),
            text.empty() ? 0U : static_cast<unsigned char>(text[invalid.value_or(0)]));
    std::vector<TokenId> ids;
    if (add_special_tokens) ids = parts_->frame.before;
    for (const auto& outer : parts_->raw.split(text)) {
        if (outer.id >= 0) {
            ids.push_back(outer.id);
            continue;
        }
        const std::string normal =
            parts_->normalizer(text.substr(outer.begin, outer.end - outer.begin));
        for (const auto& inner : parts_->normalized.split(normal)) {
            if (inner.id >= 0) {
                ids.push_back(inner.id);
            } else {
                encode_plain(*parts_,
                             std::string_view(normal).substr(inner.begin, inner.end - inner.begin),
                             outer.begin == 0 && inner.begin == 0, ids);
            }
        }
    }
    if (add_special_tokens)
        ids.insert(ids.end(), parts_->frame.after.begin(), parts_->frame.after.end());
    return ids;
}

std::string Tokenizer::decode(std::span<const TokenId> ids, bool skip_special) const {
    StreamDecoder stream(*this, skip_special);
    std::string text;
    for (const TokenId id : ids) text += stream.push(id);
    return text + stream.finish();
}

std::int64_t Tokenizer::vocab_size() const {
    return parts_->vocabulary.size();
}
std::optional<TokenId> Tokenizer::id(std::string_view token) const {
    return parts_->vocabulary.id(token);
}
std::string Tokenizer::token(TokenId id) const {
    return parts_->vocabulary.token(id);
}
bool Tokenizer::is_special(TokenId id) const {
    return parts_->special.contains(id);
}
std::optional<TokenId> Tokenizer::bos() const {
    return parts_->bos;
}
std::optional<TokenId> Tokenizer::eos() const {
    return parts_->eos;
}
std::span<const TokenId> Tokenizer::eos_ids() const {
    return parts_->eos_ids;
}
std::optional<TokenId> Tokenizer::pad() const {
    return parts_->pad;
}
std::vector<std::pair<std::string, std::string>> Tokenizer::files() const {
    std::vector<std::pair<std::string, std::string>> files{{kTokenizerFile, parts_->json}};
    if (!parts_->config_json.empty()) files.emplace_back(kConfigFile, parts_->config_json);
    if (!parts_->generation_json.empty())
        files.emplace_back(kGenerationFile, parts_->generation_json);
    return files;
}

struct StreamDecoder::State {
    Tokenizer tokenizer;
    bool skip_special;
    DecoderRun run;
};

StreamDecoder::StreamDecoder(Tokenizer tokenizer, bool skip_special) {
    DecoderRun run = tokenizer.parts().decoder->start();
    state_ = std::make_unique<State>(State{std::move(tokenizer), skip_special, std::move(run)});
}
StreamDecoder::StreamDecoder(StreamDecoder&&) noexcept = default;
StreamDecoder& StreamDecoder::operator=(StreamDecoder&&) noexcept = default;
StreamDecoder::~StreamDecoder() = default;

std::string StreamDecoder::push(TokenId id) {
    const Parts& parts = state_->tokenizer.parts();
    if (!parts.vocabulary.has(id) || (state_->skip_special && parts.special.contains(id)))
        return {};
    return state_->run.push(parts.vocabulary.token(id));
}

std::string StreamDecoder::finish() {
    return state_->run.finish();
}

}  // namespace rankwise::text
