// rankwise generate: a model's answers to prompts.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <iostream>

#include "src/app/answer_stream.hpp"
#include "src/app/command_io.hpp"
#include "src/app/command_options.hpp"
#include "src/app/commands.hpp"
#include "src/app/display.hpp"
#include "src/app/inference.hpp"
#include "src/app/recipe.hpp"
#include "src/app/stop.hpp"
#include "src/app/text_rows.hpp"
#include "src/base/clock.hpp"
#include "src/rollout/generator.hpp"

namespace rankwise::app {
namespace {

/// Answers of one pass, for each slot of each rank: enough that the slots are full most of the
/// time, and few enough that memory is bounded whatever the file's size.
constexpr std::int64_t kAnswersPerSlot = 8;

struct GenerateOptions {
    InferenceOptions inference;
    std::string tokenizer;
    std::string output;
    std::string format = "auto";
    std::int64_t samples = 1;
    rollout::SamplingOptions sampling;
    std::int64_t seed = 1;
    bool json = false;

    OptionList options() {
        OptionList list;
        list.logical("temperature", &sampling.temperature, "").at_least(0);
        list.logical("top-k", &sampling.top_k, "").at_least(0);
        list.logical("top-p", &sampling.top_p, "").at_least(0).at_most(1);
        list.logical("min-p", &sampling.min_p, "").at_least(0).at_most(1);
        list.logical("max-tokens", &sampling.max_new_tokens, "").at_least(1);
        list.logical("stop", &sampling.stop_strings, "");
        list.logical("seed", &seed, "").at_least(0);
        list.logical("samples", &samples, "").at_least(1).at_most(1e6);
        list.logical("format", &format, "").one_of({"auto", "text", "json"});
        return list;
    }

    void read(const Arguments& arguments) {
        std::vector<std::string> problems;
        read_options(arguments, options(), problems);
        inference.read(arguments, problems);
        json = arguments.has("json");
        tokenizer = arguments.get("tokenizer");
        output = arguments.get("output");
        sampling.seed = static_cast<std::uint64_t>(seed);
        if (arguments.has("prompt") && arguments.has("file")) {
            problems.emplace_back("--prompt and --file: give one of them");
        }
        if (!problems.empty()) throw Problems(problems);
    }
};

/// What was done, for the last line.
struct Tally {
    std::int64_t answers = 0;
    std::int64_t tokens = 0;
    std::int64_t cut_off = 0;
};

class Generation {
  public:
    Generation(Inference& inference, const GenerateOptions& options, Output& output)
        : inference_(inference), options_(options), output_(output), sampling_(options.sampling) {
        sampling_.stop_ids = inference.stop_ids();
    }

    /// Collective. Answers in the order of the rows.
    void run(std::span<const TextRow> rows) {
        const std::int64_t units = std::ssize(rows) * options_.samples;
        const int ranks = inference_.session().size();
        const std::int64_t slots =
            std::min(options_.inference.generation.slots, (units + ranks - 1) / ranks);
        rollout::Generator generator(
            inference_.compute(), inference_.weights(),
            {.slots = std::max<std::int64_t>(slots, 1),
             .prefill_tokens = options_.inference.generation.prefill_tokens},
            inference_.tokenizer(), inference_.ids());
        headings_ = units > 1;
        const std::int64_t pass =
            std::max<std::int64_t>(1, slots * ranks * kAnswersPerSlot / options_.samples);
        for (std::int64_t begin = 0; begin < std::ssize(rows); begin += pass) {
            const auto some =
                rows.subspan(static_cast<std::size_t>(begin),
                             static_cast<std::size_t>(std::min(pass, std::ssize(rows) - begin)));
            if (inference_.session().size() == 1) {
                run_here(generator, some, begin);
            } else {
                run_dealt(generator, some, begin);
            }
        }
    }

    [[nodiscard]] const Tally& tally() const { return tally_; }

  private:
    [[nodiscard]] std::vector<rollout::Request> requests_of(std::span<const TextRow> rows) const {
        std::vector<rollout::Request> requests;
        for (const TextRow& row : rows) {
            requests.push_back({.prompt_id = row.prompt_id,
                                .group = std::ssize(requests),
                                .samples = narrow<std::int32_t>(options_.samples),
                                .step = row.step,
                                .prompt = row.prompt});
        }
        return requests;
    }

    void run_here(rollout::Generator& generator, std::span<const TextRow> rows,
                  std::int64_t before) {
        const std::vector<rollout::Request> requests = requests_of(rows);
        rollout::LocalWork work(requests);
        const auto write = [&](std::string_view text) { output_.write(text); };
        if (options_.json) {
            OrderedText in_order(write);
            (void)generator.run(requests, sampling_, work, 0,
                                {.finished = [&](const Trajectory& answer) {
                                    count(answer);
                                    const std::int64_t at = place(answer.group, answer.sample);
                                    in_order.append(at, json_line(rows, answer));
                                    in_order.end(at);
                                }});
            return;
        }
        AnswerStream stream(
            *inference_.tokenizer(),
            [&](std::int64_t place) { return heading(rows, before, place); }, write);
        (void)generator.run(
            requests, sampling_, work, 0,
            {.finished =
                 [&](const Trajectory& answer) {
                     count(answer);
                     stream.end(place(answer.group, answer.sample));
                 },
             .token = [&](const rollout::WorkUnit& unit,
                          TokenId id) { stream.token(place(unit.request, unit.sample), id); }});
    }

    void run_dealt(rollout::Generator& generator, std::span<const TextRow> rows,
                   std::int64_t before) {
        Session& session = inference_.session();
        const std::vector<rollout::Request> requests = requests_of(rows);
        rollout::DealtWork work(requests, session.world(),
                                options_.inference.generation.deal_interval);
        std::vector<PlacedText> mine;
        for (const Trajectory& answer : generator.run(requests, sampling_, work, 0, {})) {
            count(answer);
            const std::int64_t at = place(answer.group, answer.sample);
            mine.push_back({at, options_.json ? json_line(rows, answer)
                                              : heading(rows, before, at) + answer.text + "\n"});
        }
        for (const PlacedText& text : gather_texts(session, mine)) output_.write(text.text);
    }

    [[nodiscard]] std::int64_t place(std::int64_t row, std::int32_t sample) const {
        return row * options_.samples + sample;
    }

    [[nodiscard]] std::string heading(std::span<const TextRow> rows, std::int64_t before,
                                      std::int64_t at) const {
        if (!headings_) return {};
        const std::int64_t row = at / options_.samples;
        std::string text = fmt::format("{}# {}", before + at == 0 ? "" : "\n",
                                       rows[static_cast<std::size_t>(row)].where);
        if (options_.samples > 1) text += fmt::format(", sample {}", at % options_.samples);
        return text + "\n";
    }

    [[nodiscard]] std::string json_line(std::span<const TextRow> rows,
                                        const Trajectory& answer) const {
        const TextRow& row = rows[static_cast<std::size_t>(answer.group)];
        const auto prompt = static_cast<std::size_t>(answer.prompt_size());
        std::vector<JsonField> fields{
            {"prompt_id", fmt::format("{}", row.prompt_id)},
            {"step", fmt::format("{}", row.step)},
            {"sample", fmt::format("{}", answer.sample)},
            {"completion", to_json(answer.text)},
            {"finish_reason", to_json(name_of(answer.finish_reason))},
            {"prompt_tokens", to_json(row.prompt)},
            {"tokens", to_json(answer.answer())},
            {"logprobs", to_json(std::span(answer.logprobs).subspan(prompt))}};
        if (inference_.tokenizer() == nullptr) std::erase_if(fields, is_completion);
        return with_fields(row.object, fields) + "\n";
    }

    static bool is_completion(const JsonField& field) { return field.first == "completion"; }

    void count(const Trajectory& answer) {
        ++tally_.answers;
        tally_.tokens += answer.answer_size();
        if (answer.finish_reason != FinishReason::stop) ++tally_.cut_off;
    }

    Inference& inference_;
    const GenerateOptions& options_;
    Output& output_;
    rollout::SamplingOptions sampling_;
    bool headings_ = false;
    Tally tally_;
};

RowFormat format_of(const GenerateOptions& options, const std::string& path) {
    if (options.format == "json") return RowFormat::json;
    const bool named = path.ends_with(".jsonl") || path.ends_with(".json");
    return options.format == "auto" && named ? RowFormat::json : RowFormat::text;
}

/// A line is answered as soon as it is typed.
void converse(Inference& inference, Generation& generation, RowFormat format) {
    std::int64_t number = 0;
    fmt::print(stderr, "one prompt a line, without a chat template; Ctrl-D ends\n");
    for (std::string line; fmt::print(stderr, "> "), std::getline(std::cin, line);) {
        const InputText input{.name = "standard input", .text = line};
        try {
            std::vector<TextRow> rows = prompt_rows(inference, lines_of(input), format);
            for (TextRow& row : rows) row.prompt_id = static_cast<std::uint64_t>(number++);
            generation.run(rows);
        } catch (const BadInput& error) {
            fmt::print(stderr, "{}\n", error.what());  // the next line may be better
        }
    }
    fmt::print(stderr, "\n");
}

void print_summary(Session& session, const Tally& tally, double seconds) {
    parallel::Communicator& world = session.world();
    const std::int64_t answers = world.all_reduce_sum("answers", tally.answers);
    const std::int64_t tokens = world.all_reduce_sum("tokens", tally.tokens);
    const std::int64_t cut_off = world.all_reduce_sum("cut off", tally.cut_off);
    if (session.rank() != 0) return;
    fmt::print(stderr, "{} answer{}, {} tokens, {} tokens/s", answers, answers == 1 ? "" : "s",
               tokens, number_text(static_cast<double>(tokens) / seconds));
    if (cut_off > 0) fmt::print(stderr, "; {} cut off at the limit", cut_off);
    fmt::print(stderr, "\n");
}

InputText input_of(const Arguments& arguments, Session& session) {
    if (arguments.has("prompt")) return {.name = "--prompt", .text = arguments.get("prompt")};
    return read_for_all(session, arguments.get("file", "-"));
}

/// --prompt is one prompt, with all its lines.
std::vector<InputLine> prompts_of(const Arguments& arguments, const InputText& input) {
    if (arguments.has("prompt")) return {{input.text, input.name}};
    return lines_of(input);
}

}  // namespace

int run_generate(const Arguments& arguments, Session& session) {
    GenerateOptions options;
    session.start_together([&] { options.read(arguments); });
    remove_stop_signals();  // nothing is kept that would have to be saved
    const bool typed = session.size() == 1 && !arguments.has("prompt") && !arguments.has("file") &&
                       isatty(STDIN_FILENO) != 0;
    const InputText input = typed ? InputText{} : input_of(arguments, session);
    Inference inference(session, options.inference, arguments.positional.at(0), options.tokenizer);
    const RowFormat format = format_of(options, arguments.get("file"));
    std::vector<TextRow> rows;
    Output output;
    session.start_together([&] {
        require(inference.tokenizer() != nullptr ||
                    (options.json && options.sampling.stop_strings.empty()),
                "{}: has no tokenizer.json: give --tokenizer, or --json without --stop",
                arguments.positional[0]);
        if (!typed) {
            const std::vector<InputLine> lines = prompts_of(arguments, input);
            require(!lines.empty(), "{}: there is no prompt in it", input.name);
            rows = prompt_rows(inference, lines, format);
        }
    });
    session.start_on_main([&] { output.open(options.output); });
    if (session.rank() == 0) fmt::print(stderr, "{}\n", inference.title());
    Generation generation(inference, options, output);
    const SteadyClock clock;
    const double begin_s = clock.now_s();
    if (typed) {
        converse(inference, generation, format);
    } else {
        generation.run(rows);
    }
    print_summary(session, generation.tally(), clock.now_s() - begin_s);
    output.close();
    return static_cast<int>(ExitCode::done);
}

}  // namespace rankwise::app
