#include "src/text/decoder.hpp"

#include <charconv>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>

#include "src/base/error.hpp"
#include "src/text/byte_level.hpp"
#include "src/text/pattern.hpp"
#include "src/text/utf8.hpp"

namespace rankwise::text {
namespace {

/// A function of each piece alone; `first` tells the first piece of the text.
class EachPiece final : public DecoderStage {
  public:
    using Function = std::function<std::string(std::string piece, bool first)>;
    explicit EachPiece(Function function) : function_(std::move(function)) {}
    void push(std::string piece, std::vector<std::string>& out) override {
        out.push_back(function_(std::move(piece), std::exchange(first_, false)));
    }
    void finish(std::vector<std::string>&) override { first_ = true; }

  private:
    Function function_;
    bool first_ = true;
};

/// Byte-level characters back to bytes, and those to text.
class ByteLevelStage final : public DecoderStage {
  public:
    void push(std::string piece, std::vector<std::string>& out) override {
        std::string text;
        if (auto bytes = bytes_of_byte_level(piece)) {
            lossy_.push(*bytes, text);
        } else {
            lossy_.push(piece, text);
        }
        if (!text.empty()) out.push_back(std::move(text));
    }
    void finish(std::vector<std::string>& out) override {
        std::string text;
        lossy_.finish(text);
        if (!text.empty()) out.push_back(std::move(text));
    }

  private:
    LossyUtf8 lossy_;
};

std::optional<char> byte_of(std::string_view token) {
    if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') return std::nullopt;
    unsigned value = 0;
    const char* end = token.data() + 5;
    const auto [stop, error] = std::from_chars(token.data() + 3, end, value, 16);
    if (error != std::errc{} || stop != end) return std::nullopt;
    return static_cast<char>(value);
}

/// A run of tokens "<0xE2>" is text if its bytes are UTF-8, else one U+FFFD for each byte.
class ByteFallbackStage final : public DecoderStage {
  public:
    void push(std::string piece, std::vector<std::string>& out) override {
        if (const auto byte = byte_of(piece)) {
            bytes_.push_back(*byte);
            return;
        }
        finish(out);
        out.push_back(std::move(piece));
    }
    void finish(std::vector<std::string>& out) override {
        if (bytes_.empty()) return;
        if (!first_invalid_utf8(bytes_)) {
            out.push_back(bytes_);
        } else {
            for (std::size_t i = 0; i < bytes_.size(); ++i) out.emplace_back("\xEF\xBF\xBD");
        }
        bytes_.clear();
    }

  private:
    std::string bytes_;
};

struct StripOptions {
    std::string content;  // one character
    std::int32_t start = 0;
    std::int32_t stop = 0;
};

std::string strip_piece(const StripOptions& options, std::string piece) {
    std::size_t begin = 0;
    for (std::int32_t i = 0; i < options.start; ++i) {
        if (!std::string_view(piece).substr(begin).starts_with(options.content)) break;
        begin += options.content.size();
    }
    std::size_t end = piece.size();
    for (std::int32_t i = 0; i < options.stop && end - begin >= options.content.size(); ++i) {
        if (!std::string_view(piece).substr(begin, end - begin).ends_with(options.content)) break;
        end -= options.content.size();
    }
    return piece.substr(begin, end - begin);
}

/// Strip over pieces that are one text: characters at the start are dropped as they come, those at
/// the end held back.
class StripWhole final : public DecoderStage {
  public:
    explicit StripWhole(StripOptions options) : options_(std::move(options)) {}
    void push(std::string piece, std::vector<std::string>& out) override {
        std::string text = std::move(held_) + piece;
        held_.clear();
        std::size_t begin = 0;
        while (dropped_ < options_.start &&
               std::string_view(text).substr(begin).starts_with(options_.content)) {
            begin += options_.content.size();
            ++dropped_;
        }
        if (begin < text.size()) dropped_ = options_.start;
        text.erase(0, begin);
        std::size_t end = text.size();
        for (std::int32_t i = 0; i < options_.stop; ++i) {
            if (!std::string_view(text).substr(0, end).ends_with(options_.content)) break;
            end -= options_.content.size();
        }
        held_ = text.substr(end);
        text.resize(end);
        if (!text.empty()) out.push_back(std::move(text));
    }
    void finish(std::vector<std::string>&) override {
        held_.clear();
        dropped_ = 0;
    }

  private:
    StripOptions options_;
    std::string held_;
    std::int32_t dropped_ = 0;
};

/// Holds everything until the text ends, then hands it on as one piece, for steps that need to see
/// it whole.
class Gather final : public DecoderStage {
  public:
    void push(std::string piece, std::vector<std::string>&) override { text_ += piece; }
    void finish(std::vector<std::string>& out) override { out.push_back(std::exchange(text_, {})); }

  private:
    std::string text_;
};

bool is_one_character(std::string_view text) {
    std::size_t at = 0;
    if (text.empty()) return false;
    static_cast<void>(next_code_point(text, at));
    return at == text.size();
}

}  // namespace

struct Decoder::Step {
    std::function<std::unique_ptr<DecoderStage>()> make;
    std::function<std::unique_ptr<DecoderStage>()>
        make_fused;      ///< over pieces of one text; null: needs it whole
    bool fuses = false;  ///< what comes out is one text
};

namespace {

Decoder::Step each_piece(EachPiece::Function function, bool by_character) {
    Decoder::Step step;
    step.make = [function] { return std::make_unique<EachPiece>(function); };
    if (by_character) step.make_fused = step.make;
    return step;
}

Decoder::Step strip_step(StripOptions options) {
    Decoder::Step step;
    step.make = [options] {
        return std::make_unique<EachPiece>(
            [options](std::string piece, bool) { return strip_piece(options, std::move(piece)); });
    };
    step.make_fused = [options] { return std::make_unique<StripWhole>(options); };
    return step;
}

Decoder::Step metaspace_step(const Json& json, std::string_view where) {
    const std::string mark = string_member_or(json, "replacement", "▁", where);
    const bool old_prefix = bool_member_or(json, "add_prefix_space", true, where);
    const bool drop =
        string_member_or(json, "prepend_scheme", old_prefix ? "always" : "never", where) != "never";
    const Pattern pattern{Regex(quote_regex(mark), where), mark};
    return each_piece(
        [=](const std::string& piece, bool first) {
            return replace_all(pattern, first && drop ? "" : " ", piece);
        },
        false);
}

}  // namespace

Decoder::Decoder(const Json* json, std::string_view where) {
    if (json != nullptr) {
        add(*json, fmt::format("{}: decoder", where));
    } else {
        steps_.push_back(std::make_unique<const Step>(each_piece(
            [](std::string piece, bool first) { return first ? piece : " " + piece; }, false)));
    }
}

Decoder::~Decoder() = default;

void Decoder::add(const Json& json, std::string_view where) {
    const std::string type = string_member(json, "type", where);
    Step step;
    if (type == "Sequence") {
        for (const Json& each : array_member(json, "decoders", where)) add(each, where);
        return;
    }
    if (type == "ByteLevel") {
        step.make = [] { return std::make_unique<ByteLevelStage>(); };
        step.fuses = true;
    } else if (type == "ByteFallback") {
        step.make = [] { return std::make_unique<ByteFallbackStage>(); };
    } else if (type == "Fuse") {
        step = each_piece([](std::string piece, bool) { return piece; }, true);
        step.fuses = true;
    } else if (type == "Replace") {
        Pattern pattern = pattern_member(json, where);
        const bool by_character = is_one_character(pattern.literal);
        step = each_piece(
            [pattern, content = string_member(json, "content", where)](
                const std::string& piece, bool) { return replace_all(pattern, content, piece); },
            by_character);
    } else if (type == "Strip") {
        StripOptions options{string_member(json, "content", where),
                             int_member(json, "start", where), int_member(json, "stop", where)};
        require(is_one_character(options.content),
                "{}: Strip's \"content\" should be one character, found \"{}\"", where,
                options.content);
        step = strip_step(std::move(options));
    } else if (type == "Metaspace") {
        step = metaspace_step(json, where);
    } else {
        throw BadInput(
            fmt::format("{}: the kind \"{}\" is not known; known are ByteLevel, Replace, "
                        "ByteFallback, Fuse, Strip, "
                        "Metaspace, Sequence",
                        where, type));
    }
    steps_.push_back(std::make_unique<const Step>(std::move(step)));
}

DecoderRun Decoder::start() const {
    std::vector<std::unique_ptr<DecoderStage>> stages;
    bool fused = false;
    for (const auto& step : steps_) {
        if (fused && step->make_fused) {
            stages.push_back(step->make_fused());
        } else {
            if (fused) stages.push_back(std::make_unique<Gather>());
            stages.push_back(step->make());
        }
        fused = fused || step->fuses;
    }
    return DecoderRun(std::move(stages));
}

std::string DecoderRun::push(std::string token) {
    std::vector<std::string> pieces;
    pieces.push_back(std::move(token));
    for (const auto& stage : stages_) {
        std::vector<std::string> next;
        for (std::string& piece : pieces) stage->push(std::move(piece), next);
        pieces = std::move(next);
    }
    std::string out;
    for (const std::string& piece : pieces) out += piece;
    return out;
}

std::string DecoderRun::finish() {
    std::vector<std::string> pieces;
    for (const auto& stage : stages_) {
        std::vector<std::string> next;
        for (std::string& piece : pieces) stage->push(std::move(piece), next);
        stage->finish(next);
        pieces = std::move(next);
    }
    std::string out;
    for (const std::string& piece : pieces) out += piece;
    return out;
}

}  // namespace rankwise::text
