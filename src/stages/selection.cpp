#include "src/stages/selection.hpp"

#include <algorithm>

namespace rankwise::stages {

namespace {

/// Candidates [begin, end) are of one prompt.
void select_of_prompt(std::span<const Candidate> candidates, std::size_t begin, std::size_t end,
                      const SelectionOptions& options, Selection& selection) {
    std::vector<std::size_t> different;
    for (std::size_t i = begin; i < end; ++i) {
        const bool seen = std::ranges::any_of(different, [&](std::size_t other) {
            return candidates[other].content == candidates[i].content;
        });
        if (seen) {
            ++selection.duplicates;
        } else {
            different.push_back(i);
        }
    }
    if (std::ssize(different) > options.max_per_prompt) {
        selection.over_prompt += std::ssize(different) - options.max_per_prompt;
        if (options.best_first) {
            std::stable_sort(different.begin(), different.end(), [&](std::size_t a, std::size_t b) {
                return candidates[a].score > candidates[b].score;
            });
        }
        different.resize(static_cast<std::size_t>(options.max_per_prompt));
        std::sort(different.begin(), different.end());
    }
    selection.kept.insert(selection.kept.end(), different.begin(), different.end());
}

}  // namespace

Selection select(std::span<const Candidate> candidates, const SelectionOptions& options) {
    Selection selection;
    for (std::size_t begin = 0; begin < candidates.size();) {
        std::size_t end = begin;
        while (end < candidates.size() && candidates[end].prompt == candidates[begin].prompt) ++end;
        select_of_prompt(candidates, begin, end, options, selection);
        begin = end;
    }
    if (options.max_kept > 0 && std::ssize(selection.kept) > options.max_kept) {
        selection.over_total = std::ssize(selection.kept) - options.max_kept;
        std::stable_sort(selection.kept.begin(), selection.kept.end(),
                         [&](std::size_t a, std::size_t b) {
                             return candidates[a].right_rate < candidates[b].right_rate;
                         });
        selection.kept.resize(static_cast<std::size_t>(options.max_kept));
        std::sort(selection.kept.begin(), selection.kept.end());
    }
    return selection;
}

}  // namespace rankwise::stages
