// What a run trains on: problems, demonstrations, and the tokenizer of its models.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "src/base/options.hpp"
#include "src/stages/model_source.hpp"
#include "src/tasks/dataset.hpp"
#include "src/text/tokenizer.hpp"

namespace rankwise::stages {

/// Options of [task]. `kind` chooses which of them count.
struct TaskOptions {
    std::string kind = "countdown";
    // countdown
    std::int64_t largest_number = 12;
    std::int64_t held_out = 400;
    std::int64_t teacher_traces = 80000;
    double teacher_bias = 0.4;
    double teacher_give_up = 0.2;
    double teacher_slip = 0.01;
    std::int64_t teacher_max_tries = 10;
    std::int64_t teacher_max_tokens = 208;
    double teacher_tagged = 1.0;
    double teacher_checked = 1.0;
    // json_lines
    std::string train;
    std::string evaluation;
    std::string demonstrations;
    std::string prompt_template;
    std::int64_t max_characters = 100000;
    std::string tokenizer;  ///< folder or tokenizer.json; empty: the model folder's

    [[nodiscard]] OptionList options();
};

/// Sources of text. Members that the kind does not provide are null.
struct TaskData {
    std::string kind;
    text::Tokenizer tokenizer;
    std::unique_ptr<tasks::Dataset> train;
    std::unique_ptr<tasks::Dataset> held_out;
    std::unique_ptr<tasks::DemonstrationSet> demonstrations;

    /// Ids of a prompt, with what the tokenizer adds at the beginning.
    [[nodiscard]] std::vector<TokenId> prompt_ids(const tasks::Problem& problem) const {
        return tokenizer.encode(problem.prompt, true);
    }
};

/// @param model  whose tokenizer is taken if the options name none; null: the model is random
/// @throws BadInput naming file and line, or the option that is missing; if the model's tokenizer
/// has other tokens than the task's.
[[nodiscard]] TaskData load_task(const TaskOptions& options, const ModelSource* model,
                                 std::uint64_t seed);

/// Rows of the task's files that do not fit a model's context, a line each (file, line, tokens): a
/// prompt must leave room for a token of the answer. Looks at every `of`-th row, from `first`, so
/// that ranks can share the work; of many rows only some are listed.
[[nodiscard]] std::vector<std::string> rows_too_long(const TaskData& task, std::int64_t context,
                                                     std::int64_t first, std::int64_t of);

}  // namespace rankwise::stages
