// How the rows of embedding and head lie on the ranks of the tensor axis.
#pragma once

#include <algorithm>
#include <vector>

#include "src/model/parameters.hpp"

namespace rankwise::model {

/// Which rank holds a row of the vocabulary.
class VocabularySplit {
  public:
    VocabularySplit(const ModelConfig& config, int degree) {
        for (int rank = 0; rank < degree; ++rank)
            ranges_.push_back(part_of(config, {degree, rank}).vocabulary);
    }
    [[nodiscard]] const std::vector<Range>& ranges() const { return ranges_; }
    [[nodiscard]] int holder(std::int64_t row) const {
        const auto found = std::find_if(ranges_.begin(), ranges_.end(),
                                        [&](Range range) { return range.contains(row); });
        return narrow<int>(found - ranges_.begin());
    }

  private:
    std::vector<Range> ranges_;
};

}  // namespace rankwise::model
