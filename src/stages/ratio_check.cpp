#include "src/stages/ratio_check.hpp"

#include <algorithm>
#include <bit>
#include <tuple>

#include "src/stages/gather.hpp"

namespace rankwise::stages {
namespace {

/// "NAME has changed on data rank 1 since generation", of the lowest such rank; empty if none has.
/// Collective.
std::string changed_parameter(parallel::Communicator& data, const model::Weights& weights,
                              const ParameterDigests& at_generation, model::Compute& compute) {
    const ParameterDigests now = parameter_digests(weights, compute);
    const auto [here, there] = std::mismatch(now.begin(), now.end(), at_generation.begin());
    const std::vector<std::int64_t> mine{here == now.end() ? -1 : here - now.begin()};
    const std::vector<std::int64_t> all = data.all_gather_v("ratio check:weights", mine).values;
    const auto changed =
        std::find_if(all.begin(), all.end(), [](std::int64_t id) { return id >= 0; });
    if (changed == all.end()) return {};
    if (weights.shared_by_data()) {  // a digest is that of all ranks' rows
        return fmt::format("{} has changed since generation",
                           weights.table()[narrow<ParameterId>(*changed)].name);
    }
    return fmt::format("{} has changed on data rank {} since generation",
                       weights.table()[narrow<ParameterId>(*changed)].name, changed - all.begin());
}

}  // namespace

ParameterDigests parameter_digests(const model::Weights& weights, model::Compute& compute) {
    return weights.digests(compute);
}

void RatioCheck::add(const AnswerRecord& record, std::span<const float> sampled,
                     std::span<const float> computed) {
    ensure(sampled.size() == computed.size(), "{} log-probabilities were sampled, {} computed",
           sampled.size(), computed.size());
    for (std::size_t t = 0; t < sampled.size(); ++t) {
        if (std::bit_cast<std::uint32_t>(sampled[t]) == std::bit_cast<std::uint32_t>(computed[t]))
            continue;
        const Difference difference{.group = record.group,
                                    .sample = record.sample,
                                    .token = static_cast<std::int64_t>(t),
                                    .generated_by = record.rank,
                                    .sampled = static_cast<double>(sampled[t]),
                                    .computed = static_cast<double>(computed[t])};
        const auto place = [](const Difference& d) {
            return std::tuple(d.group, d.sample, d.token);
        };
        if (!first_ || place(difference) < place(*first_)) first_ = difference;
        return;
    }
}

void RatioCheck::require_exact(const Environment& environment, const model::Weights& weights,
                               const ParameterDigests& at_generation,
                               const model::HeadOptions& head,
                               const rollout::SamplingOptions& sampling,
                               const AnswerText& text) const {
    parallel::Communicator& data = environment.data();
    std::vector<Difference> mine;
    if (first_) {
        mine.push_back(*first_);
        mine.back().computed_by = data.rank();
    }
    const std::vector<Difference> all = gather_losses(environment.mesh, mine);
    if (all.empty()) return;
    const Difference first =
        *std::min_element(all.begin(), all.end(), [](const Difference& a, const Difference& b) {
            return std::tuple(a.group, a.sample, a.token) < std::tuple(b.group, b.sample, b.token);
        });
    std::string cause = changed_parameter(data, weights, at_generation, environment.compute);
    if (cause.empty()) {
        auto [request, tokens] = text(first.group, first.sample);
        cause = "no parameter has changed since generation; " +
                retrace(environment, weights, head, sampling,
                        {.request = std::move(request),
                         .sample = narrow<std::int32_t>(first.sample),
                         .tokens = std::move(tokens),
                         .token = first.token,
                         .generated_by = narrow<int>(first.generated_by),
                         .computed_by = narrow<int>(first.computed_by),
                         .sampled = static_cast<float>(first.sampled),
                         .computed = static_cast<float>(first.computed)});
    }
    throw BadNumbers(
        fmt::format("the update computes another log-probability than the sampler used: token {} "
                    "of answer {} to prompt {} of the "
                    "step, sampled {:.9g} (data rank {}), computed {:.9g} (data rank {}); {}. "
                    "Nothing was learnt from it: the last "
                    "checkpoint is whole",
                    first.token, first.sample, first.group, first.sampled, first.generated_by,
                    first.computed, first.computed_by, cause));
}

void flip_bit(model::Weights& weights, model::Compute& compute, WeightCopy copy) {
    require(copy == WeightCopy::master || !weights.sharded(),
            "[faults] flip_weight_in = packed: with zero = 3 no rank has a packed copy of its own");
    const model::LayerIds& first = weights.parameters().layers.front();
    const ParameterId id = first.gate >= 0 ? first.gate : first.router;
    if (weights.box(id).empty() || weights.box(id).rows.begin > 0) {  // another rank's
        if (weights.sharded()) weights.pack(compute);                 // all gather anew, or none
        return;
    }
    const DeviceSpan<float> one = weights.master_span(id).subspan(0, 1);
    const std::vector<float> before =
        compute.device.kernels::Memory::download<float>(one, compute.stream);
    compute.will_change();
    const auto write = [&](float value) {
        compute.device.kernels::Memory::upload<float>(std::span<const float>(&value, 1), one,
                                                      compute.stream);
    };
    // The highest bit of the fraction: small enough to look harmless, large enough to be seen
    // through rounding.
    write(std::bit_cast<float>(std::bit_cast<std::uint32_t>(before[0]) ^ 0x00400000U));
    weights.pack(compute);
    if (copy == WeightCopy::packed) write(before[0]);
}

}  // namespace rankwise::stages
