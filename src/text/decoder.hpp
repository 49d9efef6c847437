// Decoders of a tokenizer file: tokens to text, one at a time. Private to src/text.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "src/text/json_fields.hpp"

namespace rankwise::text {

/// One step of a decoder, with its state. Strings go in and come out in order.
class DecoderStage {
  public:
    virtual ~DecoderStage() = default;
    virtual void push(std::string piece, std::vector<std::string>& out) = 0;
    /// The text has ended; what is held back comes out, and the stage is as new.
    virtual void finish(std::vector<std::string>& out) = 0;
};

/// The stages of one text that is being decoded.
class DecoderRun {
  public:
    explicit DecoderRun(std::vector<std::unique_ptr<DecoderStage>> stages)
        : stages_(std::move(stages)) {}
    [[nodiscard]] std::string push(std::string token);
    [[nodiscard]] std::string finish();

  private:
    std::vector<std::unique_ptr<DecoderStage>> stages_;
};

/// What the file says, read once.
class Decoder {
  public:
    /// @param json  the file's "decoder", or nullptr: tokens are put together with a space between
    /// them
    /// @throws BadInput for a kind that is not known.
    Decoder(const Json* json, std::string_view where);
    ~Decoder();

    [[nodiscard]] DecoderRun start() const;

    struct Step;  ///< makes a stage

  private:
    void add(const Json& json, std::string_view where);
    std::vector<std::unique_ptr<const Step>> steps_;
};

}  // namespace rankwise::text
