#include "parallel/expert_dispatch.hpp"

#include <algorithm>

#include "src/base/error.hpp"

namespace rankwise::parallel {

Range experts_of(std::int64_t experts, int ranks, int rank) {
    return split(experts, ranks, rank);
}

int holder_of_expert(std::int64_t experts, int ranks, std::int64_t expert) {
    ensure(expert >= 0 && expert < experts, "expert {} of {} on {} ranks", expert, experts, ranks);
    // The last rank whose first expert, floor(experts rank / ranks), is not beyond it.
    return narrow<int>(((expert + 1) * ranks - 1) / experts);
}

DispatchPlan::DispatchPlan(std::span<const std::int64_t> rows, int ranks, int rank,
                           int ranks_a_chunk, std::int64_t most)
    : rows_(rows.begin(), rows.end()),
      ranks_(ranks),
      rank_(rank),
      ranks_a_chunk_(ranks_a_chunk),
      experts_(std::ssize(rows) / ranks),
      most_(most) {
    ensure(std::ssize(rows) == experts_ * ranks && ranks % ranks_a_chunk == 0 && most > 0,
           "a dispatch of {} counts over {} ranks, {} a chunk, {} rows a round", rows.size(), ranks,
           ranks_a_chunk, most);
    for (int holder = 0; holder < ranks; ++holder)
        rounds_ = std::max(rounds_, ceil_div(load_of(holder), most_));
}

std::int64_t DispatchPlan::load_of(int holder) const {
    std::int64_t load = 0;
    const Range own = experts_of(experts_, ranks_, holder);
    for (int rank = 0; rank < ranks_; ++rank) {
        for (std::int64_t expert = own.begin; expert < own.end; ++expert)
            load += rows(rank, expert);
    }
    return load;
}

std::int64_t DispatchPlan::rows_of(std::int64_t expert, int chunk) const {
    std::int64_t sum = 0;
    for (int i = 0; i < ranks_a_chunk_; ++i) sum += rows(chunk * ranks_a_chunk_ + i, expert);
    return sum;
}

Range DispatchPlan::part_of(int from, int holder, Range window) const {
    const Range own = experts_of(experts_, ranks_, holder);
    Range part;
    std::int64_t at = 0;      // among the holder's rows
    std::int64_t before = 0;  // among those of `from`
    for (std::int64_t expert = own.begin; expert < own.end; ++expert) {
        for (int rank = 0; rank < ranks_; ++rank) {
            const std::int64_t count = rows(rank, expert);
            if (rank == from) {
                const Range here = intersect({at, at + count}, window);
                if (!here.empty()) {
                    if (part.empty()) part.begin = before + here.begin - at;
                    part.end = before + here.end - at;
                }
                before += count;
            }
            at += count;
        }
    }
    return part;
}

DispatchPlan::Round DispatchPlan::round(std::int64_t index) const {
    const Range window{index * most_, (index + 1) * most_};
    Round round;
    std::int64_t sorted = 0;  // this rank's rows for holders before
    for (int holder = 0; holder < ranks_; ++holder) {
        const Range part = part_of(rank_, holder, window);
        round.sent.push_back({sorted + part.begin, sorted + part.end});
        const Range theirs = experts_of(experts_, ranks_, holder);
        for (std::int64_t expert = theirs.begin; expert < theirs.end; ++expert)
            sorted += rows(rank_, expert);
    }
    std::vector<std::int64_t> next;  // by sender: the place of its next row among the received
    std::int64_t place = 0;
    for (int sender = 0; sender < ranks_; ++sender) {
        round.received.push_back(part_of(sender, rank_, window).size());
        next.push_back(place);
        place += round.received.back();
    }
    std::int64_t at = 0;  // among all rows that this rank computes
    for (std::int64_t expert = own().begin; expert < own().end; ++expert) {
        for (int chunk = 0; chunk < chunks(); ++chunk) {
            const std::int64_t first = at;
            const std::int64_t begin = std::ssize(round.order);
            for (int i = 0; i < ranks_a_chunk_; ++i) {
                const int sender = chunk * ranks_a_chunk_ + i;
                const std::int64_t count = rows(sender, expert);
                const std::int64_t here = intersect({at, at + count}, window).size();
                for (std::int64_t row = 0; row < here; ++row)
                    round.order.push_back(next[static_cast<std::size_t>(sender)]++);
                at += count;
            }
            const Range computed{begin, std::ssize(round.order)};
            if (computed.empty()) continue;
            round.segments.push_back({.expert = expert,
                                      .chunk = chunk,
                                      .rows = computed,
                                      .begins = window.contains(first),
                                      .ends = at <= window.end});
        }
    }
    return round;
}

}  // namespace rankwise::parallel
