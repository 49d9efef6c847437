// A model with a module that predicts one token further: gradients of its loss by every parameter,
// of the module and of the decoder, against finite differences of a forward pass in double.
#include "src/base/philox.hpp"
#include "tests/support/gradients.hpp"

namespace rankwise::test {
namespace {

/// As of whole models without a module: what is found is below 6e-6 of the gradient's norm.
constexpr double kMtpGradientBound = 2e-5;
constexpr double kLambda = 0.3;

struct Text {
    std::vector<TokenId> tokens;
    std::int64_t prompt = 1;

    [[nodiscard]] std::int64_t further() const {
        return model::further_targets(std::ssize(tokens), prompt);
    }
};

std::vector<Text> mtp_texts(std::int64_t vocabulary) {
    RandomSequence random(RandomStream(3, Purpose::data_generation));
    std::vector<Text> texts;
    // Of two tokens, whose answer no module predicts; of three; prompts of one token and of more.
    for (const auto& [size, prompt] : {std::pair{9, 4}, {2, 1}, {3, 1}, {3, 2}, {12, 1}}) {
        Text& text = texts.emplace_back();
        text.prompt = prompt;
        while (std::ssize(text.tokens) < size)
            text.tokens.push_back(
                static_cast<TokenId>(random.below(static_cast<std::uint64_t>(vocabulary))));
    }
    return texts;
}

double counted(const std::vector<Text>& texts) {
    double count = 0.0;
    for (const Text& text : texts)
        count += static_cast<double>(std::ssize(text.tokens) - text.prompt);
    return count;
}

/// Mean of -log p of the answers, plus lambda times what the module makes of the same tokens.
double mtp_loss_of(const reference::Model& model, const std::vector<Text>& texts) {
    double sum = 0.0;
    const auto add = [&](const std::vector<reference::Vector>& logits, const Text& text,
                         std::int64_t first, std::int64_t ahead, double weight) {
        const auto rows = reference::Model::log_softmax(logits, 1.0, model.config.vocab_size);
        for (std::int64_t t = first; t < std::ssize(text.tokens); ++t) {
            const auto target = static_cast<std::size_t>(text.tokens[static_cast<std::size_t>(t)]);
            sum -= weight * rows[static_cast<std::size_t>(t - ahead)][target];
        }
    };
    for (const Text& text : texts) {
        add(model.logits(text.tokens), text, text.prompt, 1, 1.0);
        add(model.further_logits(text.tokens), text, std::ssize(text.tokens) - text.further(), 2,
            kLambda);
    }
    return sum / counted(texts);
}

Gradients computed_with_module(SmallModel& model, const std::vector<Text>& texts) {
    std::vector<update::SampleSize> sizes;
    for (const Text& text : texts)
        sizes.push_back({std::ssize(sizes), text.prompt, std::ssize(text.tokens) - text.prompt});
    const update::PlanOptions options{
        .chunk_tokens = 15, .chunk_multiple = 2, .share_prompts = false};
    update::Trainer trainer(model.compute, model.weights, *model.self,
                            {.head = {.ids = model.config.vocab_size}, .mtp = true}, {});
    const double weight = 1.0 / counted(texts);
    const update::MinibatchCallbacks callbacks{
        .text =
            [&](std::int64_t sample) {
                const Text& text = texts[static_cast<std::size_t>(sample)];
                const auto prompt = static_cast<std::size_t>(text.prompt);
                return update::SampleText{std::span(text.tokens).first(prompt),
                                          std::span(text.tokens).subspan(prompt)};
            },
        .loss =
            [&](std::int64_t, std::span<const float>, std::span<const float>,
                std::span<float> coefficient) {
                std::ranges::fill(coefficient, static_cast<float>(-weight));
            },
        .mtp_loss =
            [&](std::int64_t sample, std::span<const float> logprob, std::span<float> coefficient) {
                EXPECT_EQ(std::ssize(logprob), texts[static_cast<std::size_t>(sample)].further());
                std::ranges::fill(coefficient, static_cast<float>(-weight * kLambda));
            }};
    (void)trainer.step(update::plan_minibatch(sizes, options), options, callbacks, 0.0);
    return gradients_of(model, trainer);
}

/// Fourth order; a step of 1e-4 leaves an error of about 1e-12.
double mtp_finite_difference(reference::Model& model, double& weight,
                             const std::vector<Text>& texts) {
    constexpr double kStep = 1e-4;
    const double was = weight;
    const auto at = [&](double offset) {
        weight = was + offset;
        return mtp_loss_of(model, texts);
    };
    const double slope =
        (8.0 * (at(kStep) - at(-kStep)) - (at(2 * kStep) - at(-2 * kStep))) / (12.0 * kStep);
    weight = was;
    return slope;
}

TEST(MtpGradient, IsTheSlopeOfBothLossesForEveryKindOfParameter) {
    // The module's layer with experts, and dense.
    for (const auto& [tied, first_dense] : {std::pair{false, std::int64_t{1}}, {true, 3}}) {
        model::ModelConfig config = small_config(model::Family::deepseek_v3);
        config.extra_layers = 1;
        config.tied = tied;
        config.experts.first_dense = first_dense;
        SCOPED_TRACE(testing::Message() << "tied " << tied << ", dense to " << first_dense);
        SmallModel model(config);
        RandomSequence noise(RandomStream(9, Purpose::data_generation));
        for (ParameterId id = 0; id < model.weights.table().count(); ++id) {
            if (model.weights.table()[id].shape.rows != 1) continue;
            auto values = model.values(id);
            for (float& value : values) value += static_cast<float>(noise.uniform() - 0.5);
            model.set(id, values);
        }
        reference::Model reference = model.reference_model();
        const auto texts = mtp_texts(config.vocab_size);
        const std::vector<bool> frozen = model.weights.parameters().frozen(true);
        const Gradients found = computed_with_module(model, texts);
        RandomSequence random(RandomStream(5, Purpose::data_generation));
        for (auto& [name, weights] : reference.weights) {
            const ParameterId id = model.weights.table().id(name);
            if (frozen[static_cast<std::size_t>(id)]) continue;
            const std::vector<float>& gradient = found.at(name);
            const bool expert = model.weights.table()[id].expert >= 0;
            const double norm = l2_of(gradient);
            EXPECT_TRUE(norm > 0.0 || expert) << name;
            for (int i = 0; i < (expert ? 1 : 3); ++i) {
                const auto at = static_cast<std::size_t>(random.below(weights.size()));
                EXPECT_NEAR(gradient[at], mtp_finite_difference(reference, weights[at], texts),
                            kMtpGradientBound * norm)
                    << name << "[" << at << "]";
            }
        }
    }
}

}  // namespace
}  // namespace rankwise::test
