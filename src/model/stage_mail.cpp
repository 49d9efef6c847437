#include "src/model/stage_mail.hpp"

#include <algorithm>

#include "src/model/decoder.hpp"

namespace rankwise::model {
namespace {

/// Elements of the largest stream of some micro-batches.
std::int64_t largest_stream(const Weights& weights, std::span<const Microbatch* const> batches) {
    std::int64_t rows = 0;
    for (const Microbatch* batch : batches) {
        if (batch != nullptr) rows = std::max(rows, TokenSplit(weights, *batch).mine().size());
    }
    return rows * weights.config().hidden;
}

std::vector<const Microbatch*> addresses_of(std::span<const Microbatch> batches) {
    std::vector<const Microbatch*> addresses;
    for (const Microbatch& batch : batches)
        addresses.push_back(batch.rows() == 0 ? nullptr : &batch);
    return addresses;
}

}  // namespace

EmbeddingLookups::EmbeddingLookups(Compute& compute, const Weights& weights,
                                   std::span<const Microbatch* const> batches)
    : compute_(compute), weights_(weights), batches_(batches.begin(), batches.end()) {
    const PipelinePart& part = weights.pipeline_part();
    if (!part.looks_up_for_first()) return;
    weights.gather_embedding(compute);
    // As many ahead as the first rank has begun when the first of them arrives here.
    const auto ahead = static_cast<std::size_t>(part.place.degree);
    outbox_.emplace(compute.tools(), weights.pipeline(), 0, kLookupChannel, ahead,
                    largest_stream(weights, batches_), weights.config().dtype);
    for (std::size_t m = 0; m < std::min(ahead, batches_.size()); ++m) send(sent_);
}

void EmbeddingLookups::before(std::int64_t micro_batch) {
    if (!outbox_) return;
    const std::int64_t wanted = std::min<std::int64_t>(
        std::ssize(batches_), micro_batch + weights_.pipeline_part().place.degree + 1);
    while (sent_ < wanted) send(sent_);
}

void EmbeddingLookups::send(std::int64_t micro_batch) {
    ++sent_;
    const Microbatch* batch = batches_[static_cast<std::size_t>(micro_batch)];
    if (batch == nullptr) return;
    const TokenSplit tokens(weights_, *batch);
    const kernels::Matrix rows = outbox_->room(tokens.mine().size(), weights_.config().hidden);
    embed(compute_, weights_, *batch, tokens, rows);
    outbox_->send("activations:lookup");
}

void receive_stream(Compute& compute, const Weights& weights, const LayerStage& stage,
                    kernels::Matrix x) {
    const PipelinePart& part = weights.pipeline_part();
    if (stage.first) {
        sums::receive(compute.tools(), weights.pipeline(), "activations:lookup", x,
                      part.last_rank(), kLookupChannel);
    } else {
        sums::receive(compute.tools(), weights.pipeline(), "activations:stage", x, part.previous(),
                      kStreamChannel);
    }
}

StageMail::StageMail(Compute& compute, const Weights& weights, std::span<const Microbatch> batches)
    : scope_(compute.arena), compute_(compute), weights_(weights) {
    const PipelinePlace& place = weights.pipeline_part().place;
    steps_ = parallel::forward_steps(place.degree, place.rank, std::ssize(batches),
                                     place.virtual_stages);
    if (!weights.pipeline_part().split()) return;
    const std::vector<const Microbatch*> addresses = addresses_of(batches);
    // A group of P micro-batches leaves a virtual stage before the next one begins with the first.
    const auto depth = static_cast<std::size_t>(place.virtual_stages > 1 ? place.degree : 2);
    outbox_.emplace(compute.tools(), weights.pipeline(), weights.pipeline_part().next(),
                    kStreamChannel, depth, largest_stream(weights, addresses),
                    weights.config().dtype);
    lookups_.emplace(compute, weights, addresses);
}

kernels::Matrix StageMail::room(const TokenSplit& tokens) {
    return outbox_->room(tokens.mine().size(), weights_.config().hidden);
}

void StageMail::pass_by(const parallel::PipelineStep& step) {
    if (lookups_ && step.virtual_stage == 0) lookups_->before(step.micro_batch);
}

void StageMail::receive(const parallel::PipelineStep& step, const Microbatch& batch,
                        const TokenSplit& tokens, kernels::Matrix x) {
    const LayerStage& stage =
        weights_.pipeline_part().stages[static_cast<std::size_t>(step.virtual_stage)];
    if (lookups_ && step.virtual_stage == 0) lookups_->before(step.micro_batch);
    if (stage.first && weights_.pipeline_part().has_embedding) {
        weights_.gather_embedding(compute_);
        embed(compute_, weights_, batch, tokens, x);
    } else {
        receive_stream(compute_, weights_, stage, x);
    }
}

}  // namespace rankwise::model
