#include "src/update/policy_loss.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "src/base/error.hpp"
#include "src/base/maths.hpp"

namespace rankwise::update {
namespace {

constexpr std::array<std::pair<const char*, LossType>, 7> kTypes{{{"grpo", LossType::grpo},
                                                                  {"bnpo", LossType::bnpo},
                                                                  {"dr_grpo", LossType::dr_grpo},
                                                                  {"dapo", LossType::dapo},
                                                                  {"cispo", LossType::cispo},
                                                                  {"sapo", LossType::sapo},
                                                                  {"luspo", LossType::luspo}}};

/// A token's policy term, and its derivatives: through the ratio, and (cispo) straight through the
/// log-probability.
struct Term {
    double value = 0.0;
    double by_ratio = 0.0;
    double by_logprob = 0.0;
};

Term clipped_term(const PolicyLossSettings& s, double ratio, double advantage) {
    const double capped = std::min(ratio, s.delta);
    const double bounded = std::clamp(ratio, 1.0 - s.epsilon, 1.0 + s.epsilon_high);
    const double free_value = capped * advantage;
    const double bounded_value = bounded * advantage;
    const double free_slope = ratio <= s.delta ? advantage : 0.0;
    const bool inside = ratio >= 1.0 - s.epsilon && ratio <= 1.0 + s.epsilon_high;
    const double bounded_slope = inside ? advantage : 0.0;
    if (free_value < bounded_value) return {-free_value, -free_slope};
    if (free_value > bounded_value) return {-bounded_value, -bounded_slope};
    // A minimum of equal values passes half of the gradient to each.
    return {-free_value, -0.5 * (free_slope + bounded_slope)};
}

Term policy_term(const PolicyLossSettings& s, double ratio, double advantage, double logprob) {
    switch (s.type) {
        case LossType::cispo: {
            const double weight = std::min(ratio, s.epsilon_high) * advantage;
            return {-weight * logprob, 0.0, -weight};
        }
        case LossType::sapo: {
            const double tau = advantage > 0.0 ? s.sapo_temperature_pos : s.sapo_temperature_neg;
            const double gate = 1.0 / (1.0 + maths::exp(-tau * (ratio - 1.0)));
            return {-advantage * gate * 4.0 / tau, -advantage * 4.0 * gate * (1.0 - gate)};
        }
        case LossType::grpo:
        case LossType::bnpo:
        case LossType::dr_grpo:
        case LossType::dapo:
        case LossType::luspo:
            return clipped_term(s, ratio, advantage);
    }
    return {};
}

/// Ratios of a sample, one a token; 1 without old log-probabilities.
std::vector<double> ratios_of(const PolicyLossSettings& s, const SampleTokens& sample,
                              std::int64_t counted) {
    std::vector<double> ratio(sample.logprob.size(), 1.0);
    if (sample.old_logprob.empty()) return ratio;
    if (!s.sequence_ratio) {
        for (std::size_t t = 0; t < ratio.size(); ++t) {
            ratio[t] = maths::exp(sample.logprob[t] - sample.old_logprob[t]);
        }
        return ratio;
    }
    double sum = 0.0;
    for (std::size_t t = 0; t < ratio.size(); ++t) {
        if (sample.mask[t] != 0) sum += sample.logprob[t] - sample.old_logprob[t];
    }
    const double mean = sum / static_cast<double>(std::max<std::int64_t>(counted, 1));
    std::fill(ratio.begin(), ratio.end(), maths::exp(mean));
    return ratio;
}

}  // namespace

LossType loss_type(const std::string& name) {
    for (const auto& [known, type] : kTypes) {
        if (name == known) return type;
    }
    throw BadInput(fmt::format(
        "loss_type is \"{}\"; expected grpo, bnpo, dr_grpo, dapo, cispo, sapo or luspo", name));
}

std::vector<std::string> loss_type_names() {
    std::vector<std::string> names;
    for (const auto& row : kTypes) names.emplace_back(row.first);
    return names;
}

double token_weight(LossType type, const LossCounts& counts, std::int64_t tokens) {
    const auto number = [](std::int64_t n) {
        return static_cast<double>(std::max<std::int64_t>(n, 1));
    };
    const double accumulation = number(counts.accumulation);
    const double samples = number(counts.samples);
    switch (type) {
        case LossType::grpo:
        case LossType::sapo:
            return 1.0 / number(tokens) / samples / accumulation;
        case LossType::bnpo:
            return 1.0 / number(counts.tokens) / accumulation;
        case LossType::dr_grpo:
            return 1.0 / (samples * number(counts.max_completion_length)) / accumulation;
        case LossType::luspo:
            return 1.0 / samples / accumulation;
        case LossType::dapo:
        case LossType::cispo:
            return number(counts.steps_per_generation) / (number(counts.items) * accumulation);
    }
    return 0.0;
}

SampleLoss sample_loss(const PolicyLossSettings& s, const SampleTokens& sample, double weight) {
    const std::size_t size = sample.logprob.size();
    const bool has_reference = !sample.ref_logprob.empty();
    ensure(sample.mask.size() == size &&
               (sample.old_logprob.empty() || sample.old_logprob.size() == size) &&
               (!has_reference || sample.ref_logprob.size() == size),
           "a sample's log-probabilities and mask differ in length");
    ensure(s.beta == 0.0 || has_reference || size == 0, "a KL term without a reference");

    SampleLoss out;
    out.token_loss.assign(size, 0.0);
    out.gradient.assign(size, 0.0);
    out.tokens =
        std::count_if(sample.mask.begin(), sample.mask.end(), [](auto m) { return m != 0; });
    out.ratio = ratios_of(s, sample, out.tokens);

    double through_ratio = 0.0;  // sequence ratio: every token's ratio is moved by every token
    for (std::size_t t = 0; t < size; ++t) {
        if (sample.mask[t] == 0) continue;
        const double ratio = out.ratio[t];
        Term term = policy_term(s, ratio, sample.advantage, sample.logprob[t]);
        if (has_reference) {
            const double difference = sample.ref_logprob[t] - sample.logprob[t];
            const double grown = maths::exp(difference);
            const double k3 = grown - difference - 1.0;
            const double used = s.kl_bias_correction ? k3 * ratio : k3;
            out.k3_sum += k3;
            out.kl_sum += used;
            if (s.beta != 0.0) {
                term.value += s.beta * used;
                const double slope = 1.0 - grown;
                term.by_logprob += s.beta * (s.kl_bias_correction ? slope * ratio : slope);
                if (s.kl_bias_correction) term.by_ratio += s.beta * k3;
            }
        }
        out.token_loss[t] = term.value;
        out.loss += weight * term.value;
        out.gradient[t] = weight * term.by_logprob;
        // d ratio / d logprob is the ratio itself; over the whole sample it is shared out evenly.
        if (s.sequence_ratio) {
            through_ratio += weight * term.by_ratio * ratio;
        } else {
            out.gradient[t] += weight * term.by_ratio * ratio;
        }
        const double capped = std::min(ratio, s.delta);
        out.clipped_low += capped < 1.0 - s.epsilon && sample.advantage < 0.0 ? 1 : 0;
        out.clipped_high += capped > 1.0 + s.epsilon_high && sample.advantage > 0.0 ? 1 : 0;
        out.capped += ratio > s.epsilon_high && sample.advantage > 0.0 ? 1 : 0;
    }
    if (s.sequence_ratio && out.tokens > 0) {
        const double share = through_ratio / static_cast<double>(out.tokens);
        for (std::size_t t = 0; t < size; ++t) {
            if (sample.mask[t] != 0) out.gradient[t] += share;
        }
    }
    return out;
}

}  // namespace rankwise::update
