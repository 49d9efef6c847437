#include "src/app/told_problem.hpp"

#include <algorithm>
#include <map>
#include <tuple>

namespace rankwise::app {
namespace {

using Answers = std::vector<const SampleRecord*>;

/// Of each stage its last answer to a held-out problem.
Answers last_of_stages(const Answers& all) {
    Answers last;
    for (const SampleRecord* answer : all) {
        if (!answer->evaluation) continue;
        const auto same = std::find_if(last.begin(), last.end(), [&](const SampleRecord* other) {
            return other->stage == answer->stage;
        });
        if (same == last.end()) {
            last.push_back(answer);
        } else {
            *same = answer;
        }
    }
    return last;
}

/// Those of the model that the first of them is of.
Answers of_first_model(const Answers& answers, std::span<const ChainStage> chain) {
    const auto model = [&](const SampleRecord* answer) -> std::string_view {
        const auto place = place_of(chain, answer->stage);
        return place ? chain[*place].model : std::string_view();
    };
    Answers some;
    for (const SampleRecord* answer : answers) {
        if (model(answer) == model(answers.front())) some.push_back(answer);
    }
    return some;
}

/// How much a problem's answers tell; more is better.
using Telling = std::tuple<std::size_t, bool, bool, std::int64_t, std::int64_t, bool>;
Telling telling(const Answers& all, const Answers& main) {
    std::int64_t lost = 0;
    for (std::size_t i = 1; i < main.size(); ++i)
        lost += main[i - 1]->right && !main[i]->right ? 1 : 0;
    const auto found = std::find_if(main.begin(), main.end(),
                                    [](const SampleRecord* answer) { return answer->right; });
    const bool longer = main.size() > 1 && main.back()->sample.answer.size() >
                                               main[main.size() - 2]->sample.answer.size();
    return {all.size(), main.back()->right,   !main.front()->right,
            -lost,      found - main.begin(), longer};
}

}  // namespace

std::vector<AskedProblem> problems_asked(std::span<const SampleRecord> samples) {
    std::vector<AskedProblem> problems;
    std::map<std::string_view, std::size_t> places;
    for (const SampleRecord& record : samples) {
        const auto [place, first] = places.emplace(record.sample.prompt, problems.size());
        if (first) problems.push_back({.prompt = record.sample.prompt, .answers = {}});
        problems[place->second].answers.push_back(&record);
    }
    return problems;
}

std::vector<const SampleRecord*> told_problem(std::span<const SampleRecord> samples,
                                              std::span<const ChainStage> chain) {
    Answers best;
    Telling most;
    for (const AskedProblem& problem : problems_asked(samples)) {
        Answers answers = last_of_stages(problem.answers);
        if (answers.size() < 2) continue;
        const Telling here = telling(answers, of_first_model(answers, chain));
        if (!best.empty() && here <= most) continue;
        most = here;
        best = std::move(answers);
    }
    return best;
}

}  // namespace rankwise::app
