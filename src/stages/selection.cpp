#include "src/stages/selection.hpp"

#include <algorithm>

namespace rankwise::stages {

Selection select(std::span<const Candidate> candidates, const SelectionOptions& options) {
    Selection selection;
    std::vector<UInt128> seen;  // of the prompt at hand
    std::int64_t prompt = -1;
    for (std::size_t i = 0; i < candidates.size(); ++i) {
        const Candidate& candidate = candidates[i];
        if (candidate.prompt != prompt) {
            prompt = candidate.prompt;
            seen.clear();
        }
        if (std::find(seen.begin(), seen.end(), candidate.content) != seen.end()) {
            ++selection.duplicates;
        } else if (std::ssize(seen) >= options.max_per_prompt) {
            ++selection.over_prompt;
        } else {
            seen.push_back(candidate.content);
            selection.kept.push_back(i);
        }
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
