#include "src/rollout/pipeline_mail.hpp"

#include <algorithm>
#include <set>

namespace rankwise::rollout {
namespace {

parallel::Channel channel_of(PipelineMail::Kind kind) {
    return kind == PipelineMail::Kind::prompts ? model::kPromptChannel : model::kStreamChannel;
}

}  // namespace

PipelineMail::PipelineMail(model::Compute& compute, const model::Weights& weights,
                           std::span<const Request> requests, std::size_t groups,
                           std::int64_t slots, std::int64_t most_rows)
    : scope_(compute.arena),
      compute_(compute),
      weights_(weights),
      part_(weights.pipeline_part()),
      groups_(groups) {
    const std::int64_t hidden = weights.config().hidden;
    // Over several virtual stages a rank sends as much as goes around before it is received.
    const auto around = static_cast<std::size_t>(part_.place.degree);
    const std::size_t depth = part_.place.virtual_stages > 1 ? around : 2;
    const auto make = [&](std::optional<sums::Outbox>& box, Kind kind, std::int64_t rows) {
        box.emplace(compute.tools(), weights.pipeline(), part_.next(), channel_of(kind), depth,
                    rows * hidden, weights.config().dtype);
    };
    make(prompts_, Kind::prompts, most_rows);
    make(tokens_, Kind::tokens, slots);
    if (!part_.looks_up_elsewhere() && !part_.looks_up_for_first()) return;
    for (Group& group : groups_) group.rows = compute.matrix(slots, hidden, weights.config().dtype);
    look_up_prompts(requests);
}

void PipelineMail::look_up_prompts(std::span<const Request> requests) {
    std::set<TokenId> ids;
    for (const Request& request : requests)
        ids.insert(request.prompt.begin(), request.prompt.end());
    const std::vector<TokenId> unique(ids.begin(), ids.end());
    for (std::size_t i = 0; i < unique.size(); ++i) places_[unique[i]] = narrow<TokenId>(i);
    const auto rows_in = [&] {
        return compute_.matrix(std::ssize(unique), weights_.config().hidden,
                               weights_.config().dtype);
    };
    if (part_.looks_up_elsewhere()) {
        prompt_rows_ = rows_in();
        sums::receive(compute_.tools(), weights_.pipeline(), "activations:lookup", prompt_rows_,
                      part_.last_rank(), model::kLookupChannel);
        return;
    }
    const kernels::Arena::Scope scope(compute_.arena);
    const kernels::Matrix rows = rows_in();
    model::embed(compute_, weights_, unique, rows);
    sums::start_send(compute_.tools(), weights_.pipeline(), "activations:lookup", rows, 0,
                     model::kLookupChannel)
        .wait();
}

kernels::Matrix PipelineMail::room(Kind kind, std::int64_t rows) {
    return outbox(kind).room(rows, weights_.config().hidden);
}

void PipelineMail::send(Kind kind) {
    outbox(kind).send("activations:stage");
}

void PipelineMail::receive(Kind kind, kernels::Matrix x) {
    sums::receive(compute_.tools(), weights_.pipeline(), "activations:stage", x, part_.previous(),
                  channel_of(kind));
}

void PipelineMail::embed_prompts(std::span<const TokenId> ids, kernels::Matrix x) {
    if (part_.has_embedding) {
        model::embed(compute_, weights_, ids, x);
        return;
    }
    std::vector<TokenId> places;
    for (const TokenId id : ids) places.push_back(places_.at(id));
    compute_.device.embed({.table = prompt_rows_, .ids = places, .out = x}, compute_.stream);
}

void PipelineMail::embed_newest(std::size_t group, std::span<const TokenId> ids,
                                std::span<const std::int64_t> drawn, kernels::Matrix x) {
    if (part_.has_embedding) {
        model::embed(compute_, weights_, ids, x);
        return;
    }
    const std::int64_t known = std::ssize(drawn);
    if (known > 0) {
        compute_.device.gather_rows({.from = rows_of(group, groups_[group].drawn.size()),
                                     .rows = drawn,
                                     .to = x.row_range({0, known})},
                                    compute_.stream);
    }
    if (known < std::ssize(ids))
        embed_prompts(ids.subspan(drawn.size()), x.row_range({known, std::ssize(ids)}));
}

kernels::Matrix PipelineMail::rows_of(std::size_t group, std::size_t count) {
    const kernels::Matrix all = groups_[group].rows;
    return all.rows == 0 ? all : all.row_range({0, static_cast<std::int64_t>(count)});
}

void PipelineMail::tell(std::size_t index, std::span<const TokenId> tokens,
                        std::span<const float> logprobs) {
    Group& group = groups_[index];
    group.requests.clear();  // waits for what was said before
    group.drawn.resize(tokens.size());
    for (std::size_t i = 0; i < tokens.size(); ++i) group.drawn[i] = {tokens[i], logprobs[i]};
    for (int to = 0; to < part_.last_rank(); ++to) {
        group.requests.push_back(
            weights_.pipeline().start_send("tokens", group.drawn, to, model::kTokenChannel));
    }
    if (!part_.looks_up_for_first()) return;
    const kernels::Matrix rows = rows_of(index, tokens.size());
    model::embed(compute_, weights_, tokens, rows);
    group.requests.push_back(sums::start_send(compute_.tools(), weights_.pipeline(),
                                              "activations:lookup", rows, 0,
                                              model::kLookupChannel));
}

void PipelineMail::hear(std::size_t index, std::span<TokenId> tokens, std::span<float> logprobs) {
    Group& group = groups_[index];
    group.drawn.resize(tokens.size());
    weights_.pipeline()
        .start_receive("tokens", group.drawn, part_.last_rank(), model::kTokenChannel)
        .wait();
    for (std::size_t i = 0; i < tokens.size(); ++i) {
        tokens[i] = group.drawn[i].token;
        logprobs[i] = group.drawn[i].logprob;
    }
    if (!part_.looks_up_elsewhere()) return;
    sums::receive(compute_.tools(), weights_.pipeline(), "activations:lookup",
                  rows_of(index, tokens.size()), part_.last_rank(), model::kLookupChannel);
}

}  // namespace rankwise::rollout
