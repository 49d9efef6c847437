#include "parallel/post_office.hpp"

#include <utility>

#include "parallel/thread_world.hpp"
#include "src/base/error.hpp"

namespace rankwise::parallel {

PostOffice::PostOffice(int ranks)
    : boxes_(static_cast<std::size_t>(ranks)), left_(static_cast<std::size_t>(ranks)) {}

void PostOffice::post(int to, const MessageKey& key, Message message) {
    Box& box = boxes_[static_cast<std::size_t>(to)];
    {
        const std::lock_guard lock(box.mutex);
        box.messages.emplace(key, std::move(message));
    }
    box.arrived.notify_all();
}

Message PostOffice::find(Box& box, int rank, const MessageKey& key, std::string_view what,
                         bool wait) {
    std::unique_lock lock(box.mutex);
    while (true) {
        if (const auto found = box.messages.find(key); found != box.messages.end()) {
            Message message = std::move(found->second);
            box.messages.erase(found);
            return message;
        }
        if (failed_) {
            throw RankReleased(fmt::format(
                "{}: rank {} no longer waits, because another rank has failed", what, rank));
        }
        ensure(key.source != rank || !wait,
               "{}: rank {} waits for a message from itself that it has not sent", what, rank);
        ensure(!left_[static_cast<std::size_t>(key.source)],
               "{}: rank {} waits for rank {}, which has returned without taking part", what, rank,
               key.source);
        if (!wait) return nullptr;
        box.arrived.wait(lock);
    }
}

Message PostOffice::try_take(int rank, const MessageKey& key, std::string_view what) {
    return find(boxes_[static_cast<std::size_t>(rank)], rank, key, what, false);
}

Message PostOffice::take(int rank, const MessageKey& key, std::string_view what) {
    return find(boxes_[static_cast<std::size_t>(rank)], rank, key, what, true);
}

void PostOffice::wake_all() {
    for (Box& box : boxes_) {
        // A rank between its look and its sleep holds the lock; taking it once makes sure that it
        // hears the call.
        { const std::lock_guard lock(box.mutex); }
        box.arrived.notify_all();
    }
}

void PostOffice::fail(std::exception_ptr cause) {
    {
        const std::lock_guard lock(cause_mutex_);
        if (!cause_) cause_ = std::move(cause);
    }
    failed_ = true;
    wake_all();
}

std::exception_ptr PostOffice::cause() const {
    const std::lock_guard lock(cause_mutex_);
    return cause_;
}

void PostOffice::leave(int rank) {
    left_[static_cast<std::size_t>(rank)] = true;
    wake_all();
}

}  // namespace rankwise::parallel
