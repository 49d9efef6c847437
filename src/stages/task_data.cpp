#include "src/stages/task_data.hpp"

#include "src/base/checked.hpp"
#include "src/tasks/countdown.hpp"
#include "src/tasks/jsonl_dataset.hpp"
#include "src/tasks/prompt_template.hpp"

namespace rankwise::stages {
namespace {

/// Rows of a file that are named when too long: enough to see what is the matter.
constexpr std::int64_t kMostListed = 5;

TaskData load_countdown(const TaskOptions& options, std::uint64_t seed) {
    namespace countdown = tasks::countdown;
    const int hi = narrow<int>(options.largest_number);
    const countdown::TeacherOptions teacher{.hi = hi,
                                            .bias = options.teacher_bias,
                                            .give_up = options.teacher_give_up,
                                            .slip = options.teacher_slip,
                                            .max_tries = narrow<int>(options.teacher_max_tries),
                                            .max_tokens = options.teacher_max_tokens,
                                            .tagged = options.teacher_tagged,
                                            .checked = options.teacher_checked};
    return {.kind = "countdown",
            .tokenizer =
                text::Tokenizer::from_json(countdown::tokenizer_json(), "the countdown vocabulary",
                                           countdown::tokenizer_config_json()),
            .train = std::make_unique<countdown::Training>(seed, hi),
            .held_out = std::make_unique<countdown::HeldOut>(options.held_out, hi),
            .demonstrations =
                std::make_unique<countdown::Teacher>(seed, options.teacher_traces, teacher)};
}

text::Tokenizer tokenizer_of(const TaskOptions& options, const ModelSource* model) {
    if (!options.tokenizer.empty()) return text::Tokenizer::from_file(options.tokenizer);
    require(model != nullptr,
            "[task] tokenizer is not set, and no model is given that could hold one");
    require(model->tokenizer().has_value(),
            "[task] tokenizer is not set, and {} holds no tokenizer.json", model->path().string());
    return *model->tokenizer();
}

TaskData load_json_lines(const TaskOptions& options, const ModelSource* model) {
    TaskData task{.kind = "json_lines", .tokenizer = tokenizer_of(options, model)};
    const tasks::JsonlOptions rows{
        .task = "json_lines",
        .prompt_template = options.prompt_template.empty() ? "prompt" : options.prompt_template,
        .most_line_bytes = options.max_characters};
    const auto dataset = [&](const std::string& file) {
        return std::make_unique<tasks::JsonlDataset>(tasks::JsonlDataset::from_file(file, rows));
    };
    if (!options.train.empty()) task.train = dataset(options.train);
    if (!options.evaluation.empty()) task.held_out = dataset(options.evaluation);
    if (!options.demonstrations.empty()) {
        task.demonstrations = std::make_unique<tasks::JsonlDemonstrations>(
            tasks::JsonlDemonstrations::from_file(options.demonstrations, task.tokenizer, rows));
    }
    return task;
}

}  // namespace

OptionList TaskOptions::options() {
    OptionList list;
    list.logical("kind", &kind,
                 "where problems come from: countdown (made by a generator) or json_lines (files)")
        .one_of({"countdown", "json_lines"});
    list.logical("largest_number", &largest_number, "countdown: numbers are drawn from 1 to this")
        .at_least(3)
        .at_most(99);
    list.logical("held_out", &held_out, "countdown: problems kept for evaluation").at_least(1);
    list.logical("teacher_traces", &teacher_traces,
                 "countdown: worked examples of the imperfect teacher")
        .at_least(1);
    list.logical("teacher_bias", &teacher_bias,
                 "countdown: how much the teacher prefers tries near the target")
        .at_least(0);
    list.logical("teacher_give_up", &teacher_give_up,
                 "countdown: probability of giving up after each miss")
        .at_least(0)
        .at_most(1);
    list.logical("teacher_slip", &teacher_slip,
                 "countdown: probability of an arithmetic slip in a step")
        .at_least(0)
        .at_most(1);
    list.logical("teacher_max_tries", &teacher_max_tries,
                 "countdown: most tries in a worked example")
        .at_least(1);
    list.logical("teacher_max_tokens", &teacher_max_tokens,
                 "countdown: most tokens of a worked example")
        .at_least(24);
    list.logical("teacher_tagged", &teacher_tagged,
                 "countdown: share of worked examples with the tags of thought and answer")
        .at_least(0)
        .at_most(1);
    list.logical("teacher_checked", &teacher_checked,
                 "countdown: share of worked examples that compare each try with the target")
        .at_least(0)
        .at_most(1);
    list.logical("train", &train, "json_lines: file of problems to train on");
    list.logical("evaluation", &evaluation, "json_lines: file of problems to evaluate on");
    list.logical("demonstrations", &demonstrations,
                 "json_lines: file of prompts with responses to imitate");
    list.logical("prompt_template", &prompt_template,
                 "json_lines: how a prompt is made; empty: the row's own");
    list.logical("max_characters", &max_characters, "json_lines: bytes that a line may have")
        .at_least(1);
    list.logical("tokenizer", &tokenizer,
                 "json_lines: tokenizer.json or its folder; empty: the model's");
    return list;
}

TaskData load_task(const TaskOptions& options, const ModelSource* model, std::uint64_t seed) {
    TaskData task = options.kind == "countdown" ? load_countdown(options, seed)
                                                : load_json_lines(options, model);
    if (model != nullptr && model->tokenizer()) {
        require_same_tokens(*model->tokenizer(), model->path().string(), task.tokenizer,
                            "the task " + task.kind);
    }
    return task;
}

std::vector<std::string> rows_too_long(const TaskData& task, std::int64_t context,
                                       std::int64_t first, std::int64_t of) {
    std::vector<std::string> problems;
    if (task.kind != "json_lines") return problems;  // generators know their lengths
    const auto look = [&](const auto& set, const char* what, const auto& tokens_of,
                          std::int64_t most) {
        std::int64_t found = 0;
        for (std::int64_t i = first; i < set.size().value_or(0); i += of) {
            const std::int64_t tokens = tokens_of(i);
            if (tokens <= most) continue;
            if (++found > kMostListed) continue;
            problems.push_back(fmt::format(
                "{}: {} {} tokens, but only {} fit the model's context of {}: shorten it, or leave "
                "it out",
                set.where(i), what, tokens, most, context));
        }
        if (found > kMostListed) {
            problems.push_back(
                fmt::format("{} more rows are too long: {}", found - kMostListed, what));
        }
    };
    const auto look_at_prompts = [&](const std::unique_ptr<tasks::Dataset>& set) {
        if (set == nullptr) return;
        look(
            *set, "the prompt has",
            [&](std::int64_t i) { return std::ssize(task.prompt_ids(set->problem(i))); },
            context - 1);
    };
    look_at_prompts(task.train);
    look_at_prompts(task.held_out);
    if (task.demonstrations != nullptr) {
        look(
            *task.demonstrations, "prompt and response have",
            [&](std::int64_t i) {
                const tasks::Demonstration example = task.demonstrations->demonstration(i);
                return std::ssize(example.prompt) + std::ssize(example.response);
            },
            context);
    }
    return problems;
}

}  // namespace rankwise::stages
