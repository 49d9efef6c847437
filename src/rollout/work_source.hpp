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

/// Words of the first rank of a group to all of it: ranks of a pipeline get them one by one, and
/// nobody waits for those behind; each passes them on to its tensor ranks.
class GroupWord {
  public:
    /// @param pipeline  null: no pipeline
    GroupWord(parallel::Communicator& tensor, parallel::Communicator* pipeline)
        : tensor_(tensor), pipeline_(pipeline) {}
    /// There is nobody to tell.
    [[nodiscard]] bool alone() const { return tensor_.size() == 1 && pipeline_ == nullptr; }
    [[nodiscard]] bool first() const {
        return tensor_.rank() == 0 && (pipeline_ == nullptr || pipeline_->rank() == 0);
    }
    /// Collective: as many words on every rank, which those of the first replace.
    void tell(std::vector<std::int64_t>& words);

  private:
    struct Sent {
        std::unique_ptr<std::vector<std::int64_t>> words;
        parallel::Request request;
    };
    void pass_on(std::vector<std::int64_t>& words);

    parallel::Communicator& tensor_;
    parallel::Communicator* pipeline_;
    std::deque<Sent> sent_;  // that may still be on their way
};

/// Words for a group's work in so many slots: whether there will be more, how much comes now, and
/// what.
[[nodiscard]] std::vector<std::int64_t> room_for_work(std::int64_t free_slots);

/// The work of a group of ranks that generate together (tensor and pipeline ranks): the first rank
/// polls, and all start the same. A rank alone asks its source.
class GroupWork final : public WorkSource {
  public:
    /// @param source    asked on rank 0 of both axes alone; outlives this
    /// @param pipeline  null: no pipeline
    GroupWork(WorkSource& source, parallel::Communicator& tensor,
              parallel::Communicator* pipeline = nullptr)
        : source_(source), word_(tensor, pipeline) {}
    std::vector<WorkUnit> poll(std::int64_t free_slots, bool idle) override;
    [[nodiscard]] bool exhausted() const override {
        return word_.alone() ? source_.exhausted() : exhausted_;
    }

  private:
    WorkSource& source_;
    GroupWord word_;
    bool exhausted_ = false;
};

}  // namespace rankwise::rollout
