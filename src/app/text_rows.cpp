#include "src/app/text_rows.hpp"

#include <fmt/format.h>

#include <functional>
#include <limits>
#include <nlohmann/json.hpp>

#include "src/app/recipe.hpp"

namespace rankwise::app {
namespace {

using Json = nlohmann::ordered_json;

/// Lines that are reported; after so many wrong ones the file is the wrong file.
constexpr std::size_t kReported = 10;

Json object_of(const InputLine& line) {
    const Json object = Json::parse(line.text, nullptr, false);
    require(object.is_object(), "{}: expected an object of JSON, found '{}'", line.where,
            line.text.substr(0, 40));
    return object;
}

std::string text_of(const Json& object, const char* key, const std::string& where) {
    const Json& value = object.at(key);
    require(value.is_string(), "{}: {}: expected text, found {}", where, key, value.type_name());
    return value.get<std::string>();
}

std::vector<TokenId> ids_of(const Json& object, const char* key, const Inference& inference,
                            const std::string& where) {
    const Json& list = object.at(key);
    require(list.is_array(), "{}: {}: expected a list of ids, found {}", where, key,
            list.type_name());
    std::vector<TokenId> ids;
    for (const Json& value : list) {
        const bool known = value.is_number_integer() && value >= 0 && value < inference.ids();
        require(known, "{}: {}: expected ids from 0 to {}, found {}", where, key,
                inference.ids() - 1, value.dump());
        ids.push_back(value.get<TokenId>());
    }
    return ids;
}

/// Text or ids under one of two keys.
std::vector<TokenId> tokens_of(const Json& object, const char* ids_key, const char* text_key,
                               bool add_special, const Inference& inference,
                               const std::string& where) {
    if (object.contains(ids_key)) return ids_of(object, ids_key, inference, where);
    if (!object.contains(text_key)) return {};
    return inference.encode(text_of(object, text_key, where), add_special,
                            fmt::format("{}: {}", where, text_key));
}

template <class T>
T whole_number(const Json& object, const char* key, const std::string& where) {
    const Json& value = object.at(key);
    const bool fits = value.is_number_integer() && value >= 0 &&
                      value.get<std::uint64_t>() <= std::numeric_limits<T>::max();
    require(fits, "{}: {}: expected a whole number from 0 to {}, found {}", where, key,
            std::numeric_limits<T>::max(), value.dump());
    return value.get<T>();
}

void name_streams(const Json& object, TextRow& row) {
    if (object.contains("prompt_id")) {
        row.prompt_id = whole_number<std::uint64_t>(object, "prompt_id", row.where);
    } else if (object.contains("id") && object["id"].is_number_unsigned()) {
        row.prompt_id = object["id"].get<std::uint64_t>();
    }
    if (object.contains("step")) row.step = whole_number<std::uint32_t>(object, "step", row.where);
}

void require_room(const TextRow& row, const Inference& inference) {
    const std::int64_t context = inference.config().max_position;
    const std::int64_t prompt = std::ssize(row.prompt);
    require(prompt < context,
            "{}: the prompt has {} tokens, which leaves no room in the model's context of {}: "
            "shorten it, or leave it out",
            row.where, prompt, context);
    const std::int64_t size = prompt + std::ssize(row.completion);
    require(size <= context,
            "{}: has {} tokens, but the model's context {}: shorten it, or leave it out", row.where,
            size, context);
}

TextRow prompt_row(const Inference& inference, const InputLine& line, RowFormat format,
                   std::uint64_t number) {
    TextRow row{.where = line.where, .object = "{}", .prompt_id = number};
    if (format == RowFormat::text) {
        row.prompt = inference.encode(line.text, true, line.where);  // refuses what is no UTF-8
        row.object = with_fields("{}", std::vector<JsonField>{{"prompt", to_json(line.text)}});
    } else {
        const Json object = object_of(line);
        require(object.contains("prompt") || object.contains("prompt_tokens"),
                "{}: has neither prompt nor prompt_tokens", line.where);
        row.object = line.text;
        row.prompt = tokens_of(object, "prompt_tokens", "prompt", true, inference, line.where);
        name_streams(object, row);
    }
    require(!row.prompt.empty(), "{}: the prompt has no token: there is nothing to go on from",
            line.where);
    require_room(row, inference);
    return row;
}

TextRow scored_row(const Inference& inference, const InputLine& line) {
    const Json object = object_of(line);
    TextRow row{.where = line.where, .object = std::string(line.text)};
    const bool given = object.contains("prompt") || object.contains("prompt_tokens");
    const bool follows = object.contains("completion") || object.contains("tokens");
    require(follows || object.contains("text"),
            "{}: has nothing to score: completion, tokens or text", line.where);
    if (follows) {
        row.prompt = tokens_of(object, "prompt_tokens", "prompt", true, inference, line.where);
        row.completion = tokens_of(object, "tokens", "completion", !given, inference, line.where);
    } else {
        require(!given, "{}: has a prompt and a text: what follows a prompt is its completion",
                line.where);
        row.completion = tokens_of(object, "tokens", "text", true, inference, line.where);
    }
    if (row.prompt.empty()) {
        require(!row.completion.empty(), "{}: has no token to score", line.where);
        row.prompt.push_back(row.completion.front());
        row.completion.erase(row.completion.begin());
    }
    require_room(row, inference);
    return row;
}

std::vector<TextRow> rows_of(std::span<const InputLine> lines,
                             const std::function<TextRow(const InputLine&)>& read) {
    std::vector<TextRow> rows;
    std::vector<std::string> problems;
    for (const InputLine& line : lines) {
        try {
            rows.push_back(read(line));
        } catch (const BadInput& error) {
            problems.emplace_back(error.what());
            if (problems.size() < kReported) continue;
            problems.push_back("there may be more: reading ended here");
            break;
        }
    }
    if (!problems.empty()) throw Problems(problems);
    return rows;
}

}  // namespace

std::vector<TextRow> prompt_rows(const Inference& inference, std::span<const InputLine> lines,
                                 RowFormat format) {
    std::uint64_t number = 0;
    return rows_of(lines, [&](const InputLine& line) {
        return prompt_row(inference, line, format, number++);
    });
}

std::vector<TextRow> scored_rows(const Inference& inference, std::span<const InputLine> lines) {
    return rows_of(lines, [&](const InputLine& line) { return scored_row(inference, line); });
}

std::string to_json(std::string_view text) {
    return Json(text).dump();
}

std::string to_json(std::span<const TokenId> ids) {
    return fmt::format("[{}]", fmt::join(ids, ","));
}

std::string to_json(std::span<const float> values) {
    return fmt::format("[{}]", fmt::join(values, ","));
}

std::string with_fields(std::string_view object, std::span<const JsonField> fields) {
    Json kept = Json::parse(object);
    for (const JsonField& field : fields) kept.erase(field.first);
    std::string text = kept.dump();
    text.pop_back();
    for (const auto& [name, value] : fields) {
        if (text.size() > 1) text += ',';
        text += fmt::format("{}:{}", to_json(name), value);
    }
    return text + '}';
}

}  // namespace rankwise::app
