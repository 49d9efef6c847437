// Messages between the threads of one process that stand for ranks.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <string_view>
#include <vector>

namespace rankwise::parallel {

/// Bytes on their way; one copy is shared by all receivers.
using Message = std::shared_ptr<const std::vector<std::byte>>;

/// A message is found by its name, so the order in which requests are waited for does not matter.
struct MessageKey {
    std::uint64_t context = 0;  ///< the communicator
    int source = 0;             ///< world rank
    bool collective = false;
    int channel = 0;             ///< of messages between a pair
    std::uint64_t sequence = 0;  ///< of collectives in the context, or of messages on this channel
    friend auto operator<=>(const MessageKey&, const MessageKey&) = default;
};

/// A box for each rank. Posting never waits; taking waits until the message is there.
class PostOffice {
  public:
    explicit PostOffice(int ranks);

    void post(int to, const MessageKey& key, Message message);
    /// Null if it has not arrived.
    /// @throws as take(), when it never will.
    [[nodiscard]] Message try_take(int rank, const MessageKey& key, std::string_view what);
    /// @throws RankReleased if a rank has failed meanwhile, InternalError if the message can never
    /// come: its sender has returned, or is this rank itself.
    [[nodiscard]] Message take(int rank, const MessageKey& key, std::string_view what);

    /// A rank has thrown: all that wait are released. The first cause is kept.
    void fail(std::exception_ptr cause);
    [[nodiscard]] std::exception_ptr cause() const;
    /// A rank has returned and will post no more.
    void leave(int rank);

    /// A context number that nobody has used.
    [[nodiscard]] std::uint64_t new_context() { return next_context_.fetch_add(1); }

  private:
    struct Box {
        std::mutex mutex;
        std::condition_variable arrived;
        std::map<MessageKey, Message> messages;
    };
    Message find(Box& box, int rank, const MessageKey& key, std::string_view what, bool wait);
    void wake_all();

    std::deque<Box> boxes_;
    std::deque<std::atomic<bool>> left_;
    std::atomic<bool> failed_ = false;
    mutable std::mutex cause_mutex_;
    std::exception_ptr cause_;
    std::atomic<std::uint64_t> next_context_ = 1;
};

}  // namespace rankwise::parallel
