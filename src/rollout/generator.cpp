#include "src/rollout/generator.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "src/base/philox.hpp"
#include "src/model/head.hpp"

namespace rankwise::rollout {
namespace {

using kernels::ConstMatrix;
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

/// What a rank has for the next step of ranks that go together.
enum Turn : std::int64_t { kDone, kWaiting, kPass };

/// Weights that a generation holds whole while this lives, in scratch memory.
class Held {
  public:
    Held(model::Compute& compute, const model::Weights& weights, bool whole)
        : scope_(compute.arena), weights_(weights) {
        if (whole) {
            weights.hold_all(compute);
        } else {
            weights.gather_head(compute, model::Copies::forward);  // and packed from now on
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
      in_step_(options.stream_weights && weights.sharded()) {
    ensure(options.slots >= 1, "a generator with {} slots", options.slots);
    ensure(options.prefill_tokens >= 1, "a generator with pieces of {} rows",
           options.prefill_tokens);
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
    const std::int64_t pages = options_.slots * (pages_for(longest) + pages_for(longest_prompt));
    if (!pool_ || pool_->capacity() < pages) {
        pool_.reset();  // before the new one is allocated
        pool_ = std::make_unique<KvPool>(compute_.device, config, weights_.part().kv_heads.size(),
                                         pages);
    }
}

std::vector<Trajectory> Generator::run(std::span<const Request> requests,
                                       const SamplingOptions& sampling, WorkSource& work,
                                       std::int64_t policy_version, const Callbacks& callbacks) {
    prepare_pool(requests, sampling);
    const Held held(compute_, weights_, !in_step_);
    std::vector<Trajectory> done;
    const auto drop_finished = [&] {
        for (Slot& slot : active_) {
            if (slot.trajectory.finish_reason == FinishReason::unfinished) continue;
            finish(slot);
            if (callbacks.finished) callbacks.finished(slot.trajectory);
            done.push_back(std::move(slot.trajectory));
            slot.pages.clear();
        }
        std::erase_if(active_, [](const Slot& slot) { return slot.pages.empty(); });
    };
    while (true) {
        if (callbacks.stop && callbacks.stop()) break;
        const std::int64_t free = options_.slots - static_cast<std::int64_t>(active_.size());
        const std::vector<WorkUnit> units = work.poll(free, active_.empty() && !in_step_);
        admit(requests, units, sampling, policy_version);
        if (active_.empty()) {
            const bool more = !work.exhausted();
            if (!(in_step_ ? follow_others(more) : more)) break;
            continue;
        }
        decode(sampling, callbacks);
        drop_finished();
    }
    for (Slot& slot : active_) finish(slot);  // after a stop: give their pages back
    active_.clear();
    for (auto& [request, prompt] : prompts_) {
        for (const PageId page : prompt.pages) pool_->release(page);
    }
    prompts_.clear();
    std::sort(done.begin(), done.end(), [](const Trajectory& a, const Trajectory& b) {
        return std::pair(a.group, a.sample) < std::pair(b.group, b.sample);
    });
    return done;
}

void Generator::admit(std::span<const Request> requests, std::span<const WorkUnit> units,
                      const SamplingOptions& sampling, std::int64_t policy_version) {
    if (units.empty()) return;
    // Prompts that nobody uses make room for those that come.
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
    prefill(requests, fresh);

    std::vector<PageId> from;
    std::vector<PageId> to;
    for (const WorkUnit& unit : units) {
        const Request& request = requests[static_cast<std::size_t>(unit.request)];
        Prompt& prompt = prompts_.at(unit.request);
        ++prompt.users;
        Slot& slot = active_.emplace_back();
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
    for (std::int64_t layer = 0; layer < weights_.config().layers; ++layer) {
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

/// Computes the prompts of `fresh` requests, all but their last tokens: those are the first steps
/// of the samples.
void Generator::prefill(std::span<const Request> requests, std::span<const std::int64_t> fresh) {
    std::vector<TokenId> ids;
    std::vector<std::int32_t> positions;
    std::vector<std::int64_t> slots;
    std::vector<kernels::PagedRun> runs;
    std::vector<PageId> page_table;
    const auto flush = [&] {
        if (ids.empty()) return;
        const kernels::Arena::Scope scope(compute_.arena);
        const Matrix x =
            compute_.matrix(static_cast<std::int64_t>(ids.size()), weights_.config().hidden);
        pass(ids, positions, slots, runs, page_table, x);
        counts_.prefill_rows += static_cast<std::int64_t>(ids.size());
        ids.clear();
        positions.clear();
        slots.clear();
        runs.clear();
        page_table.clear();
    };
    for (const std::int64_t index : fresh) {
        const Request& request = requests[static_cast<std::size_t>(index)];
        Prompt& prompt = prompts_[index];
        const std::int64_t computed = size_of_prompt(request) - 1;
        for (std::int64_t page = 0; page < pages_for(computed); ++page)
            prompt.pages.push_back(pool_->take());
        for (std::int64_t begin = 0; begin < computed;) {
            const std::int64_t room =
                options_.prefill_tokens - static_cast<std::int64_t>(ids.size());
            if (room <= 0) {
                flush();
                continue;
            }
            const std::int64_t rows = std::min(room, computed - begin);
            runs.push_back({.row_begin = static_cast<std::int64_t>(ids.size()),
                            .rows = rows,
                            .position = begin,
                            .page_begin = static_cast<std::int64_t>(page_table.size())});
            page_table.insert(page_table.end(), prompt.pages.begin(), prompt.pages.end());
            for (std::int64_t position = begin; position < begin + rows; ++position) {
                ids.push_back(request.prompt[static_cast<std::size_t>(position)]);
                positions.push_back(narrow<std::int32_t>(position));
                slots.push_back(slot_of(prompt.pages, position));
            }
            begin += rows;
        }
    }
    flush();
}

bool Generator::follow_others(bool more) {
    const std::int64_t mine = more ? kWaiting : kDone;
    const std::int64_t turn = weights_.shards().all_reduce_max("generation:step", mine);
    if (turn == kPass) {
        weights_.gather_embedding(compute_);
        for (std::int64_t layer = 0; layer < weights_.config().layers; ++layer)
            model::gather_forward(compute_, weights_, layer);
    }
    return turn != kDone;
}

void Generator::pass(std::span<const TokenId> ids, std::span<const std::int32_t> positions,
                     std::span<const std::int64_t> slots, std::span<const kernels::PagedRun> runs,
                     std::span<const PageId> page_table, Matrix x) {
    const model::ModelConfig& config = weights_.config();
    if (in_step_) {
        (void)weights_.shards().all_reduce_max("generation:step", std::int64_t{kPass});
        weights_.gather_embedding(compute_);
    }
    model::embed(compute_, weights_, ids, x);
    const model::Part& part = weights_.part();
    const Range q{0, part.q_size()};
    const Range k{q.end, q.end + part.kv_size()};
    const Range v{k.end, k.end + part.kv_size()};
    for (std::int64_t layer = 0; layer < config.layers; ++layer) {
        const kernels::KvPages pages = pool_->layer(layer);
        const model::AttentionPass attention = [&](ConstMatrix qkv, Matrix out) {
            compute_.device.kv_write(
                {.k = qkv.col_range(k), .v = qkv.col_range(v), .slots = slots, .pages = pages},
                compute_.stream);
            compute_.device.paged_attention({.q = qkv.col_range(q),
                                             .heads = part.heads.size(),
                                             .pages = pages,
                                             .runs = runs,
                                             .page_table = page_table,
                                             .scale = model::attention_scale(config),
                                             .out = out},
                                            compute_.stream);
        };
        model::gather_forward(compute_, weights_, layer);
        model::layer_forward(compute_, weights_, layer, positions, attention, x);
    }
}

void Generator::decode(const SamplingOptions& sampling, const Callbacks& callbacks) {
    const kernels::Arena::Scope scope(compute_.arena);
    std::vector<TokenId> ids;
    std::vector<std::int32_t> positions;
    std::vector<std::int64_t> slots;
    std::vector<kernels::PagedRun> runs;
    std::vector<PageId> page_table;
    for (Slot& slot : active_) {
        const auto position = static_cast<std::int64_t>(slot.trajectory.tokens.size()) - 1;
        if (position / kKeyBlock >= static_cast<std::int64_t>(slot.pages.size())) {
            slot.pages.push_back(pool_->take());
        }
        runs.push_back({.row_begin = static_cast<std::int64_t>(ids.size()),
                        .rows = 1,
                        .position = position,
                        .page_begin = static_cast<std::int64_t>(page_table.size())});
        ids.push_back(slot.trajectory.tokens.back());
        positions.push_back(narrow<std::int32_t>(position));
        slots.push_back(slot_of(slot.pages, position));
        page_table.insert(page_table.end(), slot.pages.begin(), slot.pages.end());
    }
    const Matrix x =
        compute_.matrix(static_cast<std::int64_t>(ids.size()), weights_.config().hidden);
    pass(ids, positions, slots, runs, page_table, x);
    std::vector<TokenId> tokens;
    std::vector<float> logprobs;
    draw(x, sampling, tokens, logprobs);
    ++counts_.decode_steps;
    counts_.decode_rows += static_cast<std::int64_t>(tokens.size());
    for (std::size_t i = 0; i < active_.size(); ++i) {
        Slot& slot = active_[i];
        if (!std::isfinite(logprobs[i])) {
            throw BadNumbers(fmt::format(
                "the log-probability of token {} of prompt {}, sample {} is not finite: a weight "
                "or an activation "
                "of the model is not; the last checkpoint is from before it",
                slot.trajectory.tokens.size(), slot.trajectory.prompt_id, slot.trajectory.sample));
        }
        slot.trajectory.tokens.push_back(tokens[i]);
        slot.trajectory.logprobs.push_back(logprobs[i]);
        if (callbacks.token) callbacks.token(slot.unit, tokens[i]);
        slot.trajectory.finish_reason = finish_reason(slot, sampling);
    }
}

void Generator::draw(Matrix x, const SamplingOptions& sampling, std::vector<TokenId>& tokens,
                     std::vector<float>& logprobs) {
    const model::ModelConfig& config = weights_.config();
    kernels::Device& device = compute_.device;
    const std::int64_t rows = x.rows;
    std::vector<kernels::SampleRow> sample_rows;
    for (const Slot& slot : active_) {
        sample_rows.push_back(
            {.key = slot.key,
             .position = static_cast<std::uint32_t>(slot.trajectory.tokens.size()),
             .temperature = sampling.temperature,
             .top_k = sampling.top_k,
             .top_p = sampling.top_p,
             .min_p = sampling.min_p});
    }
    device.rms_norm({.x = x,
                     .weight = weights_.final_norm(),
                     .eps = static_cast<float>(config.rms_norm_eps),
                     .y = x},
                    compute_.stream);
    tokens.resize(static_cast<std::size_t>(rows));
    const model::HeadOptions head{.ids = ids_,
                                  .temperature = static_cast<float>(sampling.temperature),
                                  .block_bytes = options_.logits_bytes,
                                  .break_order = options_.break_order && rows > 1};
    const model::ChooseTargets draw_some = [&](Range some, ConstMatrix logits) {
        const auto at = static_cast<std::size_t>(some.begin);
        const auto size = static_cast<std::size_t>(some.size());
        const std::span<TokenId> drawn = std::span(tokens).subspan(at, size);
        choose(logits, std::span(sample_rows).subspan(at, size), drawn);
        return std::span<const TokenId>(drawn);
    };
    const DeviceSpan<float> logprob = compute_.arena.take<float>(rows);
    model::head_logprobs(compute_, weights_, head, x, draw_some,
                         {.logprob = logprob, .sum = compute_.arena.take<float>(rows)});
    logprobs = device.kernels::Memory::download<float>(logprob, compute_.stream);
}

void Generator::choose(ConstMatrix logits, std::span<const kernels::SampleRow> rows,
                       std::span<TokenId> tokens) {
    kernels::Device& device = compute_.device;
    if (!weights_.split()) {
        device.sample({.logits = logits, .ids = ids_, .rows = rows, .tokens = tokens},
                      compute_.stream);
        return;
    }
    const kernels::SampleRow& options = rows.front();  // the same for every row of a run
    const bool filtered = options.temperature != 0.0 &&
                          (options.top_k > 0 || options.top_p < 1.0 || options.min_p > 0.0);
    if (filtered) {
        const kernels::Arena::Scope scope(compute_.arena);
        device.sample({.logits = model::gather_logits(compute_, weights_, logits),
                       .ids = ids_,
                       .rows = rows,
                       .tokens = tokens},
                      compute_.stream);
        return;
    }
    // The largest of all ranks' largest: of equal ones the lower id, which the lower rank holds.
    struct Best {
        float score = -std::numeric_limits<float>::infinity();
        TokenId token = 0;
    };
    const Range own = weights_.part().vocabulary;
    std::vector<Best> mine(rows.size());
    if (!own.empty() && own.begin < ids_) {
        std::vector<float> scores(rows.size());
        device.sample({.logits = logits,
                       .ids = ids_,
                       .first_column = own.begin,
                       .rows = rows,
                       .tokens = tokens,
                       .scores = scores},
                      compute_.stream);
        for (std::size_t i = 0; i < rows.size(); ++i) mine[i] = {scores[i], tokens[i]};
    }
    std::vector<Best> all(rows.size() * static_cast<std::size_t>(weights_.part().place.degree));
    weights_.tensor().all_gather("tokens", mine, all);
    for (std::size_t i = 0; i < rows.size(); ++i) {
        Best best;
        for (std::size_t at = i; at < all.size(); at += rows.size()) {
            if (all[at].score > best.score) best = all[at];
        }
        tokens[i] = best.token;
    }
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
