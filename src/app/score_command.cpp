// rankwise score: what a model thinks of given text, token by token.
#include <fmt/format.h>

#include <cmath>

#include "src/app/command_io.hpp"
#include "src/app/command_options.hpp"
#include "src/app/commands.hpp"
#include "src/app/display.hpp"
#include "src/app/inference.hpp"
#include "src/app/recipe.hpp"
#include "src/app/stop.hpp"
#include "src/app/text_rows.hpp"
#include "src/base/clock.hpp"
#include "src/model/decoder.hpp"

namespace rankwise::app {
namespace {

/// Rows of one forward pass; a longer text is a pass of its own.
constexpr std::int64_t kPassTokens = 2048;
/// Lines that a rank scores between two rounds of writing.
constexpr std::int64_t kLinesPerRank = 64;

struct ScoreOptions {
    InferenceOptions inference;
    std::string tokenizer;
    std::string output;
    double temperature = 1.0;

    void read(const Arguments& arguments) {
        std::vector<std::string> problems;
        OptionList list;
        list.logical("temperature", &temperature, "").at_least(0);
        read_options(arguments, list, problems);
        inference.read(arguments, problems);
        tokenizer = arguments.get("tokenizer");
        output = arguments.get("output");
        if (!problems.empty()) throw Problems(problems);
    }
};

/// What was scored here.
struct Totals {
    std::int64_t tokens = 0;
    double logprob = 0.0;  ///< sum; only for people
};

class Scoring {
  public:
    Scoring(Inference& inference, double temperature)
        : inference_(inference),
          head_{.ids = inference.ids(), .temperature = static_cast<float>(temperature)} {}

    /// Lines for those of `rows` that are this rank's, with their places.
    std::vector<PlacedText> score(std::span<const TextRow> rows) {
        const Session& session = inference_.session();
        std::vector<PlacedText> lines;
        std::vector<std::size_t> batch;
        std::int64_t tokens = 0;
        for (auto i = static_cast<std::size_t>(session.rank()); i < rows.size();
             i += static_cast<std::size_t>(session.size())) {
            const auto size =
                static_cast<std::int64_t>(rows[i].prompt.size() + rows[i].completion.size());
            if (tokens + size > kPassTokens) {
                pass(rows, batch, lines);
                batch.clear();
                tokens = 0;
            }
            batch.push_back(i);
            tokens += size;
        }
        pass(rows, batch, lines);
        return lines;
    }

    [[nodiscard]] const Totals& totals() const { return totals_; }

  private:
    void pass(std::span<const TextRow> rows, std::span<const std::size_t> which,
              std::vector<PlacedText>& lines) {
        model::Microbatch batch;
        for (const std::size_t i : which) {
            if (rows[i].completion.empty()) continue;
            std::vector<TokenId> tokens = rows[i].prompt;
            tokens.insert(tokens.end(), rows[i].completion.begin(), rows[i].completion.end());
            model::append_sequence(batch, tokens, std::ssize(rows[i].prompt));
        }
        model::Logprobs values;
        if (batch.rows() > 0) {
            values = model::score(inference_.compute(), inference_.weights(), head_, batch);
        }
        std::size_t at = 0;
        for (const std::size_t i : which) {
            const std::size_t size = rows[i].completion.size();
            lines.push_back(
                {static_cast<std::int64_t>(i),
                 line_of(rows[i], std::span(std::as_const(values.logprob)).subspan(at, size),
                         std::span(std::as_const(values.entropy)).subspan(at, size))});
            at += size;
        }
    }

    std::string line_of(const TextRow& row, std::span<const float> logprobs,
                        std::span<const float> entropies) {
        double sum = 0.0;
        for (std::size_t i = 0; i < logprobs.size(); ++i) {
            if (!std::isfinite(logprobs[i]) || !std::isfinite(entropies[i])) {
                throw BadNumbers(
                    fmt::format("{}: the log-probability of token {} is not finite: a weight or an "
                                "activation of the model is not",
                                row.where, i));
            }
            sum += static_cast<double>(logprobs[i]);
        }
        totals_.tokens += static_cast<std::int64_t>(logprobs.size());
        totals_.logprob += sum;
        return with_fields(row.object,
                           std::vector<JsonField>{{"prompt_tokens", to_json(row.prompt)},
                                                  {"tokens", to_json(row.completion)},
                                                  {"logprobs", to_json(logprobs)},
                                                  {"entropies", to_json(entropies)},
                                                  {"logprob", fmt::format("{}", sum)}}) +
               "\n";
    }

    Inference& inference_;
    model::HeadOptions head_;
    Totals totals_;
};

void print_summary(Session& session, std::size_t rows, const Totals& mine, double seconds) {
    const std::int64_t tokens = session.world().all_reduce_sum("tokens", mine.tokens);
    const std::vector<double> sums =
        session.world().gather_v("sums", std::vector<double>{mine.logprob}, 0).values;
    if (session.rank() != 0) return;
    double sum = 0.0;
    for (const double part : sums) sum += part;
    fmt::print(stderr, "{} row{}, {} tokens, {} tokens/s", rows, rows == 1 ? "" : "s", tokens,
               number_text(static_cast<double>(tokens) / seconds));
    if (tokens > 0) {
        fmt::print(stderr, "; {} nats a token on average",
                   number_text(-sum / static_cast<double>(tokens)));
    }
    fmt::print(stderr, "\n");
}

}  // namespace

int run_score(const Arguments& arguments, Session& session) {
    ScoreOptions options;
    session.start_together([&] { options.read(arguments); });
    remove_stop_signals();  // nothing is kept that would have to be saved
    const InputText input = read_for_all(session, arguments.get("file", "-"));
    Inference inference(session, options.inference, arguments.positional.at(0), options.tokenizer);
    std::vector<TextRow> rows;
    Output output;
    session.start_together([&] {
        const std::vector<InputLine> lines = lines_of(input);
        require(!lines.empty(), "{}: there is no row in it", input.name);
        rows = scored_rows(inference, lines);
    });
    session.start_on_main([&] { output.open(options.output); });
    if (session.rank() == 0) fmt::print(stderr, "{}\n", inference.title());
    Scoring scoring(inference, options.temperature);
    const SteadyClock clock;
    const double begin_s = clock.now_s();
    const auto round = static_cast<std::size_t>(kLinesPerRank * session.size());
    for (std::size_t begin = 0; begin < rows.size(); begin += round) {
        const auto some =
            std::span(std::as_const(rows)).subspan(begin, std::min(round, rows.size() - begin));
        for (const PlacedText& line : gather_texts(session, scoring.score(some)))
            output.write(line.text);
    }
    print_summary(session, rows.size(), scoring.totals(), clock.now_s() - begin_s);
    output.close();
    return static_cast<int>(ExitCode::done);
}

}  // namespace rankwise::app
