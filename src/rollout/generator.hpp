// Continuous batching: answers are generated together, each in a slot, over a paged cache that
// samples of a prompt share.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "src/rollout/cached_layers.hpp"
#include "src/rollout/draw.hpp"
#include "src/rollout/pipeline_mail.hpp"
#include "src/rollout/sampling.hpp"
#include "src/rollout/work_source.hpp"
#include "src/text/tokenizer.hpp"

namespace rankwise::rollout {

/// All physical.
struct GeneratorOptions {
    std::int64_t slots = 64;               ///< most answers generated at a time
    std::int64_t prefill_tokens = 2048;    ///< most prompt rows in one pass
    std::int64_t logits_bytes = 32 << 20;  ///< most bytes of logits held at a time
    /// Weights whose rows are shared out over the data ranks are gathered in every pass instead of
    /// held: the data ranks go pass by pass together.
    bool stream_weights = false;
    /// Data ranks that a run's requests are dealt to: none has more to generate at a time than its
    /// share, to which pages and the groups of a pipeline are sized.
    std::int64_t data_ranks = 1;
    bool break_order = false;  ///< for tests: log-probabilities of several answers at a time are
                               ///< summed in another order than those of one (breaks N6)
};

/// Work done by this rank.
struct GeneratorCounts {
    std::int64_t decode_steps = 0;
    std::int64_t decode_rows = 0;   ///< tokens drawn
    std::int64_t prefill_rows = 0;  ///< prompt tokens computed; a prompt's last is computed once a
                                    ///< sample, as its first step
    std::int64_t prompts_shared = 0;  ///< samples that found their prompt computed
};

/// Generates answers with one model's weights. A sample's tokens and log-probabilities depend on
/// the weights, its prompt, its sampling options and its name (prompt id, sample, step) alone.
/// Where tensor or pipeline ranks share the weights they generate together: run() is collective
/// over them, each has every trajectory, and their work sources and callbacks answer alike
/// (GroupWork). Over P pipeline ranks the slots form P groups, which go through the stages one
/// behind another: while a group's tokens are drawn, the others are computed. Data ranks that
/// stream weights, or share out experts, go together: run() is collective over them, they take a
/// group's turn at the same time, one that has nothing to compute follows the others, and where one
/// of them is stopped all stop.
class Generator {
  public:
    /// @param tokenizer  for answers as text and stop strings; null: neither
    /// @param ids        ids of the tokenizer; padded vocabulary rows are never drawn
    Generator(model::Compute& compute, const model::Weights& weights,
              const GeneratorOptions& options, const text::Tokenizer* tokenizer, std::int64_t ids);

    /// Called as each answer ends (in no particular order), for example to score it while others go
    /// on; and, for streaming, after every token.
    struct Callbacks {
        std::function<void(const Trajectory&)> finished;
        std::function<void(const WorkUnit&, TokenId)> token;
        /// Asked once a step, by each group of a pipeline in its turn: true stops generation;
        /// answers under way are dropped.
        std::function<bool()> stop;
    };

    /// Groups that the slots of a run form.
    [[nodiscard]] std::int64_t groups_for(std::span<const Request> requests) const;

    /// Runs until `work` is exhausted. @return the trajectories that this rank generated, in
    /// canonical order (group, sample).
    /// @throws BadInput if a prompt is empty or leaves no room in the model's context.
    std::vector<Trajectory> run(std::span<const Request> requests, const SamplingOptions& sampling,
                                WorkSource& work, std::int64_t policy_version,
                                const Callbacks& callbacks);

    [[nodiscard]] const GeneratorCounts& counts() const { return counts_; }
    /// Bytes of the cache.
    [[nodiscard]] std::int64_t cache_bytes() const { return pool_ ? pool_->bytes() : 0; }
    /// Pages of it that hold something; none between runs.
    [[nodiscard]] std::int64_t pages_in_use() const {
        return pool_ ? pool_->capacity() - pool_->free() : 0;
    }

  private:
    struct Prompt {
        std::vector<PageId> pages;  // of all tokens but the last
        std::int64_t users = 0;     // samples under way
    };
    struct Slot {
        WorkUnit unit;
        Trajectory trajectory;
        std::vector<PageId> pages;
        std::array<std::uint32_t, 2> key{};
        std::int64_t limit = 0;                     // most tokens of the trajectory
        std::unique_ptr<text::StreamDecoder> text;  // with stop strings
        std::string answer;
        std::int64_t drawn =
            -1;  // which of the group's last tokens its newest is; -1: the prompt's
    };
    /// Slots whose tokens are drawn together.
    struct Group {
        std::int64_t capacity = 0;
        std::vector<Slot> active;
        bool under_way = false;  // its rows are on their way through the stages
        bool follows = false;    // it has none, but data ranks that go together have some
        Rows rows;
        Drawn drawn;
    };

    /// What there is to do when it is a group's turn.
    struct Turn {
        std::int64_t prompt_passes = 0;
        bool decodes = false;  // its samples, old and new
        bool more = false;     // now or later, in any group
        bool stops = false;
    };

    [[nodiscard]] std::int64_t slots_for(std::span<const Request> requests) const;
    void prepare_pool(std::span<const Request> requests, const SamplingOptions& sampling);
    void prepare_groups(std::span<const Request> requests);
    [[nodiscard]] bool idle() const;
    void admit(Group& group, std::span<const Request> requests, std::span<const WorkUnit> units,
               const SamplingOptions& sampling, std::int64_t policy_version);
    [[nodiscard]] std::vector<Rows> prompt_passes(std::span<const Request> requests,
                                                  std::span<const WorkUnit> units);
    void prefill(std::span<const Rows> passes, std::int64_t count);
    void fork(const Request& request, const Prompt& prompt, Slot& slot, std::vector<PageId>& from,
              std::vector<PageId>& to);
    void prepare_rows(Group& group);
    void decode(std::size_t group, const model::LayerStage& stage, const SamplingOptions& sampling);
    /// Tokens and log-probabilities of a group whose rows have gone through all stages.
    void collect(std::size_t group, const SamplingOptions& sampling, const Callbacks& callbacks);
    /// Where data ranks go together, what any of them has to do; else what this one has.
    [[nodiscard]] Turn agree_on(const Turn& mine) const;
    void draw_next(kernels::Matrix x, const SamplingOptions& sampling, Group& group) const;
    [[nodiscard]] FinishReason finish_reason(Slot& slot, const SamplingOptions& sampling);
    void finish(Slot& slot);

    model::Compute& compute_;
    const model::Weights& weights_;
    GeneratorOptions options_;
    const text::Tokenizer* tokenizer_;
    std::int64_t ids_;
    bool streams_;  // gathers weights in every pass
    bool in_step_;  // with other data ranks, turn by turn
    CachedLayers layers_;
    std::unique_ptr<KvPool> pool_;
    std::map<std::int64_t, Prompt> prompts_;  // by request
    std::vector<Group> groups_;
    std::optional<PipelineMail> mail_;  // during a run over several pipeline ranks
    GeneratorCounts counts_;
};

}  // namespace rankwise::rollout
