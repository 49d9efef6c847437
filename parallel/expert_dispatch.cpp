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
    : ranks_(ranks),
      rank_(rank),
      ranks_a_chunk_(ranks_a_chunk),
      experts_(std::ssize(rows) / ranks),
      most_(most) {
    ensure(std::ssize(rows) == experts_ * ranks && ranks % ranks_a_chunk == 0 && most > 0,
           "a dispatch of {} counts over {} ranks, {} a chunk, {} rows a round", rows.size(), ranks,
           ranks_a_chunk, most);
    const auto count_of = [&](int of, std::int64_t expert) {
        return rows[static_cast<std::size_t>(of * experts_ + expert)];
    };
    std::vector<std::int64_t> all(static_cast<std::size_t>(experts_), 0);  // of each expert
    std::vector<std::int64_t> before = all;  // those of lower ranks alone
    for (int of = 0; of < ranks; ++of) {
        if (of == rank) before = all;
        for (std::int64_t expert = 0; expert < experts_; ++expert)
            all[static_cast<std::size_t>(expert)] += count_of(of, expert);
    }
    std::int64_t sorted = 0;
    for (int holder = 0; holder < ranks; ++holder) {
        holders_.push_back({std::ssize(sent_), sorted});
        const Range theirs = experts_of(experts_, ranks, holder);
        std::int64_t load = 0;
        for (std::int64_t expert = theirs.begin; expert < theirs.end; ++expert) {
            const auto at = static_cast<std::size_t>(expert);
            if (const std::int64_t count = count_of(rank, expert); count > 0) {
                sent_.push_back({load + before[at], {sorted, sorted + count}});
                sorted += count;
            }
            load += all[at];
        }
        rounds_ = std::max(rounds_, ceil_div(load, most));
    }
    holders_.push_back({std::ssize(sent_), sorted});
    std::int64_t at = 0;
    for (std::int64_t expert = own().begin; expert < own().end; ++expert) {
        for (int chunk = 0; chunk < chunks(); ++chunk) {
            const std::int64_t begin = at;
            const std::size_t first = held_.size();
            for (int i = 0; i < ranks_a_chunk; ++i) {
                const int sender = chunk * ranks_a_chunk + i;
                const std::int64_t count = count_of(sender, expert);
                if (count == 0) continue;
                held_.push_back({.expert = expert, .sender = sender, .rows = {at, at + count}});
                at += count;
            }
            for (std::size_t h = first; h < held_.size(); ++h) held_[h].segment = {begin, at};
            segment_rows_.push_back(at - begin);
        }
    }
}

std::int64_t DispatchPlan::rows_of(std::int64_t expert, int chunk) const {
    return segment_rows_[static_cast<std::size_t>((expert - own().begin) * chunks() + chunk)];
}

std::int64_t DispatchPlan::sent_before(int holder, std::int64_t place) const {
    const Holder& one = holders_[static_cast<std::size_t>(holder)];
    const auto first = sent_.begin() + one.first_sent;
    const auto last = sent_.begin() + holders_[static_cast<std::size_t>(holder) + 1].first_sent;
    const auto beyond =
        std::partition_point(first, last, [&](const Sent& sent) { return sent.place < place; });
    if (beyond == first) return one.first_row;
    const Sent& sent = *(beyond - 1);
    return sent.rows.begin + std::min(sent.rows.size(), place - sent.place);
}

DispatchPlan::Round DispatchPlan::round(std::int64_t index) const {
    const Range window{index * most_, (index + 1) * most_};
    Round round;
    for (int holder = 0; holder < ranks_; ++holder)
        round.sent.push_back({sent_before(holder, window.begin), sent_before(holder, window.end)});
    const auto first = std::partition_point(held_.begin(), held_.end(), [&](const Held& held) {
        return held.rows.end <= window.begin;
    });
    const auto last = std::partition_point(
        first, held_.end(), [&](const Held& held) { return held.rows.begin < window.end; });
    round.received.assign(static_cast<std::size_t>(ranks_), 0);
    for (auto held = first; held != last; ++held)
        round.received[static_cast<std::size_t>(held->sender)] +=
            intersect(held->rows, window).size();
    std::vector<std::int64_t> next;  // by sender: the place of its next row among the received
    std::int64_t place = 0;
    for (const std::int64_t count : round.received) {
        next.push_back(place);
        place += count;
    }
    round.order.reserve(static_cast<std::size_t>(place));
    for (auto held = first; held != last; ++held) {
        if (held == first || held->segment != (held - 1)->segment) {
            const std::int64_t begin = std::ssize(round.order);
            round.segments.push_back({.expert = held->expert,
                                      .chunk = held->sender / ranks_a_chunk_,
                                      .rows = {begin, begin},
                                      .begins = window.contains(held->segment.begin),
                                      .ends = held->segment.end <= window.end});
        }
        std::int64_t& from = next[static_cast<std::size_t>(held->sender)];
        for (std::int64_t left = intersect(held->rows, window).size(); left > 0; --left)
            round.order.push_back(from++);
        round.segments.back().rows.end = std::ssize(round.order);
    }
    return round;
}

}  // namespace rankwise::parallel
