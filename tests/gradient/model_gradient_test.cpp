// Whole models: gradients of losses against finite differences of a forward pass in double.
#include <functional>

#include "src/base/philox.hpp"
#include "src/update/policy_loss.hpp"
#include "tests/support/gradients.hpp"

namespace rankwise::test {
namespace {

/// Float32 carries 2^-24 a rounding; a gradient is a sum over some hundred products that went
/// through two layers, forward and backward. What is found is below 6e-6 of the gradient's norm,
/// and 1e-5 of logits of some tens.
constexpr double kGradientBound = 2e-5;
constexpr double kLogprobBound = 2e-5;

struct Sample {
    std::int64_t group = 0;
    std::vector<TokenId> prompt;
    std::vector<TokenId> answer;
};

std::vector<TokenId> ids_of(std::int64_t count, RandomSequence& random, std::int64_t vocabulary) {
    std::vector<TokenId> ids;
    for (std::int64_t i = 0; i < count; ++i) {
        ids.push_back(static_cast<TokenId>(random.below(static_cast<std::uint64_t>(vocabulary))));
    }
    return ids;
}

/// Two groups; their samples' answers differ in length.
std::vector<Sample> samples_of(std::int64_t vocabulary) {
    RandomSequence random(RandomStream(3, Purpose::data_generation));
    std::vector<Sample> samples;
    for (const std::int64_t group : {0, 1}) {
        const auto prompt = ids_of(3 + 4 * group, random, vocabulary);
        for (const std::int64_t length : {5, 1, 8}) {
            samples.push_back({group, prompt, ids_of(length + group, random, vocabulary)});
        }
    }
    return samples;
}

/// Loss of one sample from its log-probabilities, with its gradient by them.
using Loss = std::function<update::SampleLoss(std::size_t sample, std::span<const double> logprob)>;

/// -mean log p over all answer tokens.
Loss sft_loss(const std::vector<Sample>& samples) {
    double tokens = 0.0;
    for (const Sample& sample : samples) tokens += static_cast<double>(sample.answer.size());
    return [tokens](std::size_t, std::span<const double> logprob) {
        update::SampleLoss loss;
        for (const double value : logprob) loss.loss -= value / tokens;
        loss.gradient.assign(logprob.size(), -1.0 / tokens);
        return loss;
    };
}

/// Off policy, with clipping, a reference and advantages of both signs. The sampler's and the
/// reference's log-probabilities lie about the policy's own, so that ratios are on both sides of
/// the borders, but none so near one that a step of the finite difference crosses it.
Loss grpo_loss(const std::vector<Sample>& samples, const std::vector<std::vector<double>>& own) {
    RandomSequence random(RandomStream(4, Purpose::data_generation));
    std::vector<std::vector<double>> old = own;
    std::vector<std::vector<double>> reference = own;
    for (std::size_t s = 0; s < own.size(); ++s) {
        for (std::size_t t = 0; t < own[s].size(); ++t) {
            old[s][t] += (random.uniform() - 0.5) * 0.8;
            reference[s][t] += (random.uniform() - 0.5) * 0.6;
        }
    }
    const auto count = static_cast<std::int64_t>(samples.size());
    return [=](std::size_t sample, std::span<const double> logprob) {
        const std::vector<std::uint8_t> mask(logprob.size(), 1);
        const update::PolicyLossSettings settings{.type = update::LossType::grpo, .beta = 0.1};
        const double advantage = 0.7 - 0.5 * static_cast<double>(sample % 3);
        return update::sample_loss(settings,
                                   {.logprob = logprob,
                                    .old_logprob = old[sample],
                                    .ref_logprob = reference[sample],
                                    .mask = mask,
                                    .advantage = advantage},
                                   update::token_weight(settings.type, {.samples = count},
                                                        static_cast<std::int64_t>(logprob.size())));
    };
}

/// Log-probabilities of every sample's answer, in double.
std::vector<std::vector<double>> logprobs_of(const reference::Model& model,
                                             const std::vector<Sample>& samples) {
    std::vector<std::vector<double>> all;
    for (const Sample& sample : samples) {
        std::vector<TokenId> tokens = sample.prompt;
        tokens.insert(tokens.end(), sample.answer.begin(), sample.answer.end());
        const auto rows = model.distributions(tokens, 1.0, model.config.vocab_size);
        std::vector<double>& own = all.emplace_back();
        for (std::size_t t = sample.prompt.size(); t < tokens.size(); ++t) {
            own.push_back(rows[t - 1][static_cast<std::size_t>(tokens[t])]);
        }
    }
    return all;
}

double loss_of(const reference::Model& model, const std::vector<Sample>& samples,
               const Loss& loss) {
    const auto logprobs = logprobs_of(model, samples);
    double sum = 0.0;
    for (std::size_t s = 0; s < samples.size(); ++s) sum += loss(s, logprobs[s]).loss;
    return sum;
}

/// Our gradients, over several chunks; log-probabilities and entropies are compared on the way.
Gradients computed(SmallModel& model, const reference::Model& reference,
                   const std::vector<Sample>& samples, const Loss& loss, bool share_prompts) {
    std::vector<update::SampleSize> sizes;
    for (const Sample& sample : samples) {
        sizes.push_back({sample.group, std::ssize(sample.prompt), std::ssize(sample.answer)});
    }
    const update::PlanOptions options{
        .chunk_tokens = 20, .chunk_multiple = 2, .share_prompts = share_prompts};
    update::Trainer trainer(model.compute, model.weights, *model.self,
                            {.head = {.ids = model.config.vocab_size}}, {});
    const auto expected = logprobs_of(reference, samples);
    const update::MinibatchCallbacks callbacks{
        .text =
            [&](std::int64_t sample) {
                const Sample& own = samples[static_cast<std::size_t>(sample)];
                return update::SampleText{own.prompt, own.answer};
            },
        .loss =
            [&](std::int64_t sample, std::span<const float> logprob, std::span<const float>,
                std::span<float> coefficient) {
                const auto at = static_cast<std::size_t>(sample);
                for (std::size_t t = 0; t < logprob.size(); ++t) {
                    EXPECT_NEAR(logprob[t], expected[at][t], kLogprobBound);
                }
                const std::vector<double> own(logprob.begin(), logprob.end());
                const auto gradient = loss(at, own).gradient;
                for (std::size_t t = 0; t < gradient.size(); ++t) {
                    coefficient[t] = static_cast<float>(gradient[t]);
                }
            }};
    (void)trainer.step(update::plan_minibatch(sizes, options), options, callbacks, 0.0);
    return gradients_of(model, trainer);
}

/// d loss / d one weight by central differences in double. A step of 1e-4 leaves an error of about
/// 1e-8 from the curvature and 1e-12 from rounding.
double finite_difference(reference::Model& model, double& weight,
                         const std::vector<Sample>& samples, const Loss& loss) {
    constexpr double kStep = 1e-4;
    const double was = weight;
    const auto at = [&](double offset) {
        weight = was + offset;
        return loss_of(model, samples, loss);
    };
    // Fourth order.
    const double slope =
        (8.0 * (at(kStep) - at(-kStep)) - (at(2 * kStep) - at(-2 * kStep))) / (12.0 * kStep);
    weight = was;
    return slope;
}

struct Variant {
    const char* name;
    model::ModelConfig config;
};

std::vector<Variant> variants() {
    std::vector<Variant> all;
    for (const bool tied : {false, true}) {
        for (const model::Family family :
             {model::Family::llama, model::Family::qwen2, model::Family::qwen3,
              model::Family::deepseek_v2, model::Family::deepseek_v3}) {
            model::ModelConfig config = small_config(family);
            config.tied = tied;
            all.push_back({model::name_of(family), config});
        }
    }
    model::ModelConfig biased = small_config(model::Family::llama);
    biased.qkv_bias = biased.o_bias = biased.mlp_bias = true;
    biased.rope = {.theta = 100.0,
                   .scaling = model::RopeScaling::llama3,
                   .factor = 8.0,
                   .original_max_position = 32};
    all.push_back({"llama with every bias", biased});
    model::ModelConfig odd = small_config(model::Family::qwen3);
    odd.heads = 6;
    odd.kv_heads = 3;
    odd.rope = {.theta = 1e4,
                .scaling = model::RopeScaling::yarn,
                .factor = 4.0,
                .original_max_position = 64};
    all.push_back({"qwen3 with three leaves", odd});
    model::ModelConfig stretched = small_config(model::Family::deepseek_v3);
    stretched.latent.q_rank = 0;
    stretched.experts.shared = 0;
    stretched.rope = {.theta = 1e4,
                      .scaling = model::RopeScaling::yarn,
                      .factor = 4.0,
                      .mscale = 0.7,
                      .mscale_all_dim = 0.9,
                      .original_max_position = 64};
    all.push_back({"deepseek_v3 without shared experts", stretched});
    return all;
}

/// Biases and norms are not left at 0 and 1.
void randomise_vectors(SmallModel& model) {
    RandomSequence random(RandomStream(9, Purpose::data_generation));
    for (ParameterId id = 0; id < model.weights.table().count(); ++id) {
        if (model.weights.table()[id].shape.rows != 1) continue;
        auto values = model.values(id);
        for (float& value : values) value += static_cast<float>(random.uniform() - 0.5);
        model.set(id, values);
    }
}

TEST(ModelGradient, IsTheSlopeOfTheLossForEveryKindOfParameter) {
    constexpr int kElements = 3;  // of each parameter
    for (const Variant& variant : variants()) {
        SmallModel model(variant.config);
        randomise_vectors(model);
        reference::Model reference = model.reference_model();
        const auto samples = samples_of(variant.config.vocab_size);
        const auto own = logprobs_of(reference, samples);
        for (const bool grpo : {false, true}) {
            SCOPED_TRACE(testing::Message() << variant.name << (variant.config.tied ? ", tied" : "")
                                            << (grpo ? ", grpo" : ", sft"));
            const Loss loss = grpo ? grpo_loss(samples, own) : sft_loss(samples);
            const Gradients found = computed(model, reference, samples, loss, grpo);
            RandomSequence random(RandomStream(5, Purpose::data_generation));
            for (auto& [name, weights] : reference.weights) {
                const Parameter& parameter = model.weights.table()[model.weights.table().id(name)];
                if (!parameter.trained) continue;
                const std::vector<float>& gradient = found.at(name);
                const double norm = l2_of(gradient);
                // No token may have come to an expert.
                EXPECT_TRUE(norm > 0.0 || parameter.expert >= 0) << name;
                const int elements = parameter.expert < 0 ? kElements : 1;
                for (int i = 0; i < elements; ++i) {
                    const auto at = static_cast<std::size_t>(random.below(weights.size()));
                    EXPECT_NEAR(gradient[at],
                                finite_difference(reference, weights[at], samples, loss),
                                kGradientBound * norm)
                        << name << "[" << at << "]";
                }
            }
        }
    }
}

}  // namespace
}  // namespace rankwise::test
