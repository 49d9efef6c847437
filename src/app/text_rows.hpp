// Rows of prompts and answers, as `rankwise generate` and `rankwise score` read and write them.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "src/app/command_io.hpp"
#include "src/app/inference.hpp"
#include "src/base/trajectory.hpp"

namespace rankwise::app {

/// One row: a line of text, or an object of JSON with
///   prompt, or prompt_tokens         text, or ids
///   completion, or tokens            what follows it: text, or ids (score)
///   text                             instead of both: a text by itself (score)
///   prompt_id, or id; step           name the random streams of its answers (generate)
/// Ids go over text where both are there. Other fields are passed on.
struct TextRow {
    std::string where;   ///< "prompts.jsonl:12"
    std::string object;  ///< JSON text
    std::vector<TokenId> prompt;
    std::vector<TokenId> completion;
    std::uint64_t prompt_id = 0;
    std::uint32_t step = 0;
};

/// How the lines of a file are read.
enum class RowFormat : std::uint8_t { text, json };

/// Rows to be answered. A row without a prompt_id or whole number as id is named by its number,
/// from 0.
/// @throws Problems, a line each: no object of JSON, a field missing or of another type, an id that
/// the model does not have, a prompt that is empty or leaves no room in the model's context.
[[nodiscard]] std::vector<TextRow> prompt_rows(const Inference& inference,
                                               std::span<const InputLine> lines, RowFormat format);

/// Rows to be scored. Of a row without a prompt the first token is taken as its prompt: nothing
/// comes before it that could predict it.
/// @throws Problems as prompt_rows; so does a row that is longer than the model's context.
[[nodiscard]] std::vector<TextRow> scored_rows(const Inference& inference,
                                               std::span<const InputLine> lines);

/// JSON text. A float has the fewest digits that read back to the same bits.
[[nodiscard]] std::string to_json(std::string_view text);
[[nodiscard]] std::string to_json(std::span<const TokenId> ids);
[[nodiscard]] std::string to_json(std::span<const float> values);

/// A name and its value, which is JSON text.
using JsonField = std::pair<std::string, std::string>;
/// `object` with `fields` set, in one line. They stand behind what it had.
[[nodiscard]] std::string with_fields(std::string_view object, std::span<const JsonField> fields);

}  // namespace rankwise::app
