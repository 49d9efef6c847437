// Text to token ids and back, as a Hugging Face tokenizer.json says.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "src/base/trajectory.hpp"

namespace rankwise::text {

/// A tokenizer read from `tokenizer.json`, with `tokenizer_config.json` and
/// `generation_config.json` beside it where they exist (BOS, EOS, whether to add them). Same ids
/// and same text as the Rust library `tokenizers` for what it knows: models BPE (byte-level, or
/// with byte fallback) and WordLevel; normalizers NFC, NFD, NFKC, NFKD, Prepend, Replace, Strip,
/// Sequence; pre-tokenizers Split, ByteLevel, Digits, Metaspace, Whitespace,
/// WhitespaceSplit, Punctuation, Sequence; decoders ByteLevel, Replace, ByteFallback, Fuse, Strip,
/// Metaspace, Sequence; post-processors ByteLevel, TemplateProcessing, Sequence. Anything else is
/// refused when the file is read, never ignored.
///
/// A value: copies share what was read. All members are const and may be called from several
/// threads at once.
class Tokenizer {
  public:
    /// `path` is a tokenizer.json or a folder that holds one.
    /// @throws BadInput (file, what was expected, what was found) if it is missing, malformed or of
    /// an unknown kind.
    [[nodiscard]] static Tokenizer from_file(const std::filesystem::path& path);
    /// The same from memory; `name` stands for the file in messages. `config_json` and
    /// `generation_json` are what tokenizer_config.json and generation_config.json would hold, or
    /// empty.
    [[nodiscard]] static Tokenizer from_json(std::string_view tokenizer_json, std::string name,
                                             std::string config_json = {},
                                             std::string generation_json = {});

    /// The ids of `text` (UTF-8). Special tokens written out in the text are recognised. With
    /// `add_special_tokens` what the post-processor adds (BOS) is added, and what `add_bos_token` /
    /// `add_eos_token` of tokenizer_config.json ask for.
    /// @throws BadInput if the text is not UTF-8 (names the byte), or has a part for which the
    /// vocabulary has no token and
    ///         no unknown token.
    [[nodiscard]] std::vector<TokenId> encode(std::string_view text,
                                              bool add_special_tokens = false) const;

    /// The text of some ids. Bytes that are not UTF-8 become U+FFFD; ids without a token contribute
    /// nothing.
    [[nodiscard]] std::string decode(std::span<const TokenId> ids, bool skip_special = false) const;

    /// Ids that the tokenizer knows: the largest id + 1. A model's vocabulary may be padded beyond
    /// it.
    [[nodiscard]] std::int64_t vocab_size() const;
    [[nodiscard]] std::optional<TokenId> id(std::string_view token) const;
    /// The token as the file spells it (byte-level characters, "▁", "<0x0A>"); empty if there is
    /// none for this id.
    [[nodiscard]] std::string token(TokenId id) const;
    [[nodiscard]] bool is_special(TokenId id) const;

    /// From tokenizer_config.json, else generation_config.json.
    [[nodiscard]] std::optional<TokenId> bos() const;
    /// The first id that ends an answer.
    [[nodiscard]] std::optional<TokenId> eos() const;
    /// All ids that end an answer: eos() and those of generation_config.json, without repeats.
    [[nodiscard]] std::span<const TokenId> eos_ids() const;
    [[nodiscard]] std::optional<TokenId> pad() const;

    /// Names and bytes of the files it was read from: tokenizer.json, and those beside it that
    /// there were. Written into a folder, they read back as the same tokenizer.
    [[nodiscard]] std::vector<std::pair<std::string, std::string>> files() const;

    struct Parts;  ///< private to src/text
    explicit Tokenizer(std::shared_ptr<const Parts> parts) : parts_(std::move(parts)) {}
    [[nodiscard]] const Parts& parts() const { return *parts_; }

  private:
    std::shared_ptr<const Parts> parts_;
};

/// Decodes ids as they come. The pieces, with what finish() returns, put together are exactly what
/// Tokenizer::decode gives for all ids at once; each piece is whole UTF-8 characters, given out as
/// soon as no later id can change it.
class StreamDecoder {
  public:
    explicit StreamDecoder(Tokenizer tokenizer, bool skip_special = false);
    StreamDecoder(StreamDecoder&&) noexcept;
    StreamDecoder& operator=(StreamDecoder&&) noexcept;
    ~StreamDecoder();

    [[nodiscard]] std::string push(TokenId id);
    /// What is still held back. After it the decoder starts anew.
    [[nodiscard]] std::string finish();

  private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace rankwise::text
