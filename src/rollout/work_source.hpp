// Who generates which sample: a local queue, or dealt over the data ranks without a server.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "parallel/communicator.hpp"
#include "parallel/deal.hpp"
#include "src/rollout/sampling.hpp"

namespace rankwise::rollout {

/// One sample of one request.
struct WorkUnit {
    std::int64_t request = 0;  ///< index into the phase's requests
    std::int32_t sample = 0;
};

/// Where the generator gets its work. Nothing about the order can change a result.
class WorkSource {
  public:
    virtual ~WorkSource() = default;
    /// Units to start now; at most `free_slots`. `idle`: the caller has nothing else to do and may
    /// be kept waiting.
    virtual std::vector<WorkUnit> poll(std::int64_t free_slots, bool idle) = 0;
    /// No more will come.
    [[nodiscard]] virtual bool exhausted() const = 0;
};

/// All samples of all requests, in order, on one rank.
class LocalWork final : public WorkSource {
  public:
    explicit LocalWork(std::span<const Request> requests);
    std::vector<WorkUnit> poll(std::int64_t free_slots, bool idle) override;
    [[nodiscard]] bool exhausted() const override { return queue_.empty(); }

  private:
    std::deque<WorkUnit> queue_;
};

/// Dealt in rounds: each is a non-blocking all-gather of free slots, from which every rank computes
/// the same assignment (parallel/deal.hpp). A round is started every `interval` polls, at once when
/// idle.
class DealtWork final : public WorkSource {
  public:
    DealtWork(std::span<const Request> requests, parallel::Communicator& data,
              std::int64_t interval);
    ~DealtWork() override;
    std::vector<WorkUnit> poll(std::int64_t free_slots, bool idle) override;
    [[nodiscard]] bool exhausted() const override;

  private:
    std::vector<WorkUnit> take(std::int64_t free_slots);

    parallel::Communicator& data_;
    std::int64_t interval_;
    parallel::Dealer dealer_;
    std::deque<WorkUnit> mine_;  // dealt to this rank and not started
    std::vector<std::int64_t> send_;
    std::vector<std::int64_t> free_;
    std::optional<parallel::Request> round_;
    std::int64_t polls_ = 0;
};

/// The work of a group of ranks that generate together (tensor and pipeline ranks): the first rank
/// polls, and all start the same. Ranks of a pipeline poll one after another: nobody waits for
/// those behind.
class GroupWork final : public WorkSource {
  public:
    /// @param source    asked on rank 0 of both axes alone; outlives this
    /// @param pipeline  null: no pipeline
    GroupWork(WorkSource& source, parallel::Communicator& tensor,
              parallel::Communicator* pipeline = nullptr)
        : source_(source), tensor_(tensor), pipeline_(pipeline) {}
    std::vector<WorkUnit> poll(std::int64_t free_slots, bool idle) override;
    [[nodiscard]] bool exhausted() const override { return exhausted_; }

  private:
    using Message = std::vector<std::int64_t>;
    struct Sent {
        std::unique_ptr<Message> message;
        parallel::Request request;
    };
    void pass_on(Message& message);

    WorkSource& source_;
    parallel::Communicator& tensor_;
    parallel::Communicator* pipeline_;
    std::deque<Sent> sent_;  // that may still be on their way
    bool exhausted_ = false;
};

}  // namespace rankwise::rollout
