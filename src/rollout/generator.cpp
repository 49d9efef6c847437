#include "src/rollout/generator.hpp"

#include <algorithm>
#include <cmath>

#include "parallel/pipeline_schedule.hpp"
#include "src/base/philox.hpp"

namespace rankwise::rollout {
namespace {

using kernels::kKeyBlock;
using kernels::Matrix;

std::int64_t size_of_prompt(const Request& request) {
    return static_cast<std::int64_t>(request.prompt.size());
}

std::int64_t length_limit(const Request& request, const SamplingOptions& sampling,
                          const model::ModelConfig& config) {
    return std::min(size_of_prompt(request) + sampling.max_new_tokens, config.max_position);
}

std::int64_t slot_of(std::span<const PageId> pages, std::int64_t position) {
    return std::int64_t{pages[static_cast<std::size_t>(position / kKeyBlock)]} * kKeyBlock +
           position % kKeyBlock;
}

/// Weights that a generation holds whole while this lives, in scratch memory.
class Held {
  public:
    Held(model::Compute& compute, const model::Weights& weights, bool whole)
        : scope_(compute.arena), weights_(weights) {
        if (whole) {
            weights.hold_all(compute);
        } else {
            weights.gather_head(compute, model::Copies::forward);  // packed from now on
        }
    }
    Held(const Held&) = delete;
    Held& operator=(const Held&) = delete;
    ~Held() { weights_.drop_all(); }

  private:
    kernels::Arena::Scope scope_;
    const model::Weights& weights_;
};

}  // namespace

Generator::Generator(model::Compute& compute, const model::Weights& weights,
                     const GeneratorOptions& options, const text::Tokenizer* tokenizer,
                     std::int64_t ids)
    : compute_(compute),
      weights_(weights),
      options_(options),
      tokenizer_(tokenizer),
      ids_(ids),
      streams_(options.stream_weights && weights.sharded()),
      in_step_(streams_ || weights.expert_data_ranks() > 1),
      layers_(compute, weights, !streams_) {
    ensure(options.slots >= 1, "a generator with {} slots", options.slots);
    ensure(options.data_ranks >= 1, "a generator for {} data ranks", options.data_ranks);
    ensure(options.prefill_tokens >= 1, "a generator with pieces of {} rows",
           options.prefill_tokens);
}

/// How many answers there may be at a time.
std::int64_t Generator::slots_for(std::span<const Request> requests) const {
    std::int64_t answers = 0;
    for (const Request& request : requests) answers += request.samples;
    return std::clamp(ceil_div(answers, options_.data_ranks), std::int64_t{1}, options_.slots);
}

void Generator::prepare_pool(std::span<const Request> requests, const SamplingOptions& sampling) {
    const model::ModelConfig& config = weights_.config();
    std::int64_t longest = 0;
    std::int64_t longest_prompt = 0;
    for (const Request& request : requests) {
        require(!request.prompt.empty(), "prompt {} is empty: there is nothing to go on from",
                request.prompt_id);
        require(size_of_prompt(request) < config.max_position,
                "prompt {} has {} tokens, which leaves no room in the model's context of {}: "
                "shorten it, or "
                "drop it from the data",
                request.prompt_id, request.prompt.size(), config.max_position);
        longest = std::max(longest, length_limit(request, sampling, config));
        longest_prompt = std::max(longest_prompt, size_of_prompt(request));
    }
    // Every slot may grow to its longest, and its prompt's own last page is kept for other samples.
    const std::int64_t pages =
        slots_for(requests) * (pages_for(longest) + pages_for(longest_prompt));
    if (!pool_ || pool_->capacity() < pages) {
        pool_.reset();  // before the new one is allocated
        pool_ = std::make_unique<KvPool>(compute_.device, weights_.pipeline_part().layer_count(),
                                         model::attention_shape(weights_), pages);
    }
}

std::int64_t Generator::groups_for(std::span<const Request> requests) const {
    return std::min<std::int64_t>(weights_.pipeline_part().place.degree, slots_for(requests));
}

/// Each group has its share of the slots.
void Generator::prepare_groups(std::span<const Request> requests) {
    const model::PipelinePart& part = weights_.pipeline_part();
    const std::int64_t slots = slots_for(requests);
    const std::int64_t count = groups_for(requests);
    groups_.clear();
    groups_.resize(static_cast<std::size_t>(count));
    for (std::int64_t g = 0; g < count; ++g)
        groups_[static_cast<std::size_t>(g)].capacity = split(slots, count, g).size();
    if (!part.split()) return;
    std::int64_t prompt_rows = 0;
    for (const Request& request : requests) prompt_rows += size_of_prompt(request);
    mail_.emplace(compute_, weights_, requests, groups_.size(), groups_.back().capacity,
                  std::min(options_.prefill_tokens, prompt_rows));
}

bool Generator::idle() const {
    return std::all_of(groups_.begin(), groups_.end(),
                       [](const Group& group) { return group.active.empty(); });
}

std::vector<Trajectory> Generator::run(std::span<const Request> requests,
                                       const SamplingOptions& sampling, WorkSource& work,
                                       std::int64_t policy_version, const Callbacks& callbacks) {
    prepare_pool(requests, sampling);
    const Held held(compute_, weights_, !streams_);
    prepare_groups(requests);  // may look up prompts' rows of the embedding
    std::vector<Trajectory> done;
    const auto drop_finished = [&](Group& group) {
        for (Slot& slot : group.active) {
            if (slot.trajectory.finish_reason == FinishReason::unfinished) continue;
            finish(slot);
            if (callbacks.finished) callbacks.finished(slot.trajectory);
            done.push_back(std::move(slot.trajectory));
            slot.pages.clear();
        }
        std::erase_if(group.active, [](const Slot& slot) { return slot.pages.empty(); });
    };
    const std::span<const model::LayerStage> stages = weights_.pipeline_part().stages;
    bool over = false;
    while (!over) {
        for (std::size_t g = 0; g < groups_.size(); ++g) {
            Group& group = groups_[g];
            collect(g, sampling, callbacks);
            drop_finished(group);
            if (over) continue;  // others are under way: what they send must be received
            const bool stops = callbacks.stop && callbacks.stop();
            const std::int64_t free = group.capacity - std::ssize(group.active);
            std::vector<WorkUnit> units;
            if (!stops) units = work.poll(free, idle() && !in_step_);
            const std::vector<Rows> prompts = prompt_passes(requests, units);
            const bool decodes = !units.empty() || !group.active.empty();
            const Turn turn = agree_on({.prompt_passes = std::ssize(prompts),
                                        .decodes = decodes,
                                        .more = decodes || !idle() || !work.exhausted(),
                                        .stops = stops});
            over = turn.stops || !turn.more;
            if (over) continue;
            prefill(prompts, turn.prompt_passes);
            admit(group, requests, units, sampling, policy_version);
            group.follows = turn.decodes && !decodes;
            if (decodes) prepare_rows(group);
            decode(g, stages.front(), sampling);
        }
        for (const model::LayerStage& stage : stages.subspan(1)) {
            for (std::size_t g = 0; g < groups_.size(); ++g) decode(g, stage, sampling);
        }
    }
    for (std::size_t g = 0; g < groups_.size(); ++g) {  // after a stop: they give their pages back
        collect(g, sampling, {});
        for (Slot& slot : groups_[g].active) finish(slot);
    }
    groups_.clear();
    mail_.reset();
    for (auto& [request, prompt] : prompts_) {
        for (const PageId page : prompt.pages) pool_->release(page);
    }
    prompts_.clear();
    std::sort(done.begin(), done.end(), [](const Trajectory& a, const Trajectory& b) {
        return std::pair(a.group, a.sample) < std::pair(b.group, b.sample);
    });
    return done;
}

/// What is to be computed of the prompts of `units`, all but their last tokens: those are the first
/// steps of the samples.
std::vector<Rows> Generator::prompt_passes(std::span<const Request> requests,
                                           std::span<const WorkUnit> units) {
    if (units.empty()) return {};
    std::vector<std::int64_t> fresh;
    for (const WorkUnit& unit : units) {
        if (prompts_.contains(unit.request)) {
            ++counts_.prompts_shared;
        } else if (std::find(fresh.begin(), fresh.end(), unit.request) == fresh.end()) {
            fresh.push_back(unit.request);
        } else {
            ++counts_.prompts_shared;
        }
    }
    // Prompts that nobody uses make room for those that come.
    for (auto entry = prompts_.begin(); entry != prompts_.end();) {
        const bool wanted = std::any_of(units.begin(), units.end(), [&](const WorkUnit& unit) {
            return unit.request == entry->first;
        });
        if (entry->second.users > 0 || wanted) {
            ++entry;
            continue;
        }
        for (const PageId page : entry->second.pages) pool_->release(page);
        entry = prompts_.erase(entry);
    }
    std::vector<Rows> passes;
    for (const std::int64_t index : fresh) {
        const Request& request = requests[static_cast<std::size_t>(index)];
        Prompt& prompt = prompts_[index];
        const std::int64_t computed = size_of_prompt(request) - 1;
        for (std::int64_t page = 0; page < pages_for(computed); ++page)
            prompt.pages.push_back(pool_->take());
        for (std::int64_t begin = 0; begin < computed;) {
            if (passes.empty() || std::ssize(passes.back().ids) == options_.prefill_tokens)
                passes.emplace_back();
            Rows& pass = passes.back();
            const std::int64_t room = options_.prefill_tokens - std::ssize(pass.ids);
            const std::int64_t rows = std::min(room, computed - begin);
            pass.runs.push_back({.row_begin = std::ssize(pass.ids),
                                 .rows = rows,
                                 .position = begin,
                                 .page_begin = std::ssize(pass.page_table)});
            pass.page_table.insert(pass.page_table.end(), prompt.pages.begin(), prompt.pages.end());
            for (std::int64_t position = begin; position < begin + rows; ++position) {
                pass.ids.push_back(request.prompt[static_cast<std::size_t>(position)]);
                pass.positions.push_back(narrow<std::int32_t>(position));
                pass.slots.push_back(slot_of(prompt.pages, position));
            }
            begin += rows;
        }
    }
    return passes;
}

void Generator::admit(Group& group, std::span<const Request> requests,
                      std::span<const WorkUnit> units, const SamplingOptions& sampling,
                      std::int64_t policy_version) {
    std::vector<PageId> from;
    std::vector<PageId> to;
    for (const WorkUnit& unit : units) {
        const Request& request = requests[static_cast<std::size_t>(unit.request)];
        Prompt& prompt = prompts_.at(unit.request);
        ++prompt.users;
        Slot& slot = group.active.emplace_back();
        slot.unit = unit;
        slot.limit = length_limit(request, sampling, weights_.config());
        slot.key = RandomStream(sampling.seed, Purpose::sampling, request.prompt_id,
                                static_cast<std::uint32_t>(unit.sample), request.step)
                       .key();
        const std::int64_t prompt_size = size_of_prompt(request);
        slot.trajectory = {.prompt_id = request.prompt_id,
                           .group = request.group,
                           .sample = unit.sample,
                           .tokens = request.prompt,
                           .logprobs = std::vector<float>(request.prompt.size(), 0.0F),
                           .segments = {{.speaker = Speaker::user, .begin = 0, .end = prompt_size},
                                        {.speaker = Speaker::assistant,
                                         .begin = prompt_size,
                                         .end = prompt_size,
                                         .trainable = true,
                                         .policy_version = policy_version}}};
        if (tokenizer_ != nullptr && !sampling.stop_strings.empty()) {
            slot.text = std::make_unique<text::StreamDecoder>(*tokenizer_);
        }
        fork(request, prompt, slot, from, to);
    }
    if (from.empty()) return;
    for (std::int64_t layer = 0; layer < weights_.pipeline_part().layer_count(); ++layer) {
        compute_.device.kv_copy({.from = from, .to = to, .pages = pool_->layer(layer)},
                                compute_.stream);
    }
}

/// The pages of a new sample: whole pages of the prompt are shared; the one in which its computed
/// part ends is copied, and the sample writes on in its copy.
void Generator::fork(const Request& request, const Prompt& prompt, Slot& slot,
                     std::vector<PageId>& from, std::vector<PageId>& to) {
    const std::int64_t computed = size_of_prompt(request) - 1;
    const std::int64_t whole = computed / kKeyBlock;
    for (std::int64_t i = 0; i < whole; ++i) {
        const PageId page = prompt.pages[static_cast<std::size_t>(i)];
        pool_->retain(page);
        slot.pages.push_back(page);
    }
    slot.pages.push_back(pool_->take());
    if (computed % kKeyBlock != 0) {
        from.push_back(prompt.pages[static_cast<std::size_t>(whole)]);
        to.push_back(slot.pages.back());
    }
}

/// Passes of prompts through this rank's stages: its own, and of data ranks that have more the
/// rest.
void Generator::prefill(std::span<const Rows> passes, std::int64_t count) {
    const model::PipelinePart& part = weights_.pipeline_part();
    constexpr auto kPrompts = PipelineMail::Kind::prompts;
    for (const parallel::PipelineStep& step : parallel::forward_steps(
             part.place.degree, part.place.rank, count, part.place.virtual_stages)) {
        const kernels::Arena::Scope scope(compute_.arena);
        const model::LayerStage& stage = part.stages[static_cast<std::size_t>(step.virtual_stage)];
        if (step.micro_batch >= std::ssize(passes)) {
            model::follow_forward(compute_, weights_, stage);
            continue;
        }
        const Rows& pass = passes[static_cast<std::size_t>(step.micro_batch)];
        const std::int64_t rows = std::ssize(pass.ids);
        const Matrix x =
            stage.last ? compute_.matrix(rows, weights_.config().hidden, weights_.config().dtype)
                       : mail_->room(kPrompts, rows);
        if (stage.first && part.has_embedding) weights_.gather_embedding(compute_);
        if (!mail_) {
            model::embed(compute_, weights_, pass.ids, x);
        } else if (stage.first) {
            mail_->embed_prompts(pass.ids, x);
        } else {
            mail_->receive(kPrompts, x);
        }
        layers_.forward(*pool_, stage, pass, x);
        if (!stage.last) mail_->send(kPrompts);
        if (step.virtual_stage == 0) counts_.prefill_rows += rows;
    }
}

Generator::Turn Generator::agree_on(const Turn& mine) const {
    if (!in_step_) return mine;
    parallel::Communicator& together =
        weights_.sharded() ? weights_.shards() : *weights_.experts().axis;
    std::array<std::int64_t, 4> most{mine.prompt_passes, mine.decodes ? 1 : 0, mine.more ? 1 : 0,
                                     mine.stops ? 1 : 0};
    together.all_reduce_max("generation:step", most);
    return {.prompt_passes = most[0],
            .decodes = most[1] != 0,
            .more = most[2] != 0,
            .stops = most[3] != 0};
}

/// A row for the newest token of each slot.
void Generator::prepare_rows(Group& group) {
    Rows& rows = group.rows;  // in the memory of the step before
    rows.ids.clear();
    rows.positions.clear();
    rows.slots.clear();
    rows.runs.clear();
    rows.page_table.clear();
    for (Slot& slot : group.active) {
        const auto position = static_cast<std::int64_t>(slot.trajectory.tokens.size()) - 1;
        if (position / kKeyBlock >= static_cast<std::int64_t>(slot.pages.size())) {
            slot.pages.push_back(pool_->take());
        }
        rows.runs.push_back({.row_begin = std::ssize(rows.ids),
                             .rows = 1,
                             .position = position,
                             .page_begin = std::ssize(rows.page_table),
                             .shared = slot.trajectory.prompt_size() - 1});
        rows.ids.push_back(slot.trajectory.tokens.back());
        rows.positions.push_back(narrow<std::int32_t>(position));
        rows.slots.push_back(slot_of(slot.pages, position));
        rows.page_table.insert(rows.page_table.end(), slot.pages.begin(), slot.pages.end());
    }
    // Samples of a prompt one behind another: what they share of the cache is read once.
    const auto request_of = [&](const kernels::PagedRun& run) {
        return group.active[static_cast<std::size_t>(run.row_begin)].unit.request;
    };
    std::sort(rows.runs.begin(), rows.runs.end(),
              [&](const kernels::PagedRun& a, const kernels::PagedRun& b) {
                  return std::pair(request_of(a), a.row_begin) <
                         std::pair(request_of(b), b.row_begin);
              });
    for (std::size_t i = rows.runs.size(); i-- > 0;) {
        if (i == 0 || request_of(rows.runs[i]) != request_of(rows.runs[i - 1]))
            rows.runs[i].shared = 0;
    }
    group.under_way = true;
}

void Generator::decode(std::size_t index, const model::LayerStage& stage,
                       const SamplingOptions& sampling) {
    Group& group = groups_[index];
    const kernels::Arena::Scope scope(compute_.arena);
    if (group.follows) model::follow_forward(compute_, weights_, stage);
    if (!group.under_way) return;
    constexpr auto kTokens = PipelineMail::Kind::tokens;
    const std::int64_t rows = std::ssize(group.active);
    const Matrix x = stage.last
                         ? compute_.matrix(rows, weights_.config().hidden, weights_.config().dtype)
                         : mail_->room(kTokens, rows);
    if (stage.first && weights_.pipeline_part().has_embedding) weights_.gather_embedding(compute_);
    if (!mail_) {
        model::embed(compute_, weights_, group.rows.ids, x);
    } else if (stage.first) {
        std::vector<std::int64_t> drawn;  // samples that began after them stand behind
        for (const Slot& slot : group.active) {
            if (slot.drawn >= 0) drawn.push_back(slot.drawn);
        }
        mail_->embed_newest(index, group.rows.ids, drawn, x);
    } else {
        mail_->receive(kTokens, x);
    }
    layers_.forward(*pool_, stage, group.rows, x);
    if (!stage.last) {
        mail_->send(kTokens);
        return;
    }
    draw_next(x, sampling, group);
    if (mail_) mail_->tell(index, group.drawn.tokens, group.drawn.logprobs);
}

void Generator::collect(std::size_t index, const SamplingOptions& sampling,
                        const Callbacks& callbacks) {
    Group& group = groups_[index];
    group.follows = false;
    if (!group.under_way) return;
    group.under_way = false;
    if (!weights_.pipeline_part().has_head) {
        group.drawn.tokens.resize(group.active.size());
        group.drawn.logprobs.resize(group.active.size());
        mail_->hear(index, group.drawn.tokens, group.drawn.logprobs);
    }
    ++counts_.decode_steps;
    counts_.decode_rows += std::ssize(group.drawn.tokens);
    for (std::size_t i = 0; i < group.active.size(); ++i) {
        Slot& slot = group.active[i];
        const TokenId token = group.drawn.tokens[i];
        if (!std::isfinite(group.drawn.logprobs[i])) {
            throw BadNumbers(fmt::format(
                "the log-probability of token {} of prompt {}, sample {} is not finite: a weight "
                "or an activation "
                "of the model is not; the last checkpoint is from before it",
                slot.trajectory.tokens.size(), slot.trajectory.prompt_id, slot.trajectory.sample));
        }
        slot.trajectory.tokens.push_back(token);
        slot.trajectory.logprobs.push_back(group.drawn.logprobs[i]);
        slot.drawn = static_cast<std::int64_t>(i);
        if (callbacks.token) callbacks.token(slot.unit, token);
        slot.trajectory.finish_reason = finish_reason(slot, sampling);
    }
}

/// Tokens and log-probabilities of every slot's next token.
void Generator::draw_next(Matrix x, const SamplingOptions& sampling, Group& group) const {
    std::vector<kernels::SampleRow> rows;
    rows.reserve(group.active.size());
    for (const Slot& slot : group.active) {
        rows.push_back({.key = slot.key,
                        .position = static_cast<std::uint32_t>(slot.trajectory.tokens.size()),
                        .temperature = sampling.temperature,
                        .top_k = sampling.top_k,
                        .top_p = sampling.top_p,
                        .min_p = sampling.min_p});
    }
    draw(compute_, weights_,
         {.ids = ids_,
          .temperature = static_cast<float>(sampling.temperature),
          .block_bytes = options_.logits_bytes,
          .break_order = options_.break_order && rows.size() > 1},
         rows, x, group.drawn);
}

FinishReason Generator::finish_reason(Slot& slot, const SamplingOptions& sampling) {
    const Trajectory& trajectory = slot.trajectory;
    const TokenId last = trajectory.tokens.back();
    if (std::find(sampling.stop_ids.begin(), sampling.stop_ids.end(), last) !=
        sampling.stop_ids.end()) {
        return FinishReason::stop;
    }
    if (slot.text) {
        // Only what the new piece can complete needs to be looked at again.
        const std::string piece = slot.text->push(last);
        slot.answer += piece;
        for (const std::string& stop : sampling.stop_strings) {
            const std::size_t reach = std::min(slot.answer.size(), piece.size() + stop.size());
            if (slot.answer.find(stop, slot.answer.size() - reach) != std::string::npos) {
                return FinishReason::stop;
            }
        }
    }
    const auto size = static_cast<std::int64_t>(trajectory.tokens.size());
    if (size < slot.limit) return FinishReason::unfinished;
    return size - trajectory.prompt_size() >= sampling.max_new_tokens ? FinishReason::length
                                                                      : FinishReason::context;
}

/// Gives back what a sample holds and completes its trajectory.
void Generator::finish(Slot& slot) {
    for (const PageId page : slot.pages) pool_->release(page);
    --prompts_.at(slot.unit.request).users;
    Trajectory& trajectory = slot.trajectory;
    trajectory.segments.back().end = static_cast<std::int64_t>(trajectory.tokens.size());
    if (tokenizer_ != nullptr) trajectory.text = tokenizer_->decode(trajectory.answer(), true);
}

}  // namespace rankwise::rollout
