#include "src/rollout/work_source.hpp"

#include <algorithm>

#include "src/base/checked.hpp"
#include "src/model/pipeline_part.hpp"

namespace rankwise::rollout {
namespace {

std::vector<parallel::WorkItem> items_of(std::span<const Request> requests) {
    std::vector<parallel::WorkItem> items;
    for (std::size_t r = 0; r < requests.size(); ++r) {
        for (std::int32_t sample = 0; sample < requests[r].samples; ++sample) {
            items.push_back({static_cast<std::int64_t>(r), sample, requests[r].expected_length});
        }
    }
    return items;
}

std::vector<WorkUnit> take_front(std::deque<WorkUnit>& queue, std::int64_t most) {
    std::vector<WorkUnit> units;
    while (!queue.empty() && static_cast<std::int64_t>(units.size()) < most) {
        units.push_back(queue.front());
        queue.pop_front();
    }
    return units;
}

}  // namespace

LocalWork::LocalWork(std::span<const Request> requests) {
    for (std::size_t r = 0; r < requests.size(); ++r) {
        for (std::int32_t sample = 0; sample < requests[r].samples; ++sample) {
            queue_.push_back({static_cast<std::int64_t>(r), sample});
        }
    }
}

std::vector<WorkUnit> LocalWork::poll(std::int64_t free_slots, bool /*idle*/) {
    return take_front(queue_, free_slots);
}

DealtWork::DealtWork(std::span<const Request> requests, parallel::Communicator& data,
                     std::int64_t interval)
    : data_(data),
      interval_(std::max<std::int64_t>(interval, 1)),
      dealer_(items_of(requests), 1),
      send_(1),
      free_(static_cast<std::size_t>(data.size())) {}

DealtWork::~DealtWork() = default;

bool DealtWork::exhausted() const {
    return mine_.empty() && dealer_.waiting() == 0;
}

std::vector<WorkUnit> DealtWork::poll(std::int64_t free_slots, bool idle) {
    const std::int64_t unstarted = static_cast<std::int64_t>(mine_.size());
    if (!round_ && dealer_.waiting() > 0 && (polls_ % interval_ == 0 || idle)) {
        send_[0] = std::max<std::int64_t>(0, free_slots - unstarted);
        round_ = data_.start_all_gather("free slots", send_, free_);
    }
    ++polls_;
    if (round_) {
        if (idle && mine_.empty()) round_->wait();
        if (round_->test()) {
            round_.reset();
            for (const parallel::Dealt& dealt : dealer_.deal(free_)) {
                if (dealt.rank != data_.rank()) continue;
                mine_.push_back({dealt.item.prompt, narrow<std::int32_t>(dealt.item.sample)});
            }
        }
    }
    return take_front(mine_, free_slots);
}

void GroupWord::tell(std::vector<std::int64_t>& words) {
    if (pipeline_ != nullptr && tensor_.rank() == 0) pass_on(words);
    tensor_.broadcast("work", words, 0);
}

void GroupWord::pass_on(std::vector<std::int64_t>& words) {
    if (pipeline_->rank() > 0) {
        pipeline_->start_receive("work", words, 0, model::kWorkChannel).wait();
        return;
    }
    while (!sent_.empty() && sent_.front().request.test()) sent_.pop_front();
    for (int to = 1; to < pipeline_->size(); ++to) {
        Sent& sent = sent_.emplace_back();
        sent.words = std::make_unique<std::vector<std::int64_t>>(words);
        sent.request = pipeline_->start_send("work", *sent.words, to, model::kWorkChannel);
    }
}

std::vector<std::int64_t> room_for_work(std::int64_t free_slots) {
    return std::vector<std::int64_t>(static_cast<std::size_t>(2 + 2 * free_slots), 0);
}

std::vector<WorkUnit> GroupWork::poll(std::int64_t free_slots, bool idle) {
    if (word_.alone()) return source_.poll(free_slots, idle);
    if (exhausted_) return {};  // all have been told
    // Free slots are the same on every rank of the group, so that the message's size is known.
    std::vector<std::int64_t> message = room_for_work(free_slots);
    if (word_.first()) {
        const std::vector<WorkUnit> units = source_.poll(free_slots, idle);
        message[0] = source_.exhausted() ? 1 : 0;
        message[1] = std::ssize(units);
        for (std::size_t i = 0; i < units.size(); ++i) {
            message[2 + 2 * i] = units[i].request;
            message[3 + 2 * i] = units[i].sample;
        }
    }
    word_.tell(message);
    exhausted_ = message[0] != 0;
    std::vector<WorkUnit> units;
    for (std::size_t i = 0; i < static_cast<std::size_t>(message[1]); ++i)
        units.push_back({message[2 + 2 * i], narrow<std::int32_t>(message[3 + 2 * i])});
    return units;
}

}  // namespace rankwise::rollout
