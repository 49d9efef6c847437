#include "src/app/answer_stream.hpp"

#include <utility>

namespace rankwise::app {

void OrderedText::append(std::int64_t place, std::string_view text) {
    texts_[place].waiting += text;
    flow();
}

void OrderedText::end(std::int64_t place) {
    texts_[place].ended = true;
    flow();
}

void OrderedText::flow() {
    for (auto first = texts_.find(first_); first != texts_.end(); first = texts_.find(first_)) {
        Text& text = first->second;
        if (!text.waiting.empty()) write_(std::exchange(text.waiting, {}));
        if (!text.ended) return;
        texts_.erase(first);
        ++first_;
    }
}

AnswerStream::AnswerStream(text::Tokenizer tokenizer,
                           std::function<std::string(std::int64_t)> heading,
                           std::function<void(std::string_view)> write)
    : tokenizer_(std::move(tokenizer)), heading_(std::move(heading)), text_(std::move(write)) {}

text::StreamDecoder& AnswerStream::decoder(std::int64_t answer) {
    const auto [place, begins] =
        decoders_.try_emplace(answer, text::StreamDecoder(tokenizer_, true));
    if (begins) text_.append(answer, heading_(answer));
    return place->second;
}

void AnswerStream::token(std::int64_t answer, TokenId id) {
    text_.append(answer, decoder(answer).push(id));
}

void AnswerStream::end(std::int64_t answer) {
    text_.append(answer, decoder(answer).finish() + "\n");
    text_.end(answer);
    decoders_.erase(answer);
}

}  // namespace rankwise::app
