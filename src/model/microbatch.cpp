#include "src/model/microbatch.hpp"

#include "src/base/checked.hpp"

namespace rankwise::model {
namespace {

constexpr std::int64_t kNormBlock = 64;  // N2: norm weights are summed in blocks of 64 tokens

/// Adds the rows of one segment and returns its index.
std::int64_t add_segment(Microbatch& batch, std::span<const TokenId> tokens,
                         std::int64_t position) {
    const std::int64_t begin = batch.rows();
    const auto rows = static_cast<std::int64_t>(tokens.size());
    batch.ids.insert(batch.ids.end(), tokens.begin(), tokens.end());
    for (std::int64_t i = 0; i < rows; ++i) {
        batch.positions.push_back(narrow<std::int32_t>(position + i));
    }
    if (batch.norm_blocks.empty()) batch.norm_blocks.push_back(0);
    if (batch.segment_borders.empty()) batch.segment_borders.push_back(0);
    batch.segment_borders.push_back(begin + rows);
    for (std::int64_t at = 0; at < rows; at += kNormBlock) {
        batch.norm_blocks.push_back(begin + std::min(rows, at + kNormBlock));
    }
    batch.segments.push_back({.row_begin = begin, .rows = rows, .position = position});
    return static_cast<std::int64_t>(batch.segments.size()) - 1;
}

/// What has come to the head since belongs together.
void end_head_segment(Microbatch& batch) {
    if (batch.head_borders.empty()) batch.head_borders.push_back(0);
    batch.head_borders.push_back(std::ssize(batch.head));
}

}  // namespace

void append(Microbatch& batch, const BundleInput& bundle) {
    ensure(!bundle.prompt.empty(), "a bundle without a prompt");
    const auto prompt_size = static_cast<std::int64_t>(bundle.prompt.size());
    struct Sample {
        std::int64_t first_row;
        std::span<const TokenId> answer;
    };
    std::vector<Sample> samples;
    const std::size_t first_segment = batch.segments.size();
    for (const std::span<const TokenId> answer : bundle.answers) {
        samples.push_back({batch.rows(), answer});
        if (!answer.empty()) add_segment(batch, answer.first(answer.size() - 1), prompt_size);
    }
    const std::int64_t prompt = add_segment(batch, bundle.prompt, 0);
    for (std::size_t i = first_segment; i < static_cast<std::size_t>(prompt); ++i) {
        batch.segments[i].parent = narrow<std::int32_t>(prompt);
    }
    const std::int64_t prompt_last = batch.rows() - 1;
    for (const Sample& sample : samples) {
        for (std::size_t i = 0; i < sample.answer.size(); ++i) {
            const std::int64_t row =
                i == 0 ? prompt_last : sample.first_row + static_cast<std::int64_t>(i) - 1;
            batch.head.push_back({row, sample.answer[i]});
        }
        end_head_segment(batch);
    }
}

void append_sequence(Microbatch& batch, std::span<const TokenId> tokens, std::int64_t first_target,
                     bool further) {
    ensure(first_target >= 1, "the first token of a sequence is predicted by nothing");
    if (tokens.size() < 2) return;
    const std::int64_t begin = batch.rows();
    add_segment(batch, tokens.first(tokens.size() - 1), 0);
    for (std::int64_t i = first_target; i < static_cast<std::int64_t>(tokens.size()); ++i) {
        batch.head.push_back({begin + i - 1, tokens[static_cast<std::size_t>(i)]});
    }
    end_head_segment(batch);
    if (!further) return;
    batch.following.insert(batch.following.end(), tokens.begin() + 1, tokens.end());
    const auto size = static_cast<std::int64_t>(tokens.size());
    for (std::int64_t i = size - further_targets(size, first_target); i < size; ++i) {
        batch.further.push_back({begin + i - 2, tokens[static_cast<std::size_t>(i)]});
    }
    if (batch.further_borders.empty()) batch.further_borders.push_back(0);
    batch.further_borders.push_back(std::ssize(batch.further));
}

}  // namespace rankwise::model
