// What travels between the pipeline ranks that generate together.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "src/model/decoder.hpp"
#include "src/rollout/sampling.hpp"
#include "src/sums/messages.hpp"

namespace rankwise::rollout {

/// Streams of rows from stage to stage; tokens, once drawn, from the last rank to all; and for a
/// tied embedding, which only the last rank has, rows of it for the first: of all prompts' ids when
/// a run begins, and with each token that was drawn. So the first rank never waits for one that is
/// busy with an earlier group. All of it in scratch memory, taken when a run begins.
class PipelineMail {
  public:
    /// @param groups      of slots that are generated in turn, each with at most `slots`
    /// @param most_rows   of prompts in one pass
    PipelineMail(model::Compute& compute, const model::Weights& weights,
                 std::span<const Request> requests, std::size_t groups, std::int64_t slots,
                 std::int64_t most_rows);

    /// Streams of prompts and those of tokens are queues of their own.
    enum class Kind : std::uint8_t { prompts, tokens };
    /// Where a stage that is not the last computes, and what it does then.
    [[nodiscard]] kernels::Matrix room(Kind kind, std::int64_t rows);
    void send(Kind kind);
    void receive(Kind kind, kernels::Matrix x);

    /// On the first rank: rows of ids of prompts.
    void embed_prompts(std::span<const TokenId> ids, kernels::Matrix x);
    /// On the first rank: rows of a group's newest ids. drawn[i]: which one it was of those that
    /// the group heard last; the rest are prompts' (as many fewer).
    void embed_newest(std::size_t group, std::span<const TokenId> ids,
                      std::span<const std::int64_t> drawn, kernels::Matrix x);

    /// On the last rank, which has drawn them: a group's tokens to all others.
    void tell(std::size_t group, std::span<const TokenId> tokens, std::span<const float> logprobs);
    /// On the others: as many.
    void hear(std::size_t group, std::span<TokenId> tokens, std::span<float> logprobs);

  private:
    struct Drawn {
        TokenId token = 0;
        float logprob = 0.0F;
    };
    struct Group {
        std::vector<Drawn> drawn;
        kernels::Matrix rows;  // of a tied embedding, [slots, hidden]
        std::vector<parallel::Request> requests;
    };
    [[nodiscard]] kernels::Matrix rows_of(std::size_t group, std::size_t count);
    void look_up_prompts(std::span<const Request> requests);
    [[nodiscard]] sums::Outbox& outbox(Kind kind) {
        return kind == Kind::prompts ? *prompts_ : *tokens_;
    }

    kernels::Arena::Scope scope_;
    model::Compute& compute_;
    const model::Weights& weights_;
    const model::PipelinePart& part_;
    std::optional<sums::Outbox> prompts_, tokens_;
    std::vector<Group> groups_;
    std::unordered_map<TokenId, TokenId> places_;  // of prompts' ids in prompt_rows_
    kernels::Matrix prompt_rows_;
};

}  // namespace rankwise::rollout
