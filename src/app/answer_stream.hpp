// Texts that grow at the same time, written one after another.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "src/text/tokenizer.hpp"

namespace rankwise::app {

/// Texts 0, 1, 2, …: the first that is not whole yet flows as it grows; what comes of those behind
/// it waits until they are the first.
class OrderedText {
  public:
    /// @param write  takes text as it comes, in order
    explicit OrderedText(std::function<void(std::string_view)> write) : write_(std::move(write)) {}

    void append(std::int64_t place, std::string_view text);
    /// No more will come of this text.
    void end(std::int64_t place);

  private:
    struct Text {
        std::string waiting;
        bool ended = false;
    };
    void flow();

    std::function<void(std::string_view)> write_;
    std::map<std::int64_t, Text> texts_;  // from the first that is not whole
    std::int64_t first_ = 0;
};

/// Answers as text while their tokens are drawn. Put together the text of an answer is what
/// Tokenizer::decode gives without special tokens, followed by a line end.
class AnswerStream {
  public:
    /// @param heading  of an answer, written before its text
    AnswerStream(text::Tokenizer tokenizer, std::function<std::string(std::int64_t)> heading,
                 std::function<void(std::string_view)> write);

    void token(std::int64_t answer, TokenId id);
    /// No more tokens of this answer will come.
    void end(std::int64_t answer);

  private:
    text::StreamDecoder& decoder(std::int64_t answer);

    text::Tokenizer tokenizer_;
    std::function<std::string(std::int64_t)> heading_;
    OrderedText text_;
    std::map<std::int64_t, text::StreamDecoder> decoders_;  // of answers that have begun
};

}  // namespace rankwise::app
