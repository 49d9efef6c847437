#include "src/stages/redistribute.hpp"

#include <algorithm>

namespace rankwise::stages {
namespace {

/// The trajectory of a record on the rank that generated it.
const Trajectory& trajectory_of(const Answers& answers, const AnswerRecord& record) {
    const auto found =
        std::lower_bound(answers.mine.begin(), answers.mine.end(), record,
                         [](const Trajectory& trajectory, const AnswerRecord& wanted) {
                             return std::pair(trajectory.group, std::int64_t{trajectory.sample}) <
                                    std::pair(wanted.group, wanted.sample);
                         });
    ensure(found != answers.mine.end() && found->group == record.group &&
               found->sample == record.sample,
           "sample {} of group {} is not where it was generated", record.sample, record.group);
    return *found;
}

}  // namespace

std::vector<AnswerTokens> redistribute(parallel::Communicator& data, const Answers& answers,
                                       std::span<const std::size_t> members,
                                       const update::MinibatchPlan& plan) {
    const auto ranks = static_cast<std::size_t>(data.size());
    const std::int64_t self = data.rank();
    // Both ends know all sizes from the records, so only tokens travel: to each rank its samples in
    // the plan's order.
    const std::vector<std::int64_t> learner = plan.ranks_of_samples(data.size());
    std::vector<std::vector<TokenId>> tokens_to(ranks);
    std::vector<std::vector<float>> logprobs_to(ranks);
    std::vector<std::int64_t> receive_counts(ranks, 0);
    for (std::size_t s = 0; s < members.size(); ++s) {
        const AnswerRecord& record = answers.records[members[s]];
        if (learner[s] == self)
            receive_counts[static_cast<std::size_t>(record.rank)] += record.answer_tokens;
        if (record.rank != self) continue;
        const Trajectory& trajectory = trajectory_of(answers, record);
        const auto to = static_cast<std::size_t>(learner[s]);
        const auto begin = static_cast<std::ptrdiff_t>(trajectory.prompt_size());
        tokens_to[to].insert(tokens_to[to].end(), trajectory.tokens.begin() + begin,
                             trajectory.tokens.end());
        logprobs_to[to].insert(logprobs_to[to].end(), trajectory.logprobs.begin() + begin,
                               trajectory.logprobs.end());
    }
    std::vector<TokenId> tokens;
    std::vector<float> logprobs;
    std::vector<std::int64_t> send_counts;
    for (std::size_t rank = 0; rank < ranks; ++rank) {
        send_counts.push_back(std::ssize(tokens_to[rank]));
        tokens.insert(tokens.end(), tokens_to[rank].begin(), tokens_to[rank].end());
        logprobs.insert(logprobs.end(), logprobs_to[rank].begin(), logprobs_to[rank].end());
    }
    std::int64_t total = 0;
    std::vector<std::int64_t> next(ranks, 0);  // where the next sample of each generator begins
    for (std::size_t rank = 0; rank < ranks; ++rank) {
        next[rank] = total;
        total += receive_counts[rank];
    }
    std::vector<TokenId> received_tokens(static_cast<std::size_t>(total));
    std::vector<float> received_logprobs(static_cast<std::size_t>(total));
    data.all_to_all_v("answers to learn from", tokens, send_counts, received_tokens,
                      receive_counts);
    data.all_to_all_v("answers to learn from", logprobs, send_counts, received_logprobs,
                      receive_counts);

    std::vector<AnswerTokens> out(members.size());
    for (std::size_t s = 0; s < members.size(); ++s) {
        if (learner[s] != self) continue;
        const AnswerRecord& record = answers.records[members[s]];
        std::int64_t& at = next[static_cast<std::size_t>(record.rank)];
        const auto begin = static_cast<std::ptrdiff_t>(at);
        const auto end = static_cast<std::ptrdiff_t>(at + record.answer_tokens);
        out[s].tokens.assign(received_tokens.begin() + begin, received_tokens.begin() + end);
        out[s].logprobs.assign(received_logprobs.begin() + begin, received_logprobs.begin() + end);
        at += record.answer_tokens;
    }
    return out;
}

}  // namespace rankwise::stages
