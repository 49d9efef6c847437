#include "src/stages/retrace.hpp"

#include <algorithm>
#include <bit>
#include <map>
#include <numeric>
#include <optional>

#include "src/model/decoder.hpp"
#include "src/rollout/generator.hpp"

namespace rankwise::stages {
namespace {

/// What a pass gave: of each operation (in the order of the pass) one digest a row.
class Trace {
  public:
    /// Watches `compute` while it lives.
    explicit Trace(model::Compute& compute) : compute_(compute) {
        compute.probe = [this](const model::Probed& value) {
            add(value.layer, value.op, value.value);
        };
    }
    Trace(const Trace&) = delete;
    Trace& operator=(const Trace&) = delete;
    ~Trace() { stop(); }
    void stop() { compute_.probe = nullptr; }

    struct Place {
        std::int64_t layer = 0;
        std::string op;
    };
    [[nodiscard]] const std::vector<Place>& places() const { return places_; }
    /// Digests of an operation's rows, in the order in which they were computed.
    [[nodiscard]] const std::vector<UInt128>& rows(std::size_t place) const { return rows_[place]; }

  private:
    void add(std::int64_t layer, std::string_view op, kernels::ConstMatrix x) {
        const auto same = std::find_if(places_.begin(), places_.end(), [&](const Place& place) {
            return place.layer == layer && place.op == op;
        });
        const auto at = static_cast<std::size_t>(same - places_.begin());
        if (same == places_.end()) {
            places_.push_back({layer, std::string(op)});
            rows_.emplace_back();
        }
        const auto row_bytes = x.cols * size_of(x.dtype);
        const std::vector<std::byte> values = compute_.bytes_of(x);
        for (std::int64_t row = 0; row < x.rows; ++row) {
            rows_[at].push_back(
                xxh3_128(values.data() + row * row_bytes, static_cast<std::uint64_t>(row_bytes)));
        }
    }

    model::Compute& compute_;
    std::vector<Place> places_;
    std::vector<std::vector<UInt128>> rows_;
};

/// The rows that predict the answer's tokens: [operation][token].
struct AnswerTrace {
    std::vector<Trace::Place> places;
    std::vector<std::vector<UInt128>> rows;
    std::vector<float> logprobs;
};

/// What the ranks of a pipeline saw of the same pass: of each its own layers.
AnswerTrace of_all_layers(const Environment& environment, const AnswerTrace& mine) {
    parallel::Communicator* const pipeline = environment.pipeline().axis;
    if (pipeline == nullptr) return mine;
    std::vector<std::int64_t> layers;
    std::string ops;
    std::vector<UInt128> rows;
    for (std::size_t place = 0; place < mine.places.size(); ++place) {
        layers.push_back(mine.places[place].layer);
        ops += mine.places[place].op + "\n";
        rows.insert(rows.end(), mine.rows[place].begin(), mine.rows[place].end());
    }
    const std::vector<std::int64_t> all_layers =
        pipeline->all_gather_v("retrace:layers", layers).values;
    const std::vector<char> all_ops = pipeline->all_gather_v("retrace:layers", ops).values;
    const std::vector<UInt128> all_rows = pipeline->all_gather_v("retrace:layers", rows).values;
    AnswerTrace whole;
    whole.logprobs = pipeline->all_gather_v("retrace:layers", mine.logprobs).values;
    if (all_layers.empty()) return whole;
    std::vector<std::size_t> order(all_layers.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return all_layers[a] < all_layers[b]; });
    std::vector<std::string> names(1);
    for (const char c : all_ops) {
        if (c == '\n') {
            names.emplace_back();
        } else {
            names.back() += c;
        }
    }
    const std::size_t tokens = all_rows.size() / all_layers.size();
    for (const std::size_t place : order) {
        whole.places.push_back({all_layers[place], names[place]});
        const auto first = all_rows.begin() + static_cast<std::ptrdiff_t>(place * tokens);
        whole.rows.emplace_back(first, first + static_cast<std::ptrdiff_t>(tokens));
    }
    return whole;
}

AnswerTrace trained(const Environment& environment, const model::Weights& weights,
                    const model::HeadOptions& head, const DisputedAnswer& answer) {
    model::Microbatch batch;
    model::append(batch, {.prompt = answer.request.prompt, .answers = {answer.tokens}});
    Trace trace(environment.compute);
    AnswerTrace out;
    out.logprobs = model::score(environment.compute, weights, head, batch).logprob;
    trace.stop();
    out.places = trace.places();
    for (std::size_t place = 0; place < out.places.size(); ++place) {
        std::vector<UInt128>& rows = out.rows.emplace_back();
        for (const model::HeadRow& row : batch.head)
            rows.push_back(trace.rows(place)[static_cast<std::size_t>(row.row)]);
    }
    return of_all_layers(environment, out);
}

/// One sample of the one request.
class OneSample final : public rollout::WorkSource {
  public:
    explicit OneSample(std::int32_t sample) : sample_(sample) {}
    std::vector<rollout::WorkUnit> poll(std::int64_t free_slots, bool /*idle*/) override {
        if (free_slots == 0 || given_) return {};
        given_ = true;
        return {{.request = 0, .sample = sample_}};
    }
    [[nodiscard]] bool exhausted() const override { return given_; }

  private:
    std::int32_t sample_;
    bool given_ = false;
};

AnswerTrace generated(const Environment& environment, const model::Weights& weights,
                      const model::HeadOptions& head, const rollout::SamplingOptions& sampling,
                      const DisputedAnswer& answer) {
    rollout::GeneratorOptions options = environment.generator_options();
    options.slots = 1;
    rollout::Generator generator(environment.compute, weights, options, &environment.task.tokenizer,
                                 head.ids);
    OneSample work(answer.sample);
    Trace trace(environment.compute);
    const std::vector<Trajectory> trajectories =
        generator.run(std::span(&answer.request, 1), sampling, work, 0, {});
    trace.stop();
    const Trajectory& again = trajectories.front();
    AnswerTrace out;
    out.places = trace.places();
    const std::int64_t size = again.answer_size();
    // Every rank knows them; where they are brought together one has them.
    if (weights.pipeline_part().has_head)
        out.logprobs.assign(again.logprobs.end() - size, again.logprobs.end());
    for (std::size_t place = 0; place < out.places.size(); ++place) {
        // Rows of the prompt came before.
        const std::vector<UInt128>& rows = trace.rows(place);
        out.rows.emplace_back(rows.end() - size, rows.end());
    }
    return of_all_layers(environment, out);
}

/// The first operation whose rows differ, at the first token for which any does; -1: none.
std::int64_t first_difference(const AnswerTrace& a, const AnswerTrace& b) {
    const std::size_t tokens = std::min(a.logprobs.size(), b.logprobs.size());
    for (std::size_t token = 0; token < tokens; ++token) {
        for (std::size_t place = 0; place < a.places.size(); ++place) {
            if (a.rows[place][token] != b.rows[place][token])
                return static_cast<std::int64_t>(place);
        }
    }
    return -1;
}

std::string name_of(const Trace::Place& place) {
    return fmt::format("layer {}, {}", place.layer, place.op);
}

/// Where tensor ranks found a difference: the lowest place of any (below zero: none), so that all
/// say the same, and who found it there.
struct Found {
    std::int64_t place = -1;
    std::vector<int> tensor_ranks;
    bool by_all = false;
};
Found first_of_group(const Environment& environment, std::int64_t place) {
    const std::vector<std::int64_t> mine{place};
    const std::vector<std::int64_t> all =
        environment.mesh.axis(parallel::Axis::tensor).all_gather_v("retrace:tensor", mine).values;
    Found found;
    for (const std::int64_t other : all) {
        if (other >= 0 && (found.place < 0 || other < found.place)) found.place = other;
    }
    for (std::size_t rank = 0; found.place >= 0 && rank < all.size(); ++rank) {
        if (all[rank] == found.place) found.tensor_ranks.push_back(static_cast<int>(rank));
    }
    found.by_all = found.tensor_ranks.size() == all.size();
    return found;
}

/// ", on tensor rank 1" where some of several found it.
std::string tensor_ranks_of(const Found& found) {
    if (found.by_all) return {};
    return fmt::format(", on tensor rank{} {}", found.tensor_ranks.size() > 1 ? "s" : "",
                       fmt::join(found.tensor_ranks, ", "));
}

/// Ranks whose passes differ from those of most: data rank → first operation.
std::map<int, Found> odd_ranks(const Environment& environment, const AnswerTrace& trace) {
    parallel::Communicator& data = environment.data();
    std::vector<UInt128> mine;
    for (const std::vector<UInt128>& rows : trace.rows)
        mine.push_back(xxh3_128(rows.data(), rows.size() * sizeof(UInt128)));
    const std::vector<UInt128> all = data.all_gather_v("retrace:ranks", mine).values;
    const std::size_t places = mine.size();
    const auto of_rank = [&](int rank) {
        return std::span(all).subspan(static_cast<std::size_t>(rank) * places, places);
    };
    const auto alike = [&](int a, int b) {
        return std::equal(of_rank(a).begin(), of_rank(a).end(), of_rank(b).begin());
    };
    int common = 0;
    int most = 0;
    for (int rank = 0; rank < data.size(); ++rank) {
        int count = 0;
        for (int other = 0; other < data.size(); ++other) count += alike(rank, other) ? 1 : 0;
        if (count > most) {
            most = count;
            common = rank;
        }
    }
    std::map<int, Found> odd;
    for (int rank = 0; rank < data.size(); ++rank) {
        const auto [here, there] =
            std::mismatch(of_rank(rank).begin(), of_rank(rank).end(), of_rank(common).begin());
        const Found found = first_of_group(
            environment, here == of_rank(rank).end() ? -1 : here - of_rank(rank).begin());
        if (found.place >= 0) odd[rank] = found;
    }
    return odd;
}

}  // namespace

std::string retrace(const Environment& environment, const model::Weights& weights,
                    const model::HeadOptions& head, const rollout::SamplingOptions& sampling,
                    DisputedAnswer answer) {
    parallel::Communicator& data = environment.data();
    std::vector<std::int64_t> size{std::ssize(answer.tokens)};
    data.broadcast("retrace:size", size, answer.computed_by);
    answer.tokens.resize(static_cast<std::size_t>(size.front()));
    data.broadcast("retrace:answer", answer.tokens, answer.computed_by);

    const AnswerTrace training = trained(environment, weights, head, answer);
    const std::map<int, Found> odd = odd_ranks(environment, training);
    const auto token = static_cast<std::size_t>(answer.token);
    // What each of the two ranks found: the first operation, and the value of the token.
    struct Finding {
        std::int64_t place = -1;
        float value = 0.0F;
    };
    std::vector<Finding> generation(1);
    const bool mine = data.rank() == answer.generated_by;
    if (mine || weights.shared_by_data()) {  // the others bring their part of the weights
        const AnswerTrace again = generated(environment, weights, head, sampling, answer);
        generation[0].place = first_of_group(environment, first_difference(again, training)).place;
        if (token < again.logprobs.size()) generation[0].value = again.logprobs[token];
    }
    std::vector<Finding> update(1);
    if (data.rank() == answer.computed_by) update[0].value = training.logprobs[token];
    data.broadcast("retrace:generated", generation, answer.generated_by);
    data.broadcast("retrace:computed", update, answer.computed_by);

    const auto differs = [](float a, float b) {
        return std::bit_cast<std::uint32_t>(a) != std::bit_cast<std::uint32_t>(b);
    };
    if (!odd.empty()) {
        // Ranks that share out experts part from the others together, where one of them errs.
        const auto before = [](const auto& a, const auto& b) {
            return a.second.place < b.second.place;
        };
        const Found& first = std::ranges::min_element(odd, before)->second;
        std::vector<int> ranks;
        for (const auto& [rank, found] : odd) {
            if (found.place == first.place) ranks.push_back(rank);
        }
        return fmt::format("computed again, data rank{} {} {} from {} first in {}{}",
                           ranks.size() > 1 ? "s" : "", fmt::join(ranks, ", "),
                           ranks.size() > 1 ? "differ" : "differs",
                           data.size() == 2 ? "the other" : "most",
                           name_of(training.places[static_cast<std::size_t>(first.place)]),
                           tensor_ranks_of(first));
    }
    if (generation[0].place >= 0) {
        const auto place = static_cast<std::size_t>(generation[0].place);
        return fmt::format(
            "computed again, generation and training differ on data rank {} first "
            "in {}",
            answer.generated_by, name_of(training.places[place]));
    }
    if (differs(generation[0].value, answer.sampled)) {
        return fmt::format(
            "generated again on data rank {} it is {:.9g}: what the sampler read "
            "(packed weights, cache) has changed since",
            answer.generated_by, static_cast<double>(generation[0].value));
    }
    if (differs(update[0].value, answer.computed)) {
        return fmt::format(
            "computed again alone on data rank {} it is {:.9g}: the value depends "
            "on what is computed beside it, or its memory was damaged",
            answer.computed_by, static_cast<double>(update[0].value));
    }
    return "computed again, both values are the same as before in every layer: they part in the "
           "head";
}

}  // namespace rankwise::stages
