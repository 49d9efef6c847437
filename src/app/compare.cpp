#include "src/app/compare.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <map>
#include <set>
#include <tuple>

#include "io/checkpoint.hpp"
#include "io/checkpoint_reader.hpp"
#include "io/rollouts.hpp"
#include "src/app/recipe.hpp"
#include "src/app/run_directory.hpp"

namespace rankwise::app {
namespace {

// ---- metrics

/// Values that are not of what was computed.
bool is_timing(std::string_view name) {
    return name.starts_with("time/") || name.starts_with("memory/") || name.starts_with("bytes/") ||
           name == "step_time" || name.ends_with("_per_second");
}

/// The phase that makes a value, by its place in a step.
struct Phase {
    int order;
    const char* name;
};
Phase phase_of(std::string_view metric) {
    if (metric == "digest/prompts") return {0, "prompts"};
    if (metric == "digest/rollouts" || metric.starts_with("completions/")) return {1, "generate"};
    if (metric == "digest/rewards" || metric.starts_with("reward")) return {2, "score"};
    if (metric == "digest/weights") return {4, "update"};
    if (metric == "digest/optimizer") return {5, "update"};
    return {3, "update"};
}

/// Every value of a line as text with all its bits.
std::map<std::string, std::string> values_of(const MetricRecord& record) {
    std::map<std::string, std::string> values;
    for (const auto& [name, value] : record.numbers) {
        if (!is_timing(name)) values[name] = fmt::format("{}", value);
    }
    for (const auto& [name, value] : record.texts) values[name] = value;
    return values;
}

std::string place_of(const MetricRecord& record) {
    return fmt::format("stage {}, step {}", record.stage, record.step);
}

std::optional<Difference> compare_lines(const MetricRecord& a, const MetricRecord& b) {
    if (a.stage != b.stage || a.step != b.step || a.evaluation != b.evaluation) {
        return Difference{fmt::format("line {} of metrics.jsonl", a.line), place_of(a),
                          place_of(b)};
    }
    const auto in_a = values_of(a);
    const auto in_b = values_of(b);
    std::set<std::string> names;
    for (const auto& value : in_a) names.insert(value.first);
    for (const auto& value : in_b) names.insert(value.first);
    std::optional<Difference> first;
    int first_order = 0;
    for (const std::string& name : names) {
        const auto value_a = in_a.find(name);
        const auto value_b = in_b.find(name);
        const std::string text_a = value_a == in_a.end() ? "absent" : value_a->second;
        const std::string text_b = value_b == in_b.end() ? "absent" : value_b->second;
        if (text_a == text_b) continue;
        const Phase phase = a.evaluation ? Phase{0, "evaluate"} : phase_of(name);
        if (first && first_order <= phase.order) continue;
        first =
            Difference{fmt::format("{}, {}: {}", place_of(a), phase.name, name), text_a, text_b};
        first_order = phase.order;
    }
    return first;
}

/// The step of the first lines that differ, if it is one that updates weights.
std::optional<TracedStep> first_to_differ(const std::vector<MetricRecord>& a,
                                          const std::vector<MetricRecord>& b) {
    for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
        if (!compare_lines(a[i], b[i])) continue;
        const bool same_step =
            a[i].stage == b[i].stage && a[i].step == b[i].step && !a[i].evaluation;
        if (!same_step || a[i].number("grad_norm") == nullptr) return std::nullopt;
        return TracedStep{a[i].stage, a[i].step};
    }
    return std::nullopt;
}

/// Steps that both runs have traces of, in the order of the run.
std::vector<TracedStep> common_traces(io::FileSystem& fs, const RunPaths& a, const RunPaths& b,
                                      const std::vector<MetricRecord>& order) {
    const std::vector<TracedStep> in_a = traced_steps(fs, a.traces());
    const std::vector<TracedStep> in_b = traced_steps(fs, b.traces());
    std::vector<TracedStep> common;
    for (const MetricRecord& record : order) {
        const TracedStep step{record.stage, record.step};
        const auto in = [&](const std::vector<TracedStep>& steps) {
            return std::ranges::find(steps, step) != steps.end();
        };
        if (!record.evaluation && in(in_a) && in(in_b)) common.push_back(step);
    }
    return common;
}

// ---- tensors

struct Kind {
    std::string model;
    std::string kind;
    DType dtype = DType::f32;
    friend auto operator<=>(const Kind&, const Kind&) = default;
};

/// What was saved of a checkpoint: the parameters of each kind (frozen ones have no moments).
std::map<Kind, std::set<ParameterId>> saved_in(const io::Manifest& manifest) {
    std::map<Kind, std::set<ParameterId>> saved;
    for (const io::ShardEntry& file : manifest.files) {
        for (const io::ShardContent& content : file.contents) {
            auto& parameters = saved[{content.model, content.kind, content.dtype}];
            for (const io::ShardBox& box :
                 file.box_lists.at(static_cast<std::size_t>(content.boxes))) {
                parameters.insert(box.parameter);
            }
        }
    }
    return saved;
}

std::string element_text(DType dtype, const std::byte* element) {
    std::array<std::byte, 8> bytes{};
    const auto size = static_cast<std::size_t>(size_of(dtype));
    std::memcpy(bytes.data(), element, size);
    std::uint64_t bits = 0;
    std::memcpy(&bits, bytes.data(), sizeof bits);
    const auto low = static_cast<std::uint32_t>(bits);
    switch (dtype) {
        case DType::f32:
            return fmt::format("{} (0x{:08x})", std::bit_cast<float>(low), low);
        case DType::f64:
            return fmt::format("{} (0x{:016x})", std::bit_cast<double>(bits), bits);
        case DType::bf16:
            return fmt::format("{} (0x{:04x})", float_from_bf16(static_cast<std::uint16_t>(low)),
                               low);
        case DType::f16:
            return fmt::format("{} (0x{:04x})", float_from_f16(static_cast<std::uint16_t>(low)),
                               low);
        case DType::i32:
            return fmt::format("{}", static_cast<std::int32_t>(low));
        case DType::i64:
            return fmt::format("{}", static_cast<std::int64_t>(bits));
        case DType::f8_e4m3:
        case DType::u8:
            return fmt::format("0x{:02x}", low & 0xffU);
    }
    return {};
}

std::optional<Difference> compare_tensor(const io::SavedParameter& parameter, const Kind& kind,
                                         const std::vector<std::byte>& a,
                                         const std::vector<std::byte>& b) {
    if (a == b) return std::nullopt;
    const auto size = size_of(kind.dtype);
    const auto at = std::ranges::mismatch(a, b).in1 - a.begin();
    const std::int64_t element = at / size;
    std::int64_t differ = 0;
    const auto count = static_cast<std::int64_t>(a.size()) / size;
    for (std::int64_t i = 0; i < count; ++i) {
        if (std::memcmp(a.data() + i * size, b.data() + i * size, static_cast<std::size_t>(size)) !=
            0)
            ++differ;
    }
    return Difference{
        fmt::format("{}/{} {}: row {}, column {} ({} of {} elements differ)", kind.model, kind.kind,
                    parameter.name, element / parameter.shape.cols, element % parameter.shape.cols,
                    differ, count),
        element_text(kind.dtype, a.data() + element * size),
        element_text(kind.dtype, b.data() + element * size)};
}

std::optional<Difference> compare_kind(io::CheckpointReader& a, io::CheckpointReader& b,
                                       const Kind& kind, const std::set<ParameterId>& parameters) {
    const auto& models = a.manifest().models;
    const auto model = std::ranges::find(models, kind.model, &io::SavedModel::name);
    ensure(model != models.end(), "{}: no model {}", a.path().string(), kind.model);
    for (const ParameterId id : parameters) {
        const io::SavedParameter& parameter = model->parameters.at(static_cast<std::size_t>(id));
        const Box box = Box::whole(parameter.shape);
        std::vector<std::byte> in_a(static_cast<std::size_t>(box.size() * size_of(kind.dtype)));
        std::vector<std::byte> in_b(in_a.size());
        a.read(kind.model, kind.kind, id, box, kind.dtype, in_a);
        b.read(kind.model, kind.kind, id, box, kind.dtype, in_b);
        if (auto found = compare_tensor(parameter, kind, in_a, in_b)) return found;
    }
    return std::nullopt;
}

// ---- rollouts

std::vector<const Trajectory*> canonical(const io::Rollouts& rollouts) {
    std::vector<const Trajectory*> order;
    for (const Trajectory& trajectory : rollouts.trajectories) order.push_back(&trajectory);
    std::ranges::stable_sort(order, {}, [](const Trajectory* trajectory) {
        return std::tuple(trajectory->group, trajectory->sample);
    });
    return order;
}

template <class T>
std::optional<Difference> compare_list(const std::string& name, const std::vector<T>& a,
                                       const std::vector<T>& b) {
    const std::size_t both = std::min(a.size(), b.size());
    for (std::size_t i = 0; i < both; ++i) {
        if (std::memcmp(&a[i], &b[i], sizeof(T)) != 0) {
            return Difference{fmt::format("{}[{}]", name, i), fmt::format("{}", a[i]),
                              fmt::format("{}", b[i])};
        }
    }
    if (a.size() != b.size()) {
        return Difference{fmt::format("number of {}", name), fmt::format("{}", a.size()),
                          fmt::format("{}", b.size())};
    }
    return std::nullopt;
}

std::string score_text(const Score& score) {
    return fmt::format("{} {} over [{}, {}) status {}", score.name, score.value, score.begin,
                       score.end, static_cast<int>(score.status));
}

std::optional<Difference> compare_trajectory(const Trajectory& a, const Trajectory& b) {
    if (a.prompt_id != b.prompt_id) {
        return Difference{"prompt", fmt::format("{}", a.prompt_id), fmt::format("{}", b.prompt_id)};
    }
    if (auto found = compare_list("tokens", a.tokens, b.tokens)) return found;
    if (auto found = compare_list("logprobs", a.logprobs, b.logprobs)) return found;
    for (std::size_t i = 0; i < std::min(a.scores.size(), b.scores.size()); ++i) {
        if (a.scores[i] != b.scores[i]) {
            return Difference{"score", score_text(a.scores[i]), score_text(b.scores[i])};
        }
    }
    if (auto found = compare_list("values", a.values, b.values)) return found;
    if (a.reward != b.reward) {
        return Difference{"reward", fmt::format("{}", a.reward), fmt::format("{}", b.reward)};
    }
    if (a.advantage != b.advantage) {
        return Difference{"advantage", fmt::format("{}", a.advantage),
                          fmt::format("{}", b.advantage)};
    }
    if (a != b) {
        return Difference{"segments, scores, parent, text or finish reason",
                          fmt::format("{}: {}", name_of(a.finish_reason), a.text),
                          fmt::format("{}: {}", name_of(b.finish_reason), b.text)};
    }
    return std::nullopt;
}

/// Steps that both directories have, ascending.
std::vector<std::int64_t> common_steps(io::FileSystem& fs, const io::Path& a, const io::Path& b) {
    const auto steps_of = [&fs](const io::Path& path) {
        std::set<std::int64_t> steps;
        for (const std::string& name : fs.list(path)) {
            if (const auto step = io::step_of(name)) steps.insert(*step);
        }
        return steps;
    };
    const auto in_a = steps_of(a);
    const auto in_b = steps_of(b);
    std::vector<std::int64_t> both;
    std::ranges::set_intersection(in_a, in_b, std::back_inserter(both));
    return both;
}

std::string text_of(io::FileSystem& fs, const io::Path& path) {
    if (!fs.exists(path)) return {};
    const std::vector<std::byte> bytes = io::read_file(fs, path);
    return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

}  // namespace

std::optional<Difference> compare_metrics(const std::vector<MetricRecord>& a,
                                          const std::vector<MetricRecord>& b) {
    const std::size_t both = std::min(a.size(), b.size());
    for (std::size_t i = 0; i < both; ++i) {
        if (auto found = compare_lines(a[i], b[i])) return found;
    }
    if (a.size() == b.size()) return std::nullopt;
    const MetricRecord& more = a.size() > b.size() ? a[both] : b[both];
    return Difference{fmt::format("{} is in one run only", place_of(more)),
                      fmt::format("{} lines", a.size()), fmt::format("{} lines", b.size())};
}

std::optional<Difference> compare_checkpoints(io::FileSystem& fs, const io::Path& a,
                                              const io::Path& b) {
    io::CheckpointReader reader_a(fs, a);
    io::CheckpointReader reader_b(fs, b);
    if (reader_a.manifest().models != reader_b.manifest().models) {
        return Difference{"names or shapes of parameters", "one model", "another"};
    }
    const auto saved_a = saved_in(reader_a.manifest());
    const auto saved_b = saved_in(reader_b.manifest());
    for (const auto* saved : {&saved_a, &saved_b}) {
        const auto& other = saved == &saved_a ? saved_b : saved_a;
        for (const auto& [kind, parameters] : *saved) {
            const auto place = other.find(kind);
            if (place != other.end() && place->second == parameters) continue;
            const std::string here = fmt::format("{} tensors", parameters.size());
            const std::string there =
                place == other.end() ? "absent" : fmt::format("{} tensors", place->second.size());
            const bool first = saved == &saved_a;
            return Difference{fmt::format("{}/{} {}", kind.model, kind.kind, name_of(kind.dtype)),
                              first ? here : there, first ? there : here};
        }
    }
    // Weights first: they are what people look for.
    std::optional<Difference> found;
    for (const bool weights : {true, false}) {
        for (const auto& [kind, parameters] : saved_a) {
            if (found || (kind.kind == "weights") != weights) continue;
            found = compare_kind(reader_a, reader_b, kind, parameters);
        }
    }
    for (io::CheckpointReader* reader : {&reader_a, &reader_b}) reader->finish();
    if (found) return found;
    const io::RunState& state_a = reader_a.state();
    const io::RunState& state_b = reader_b.state();
    if (state_a.values != state_b.values || state_a.policy_version != state_b.policy_version) {
        return Difference{"cursors and counters", "one state", "another"};
    }
    return std::nullopt;
}

std::optional<Difference> compare_rollouts(io::FileSystem& fs, const io::Path& a,
                                           const io::Path& b) {
    const io::Rollouts rollouts_a = io::read_rollouts(fs, a);
    const io::Rollouts rollouts_b = io::read_rollouts(fs, b);
    const auto in_a = canonical(rollouts_a);
    const auto in_b = canonical(rollouts_b);
    for (std::size_t i = 0; i < std::min(in_a.size(), in_b.size()); ++i) {
        const std::string who = fmt::format("group {}, sample {}", in_a[i]->group, in_a[i]->sample);
        if (in_a[i]->group != in_b[i]->group || in_a[i]->sample != in_b[i]->sample) {
            return Difference{"order of trajectories", who,
                              fmt::format("group {}, sample {}", in_b[i]->group, in_b[i]->sample)};
        }
        if (auto found = compare_trajectory(*in_a[i], *in_b[i])) {
            found->place = fmt::format("{}: {}", who, found->place);
            return found;
        }
    }
    if (in_a.size() == in_b.size()) return std::nullopt;
    return Difference{"number of trajectories", fmt::format("{}", in_a.size()),
                      fmt::format("{}", in_b.size())};
}

Comparison compare_runs(io::FileSystem& fs, const io::Path& a, const io::Path& b) {
    const RunPaths paths_a{a};
    const RunPaths paths_b{b};
    for (const RunPaths& paths : {paths_a, paths_b}) {
        require(fs.exists(paths.metrics()),
                "{} is no run directory: it has no metrics.jsonl; give two directories of runs",
                paths.root.string());
    }
    Comparison comparison;
    for (const LogicalDifference& difference :
         logical_differences(logical_text_of(text_of(fs, paths_a.recipe())),
                             logical_text_of(text_of(fs, paths_b.recipe())))) {
        comparison.options.push_back(
            fmt::format("{}: {} and {}", difference.key, difference.saved, difference.current));
    }
    const auto metrics_a = read_metrics(fs, paths_a.metrics());
    const auto metrics_b = read_metrics(fs, paths_b.metrics());
    comparison.steps = static_cast<std::int64_t>(std::min(metrics_a.size(), metrics_b.size()));
    comparison.metrics = compare_metrics(metrics_a, metrics_b);
    const auto walk = [&fs](const io::Path& in_a, const io::Path& in_b, auto compare,
                            std::optional<Difference>& first, std::int64_t& count) {
        for (const std::int64_t step : common_steps(fs, in_a, in_b)) {
            ++count;
            first = compare(fs, in_a / io::step_name(step), in_b / io::step_name(step));
            if (!first) continue;
            first->place = fmt::format("{}, {}", io::step_name(step), first->place);
            return;
        }
    };
    walk(paths_a.rollouts(), paths_b.rollouts(), compare_rollouts, comparison.rollouts,
         comparison.rollouts_compared);
    for (const TracedStep& step : common_traces(fs, paths_a, paths_b, metrics_a)) {
        ++comparison.traces_compared;
        comparison.traces = compare_traces(fs, paths_a.traces(), paths_b.traces(), step);
        if (comparison.traces) break;
    }
    if (!comparison.traces) comparison.to_trace = first_to_differ(metrics_a, metrics_b);
    walk(paths_a.checkpoints(), paths_b.checkpoints(), compare_checkpoints, comparison.checkpoints,
         comparison.checkpoints_compared);
    return comparison;
}

}  // namespace rankwise::app
