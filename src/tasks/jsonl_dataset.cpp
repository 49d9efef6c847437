#include "src/tasks/jsonl_dataset.hpp"

#include <fstream>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "src/base/checked.hpp"
#include "src/base/error.hpp"
#include "src/tasks/json_rows.hpp"
#include "src/tasks/prompt_template.hpp"

namespace rankwise::tasks {
namespace {

std::uint64_t fnv1a(std::string_view text) {
    std::uint64_t hash = 0xCBF29CE484222325U;
    for (const char byte : text) hash = (hash ^ static_cast<unsigned char>(byte)) * 0x100000001B3U;
    return hash;
}

bool is_taken(const Problem& problem, const JsonlOptions& options) {
    if (options.split == Split::all) return true;
    const bool held_out =
        fnv1a(problem.prompt) % 100 < static_cast<std::uint64_t>(options.held_out_percent);
    return held_out == (options.split == Split::held_out);
}

std::ifstream open(const std::filesystem::path& path) {
    std::error_code error;
    require(std::filesystem::exists(path, error), "{}: there is no such file", path.string());
    require(!std::filesystem::is_directory(path, error),
            "{}: expected a file of JSON lines, found a folder", path.string());
    std::ifstream in(path, std::ios::binary);
    require(in.good(), "{}: cannot be opened for reading; check its permissions", path.string());
    return in;
}

// TRL's name, then the one that SFT data of other tools has.
std::string response_of(const Problem& problem, std::string_view where) {
    for (const char* key : {"completion", "response"}) {
        const auto found = problem.columns.find(key);
        if (found == problem.columns.end()) continue;
        const auto value = nlohmann::json::parse(found->second);
        require(value.is_string(), "{}: \"{}\" should be text, found {}", where, key,
                value.type_name());
        return value.get<std::string>();
    }
    throw BadInput(fmt::format("{}: neither \"completion\" nor \"response\" is there", where));
}

// Ids as the row gives them; empty if it has text alone.
std::vector<TokenId> ids_of(const Problem& problem, const char* key, std::int64_t vocabulary,
                            std::string_view where) {
    const auto found = problem.columns.find(key);
    if (found == problem.columns.end()) return {};
    const auto value = nlohmann::json::parse(found->second);
    require(value.is_array() && !value.empty(), "{}: \"{}\" should be a list of token ids", where,
            key);
    std::vector<TokenId> ids;
    for (const auto& id : value) {
        require(id.is_number_unsigned() && id.get<std::int64_t>() < vocabulary,
                "{}: \"{}\": expected ids from 0 to {}, found {}; was the file made with another "
                "tokenizer?",
                where, key, vocabulary - 1, id.dump());
        ids.push_back(id.get<TokenId>());
    }
    return ids;
}

}  // namespace

JsonlDataset JsonlDataset::from_file(const std::filesystem::path& path,
                                     const JsonlOptions& options) {
    require(options.held_out_percent >= 0 && options.held_out_percent <= 100,
            "held_out_percent: expected 0 to 100, found {}", options.held_out_percent);
    const PromptTemplate make_prompt = prompt_template(options.prompt_template);
    JsonlDataset dataset;
    dataset.file_ = path.string();
    std::unordered_map<std::uint64_t, std::int64_t> line_of_id;
    std::ifstream in = open(path);
    std::uint64_t row = 0;
    for_each_row(in, dataset.file_, options.most_line_bytes,
                 [&](std::string_view line, std::int64_t number, const std::string& where) {
                     Problem problem = problem_from_json_line(line, row++, where);
                     if (problem.task.empty()) problem.task = options.task;
                     problem.prompt = make_prompt(problem, where);
                     const auto [first, fresh] = line_of_id.emplace(problem.id, number);
                     require(fresh, "{}: the id {} is that of line {} too", where, problem.id,
                             first->second);
                     if (!is_taken(problem, options)) return;
                     dataset.problems_.push_back(std::move(problem));
                     dataset.lines_.push_back(number);
                 });
    require(row > 0, "{}: the file is empty; expected one JSON object a line", dataset.file_);
    require(!dataset.problems_.empty(),
            "{}: none of {} rows is {}; change held_out_percent (now {})", dataset.file_, row,
            options.split == Split::held_out ? "held out" : "left for training",
            options.held_out_percent);
    return dataset;
}

Problem JsonlDataset::problem(std::int64_t index) const {
    ensure(index >= 0 && index < std::ssize(problems_), "problem {} of {} was asked for", index,
           problems_.size());
    return problems_[static_cast<std::size_t>(index)];
}

std::string JsonlDataset::where(std::int64_t index) const {
    ensure(index >= 0 && index < std::ssize(lines_), "problem {} of {} was asked for", index,
           lines_.size());
    return fmt::format("{}:{}", file_, lines_[static_cast<std::size_t>(index)]);
}

JsonlDemonstrations JsonlDemonstrations::from_file(const std::filesystem::path& path,
                                                   text::Tokenizer tokenizer,
                                                   const JsonlOptions& options) {
    require(tokenizer.eos().has_value(),
            "{}: the tokenizer names no EOS, with which a response ends; set eos_token in "
            "tokenizer_config.json",
            path.string());
    JsonlDemonstrations set(JsonlDataset::from_file(path, options), std::move(tokenizer));
    for (std::int64_t i = 0; i < *set.dataset_.size(); ++i) {
        const Problem problem = set.dataset_.problem(i);
        const std::string where = set.dataset_.where(i);
        const std::int64_t ids = set.tokenizer_.vocab_size();
        set.responses_.push_back(response_of(problem, where));
        Demonstration& given = set.given_.emplace_back();
        given.id = problem.id;
        given.prompt = ids_of(problem, "prompt_ids", ids, where);
        given.response = ids_of(problem, "completion_ids", ids, where);
        require(given.prompt.empty() == given.response.empty(),
                "{}: of \"prompt_ids\" and \"completion_ids\" both are needed, or none", where);
    }
    return set;
}

Demonstration JsonlDemonstrations::demonstration(std::int64_t index) const {
    ensure(index >= 0 && index < std::ssize(given_), "worked example {} of {} was asked for", index,
           given_.size());
    const Demonstration& given = given_[static_cast<std::size_t>(index)];
    if (!given.response.empty()) return given;
    const Problem problem = dataset_.problem(index);
    Demonstration example;
    example.id = problem.id;
    example.prompt = tokenizer_.encode(problem.prompt, true);
    example.response = tokenizer_.encode(responses_[static_cast<std::size_t>(index)]);
    const TokenId eos = *tokenizer_.eos();
    if (example.response.empty() || example.response.back() != eos) example.response.push_back(eos);
    return example;
}

}  // namespace rankwise::tasks
