// counted_work NAME: does one fixed piece of work on one thread with AVX2, so that a counter of
// instructions sees whether it has become longer. What is counted happens inside
// rankwise_counted_work(); everything before it (memory, weights, a first run) is not.
// counted_work --names: the pieces there are; counted_work --facts: what the counts depend on.
#include <fmt/format.h>

#include <cstdio>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "parallel/self_communicator.hpp"
#include "src/model/initialise.hpp"
#include "src/rollout/generator.hpp"
#include "src/update/advantages.hpp"
#include "src/update/policy_loss.hpp"
#include "src/update/trainer.hpp"

/// Not inlined and of a plain name: the counter is switched on where it begins.
extern "C" __attribute__((noinline)) void rankwise_counted_work(const std::function<void()>& work) {
    work();
}

namespace rankwise::test {
namespace {

using kernels::ConstMatrix;
using kernels::Matrix;

/// One thread, AVX2: valgrind knows no AVX-512.
struct Machine {
    std::unique_ptr<kernels::Device> device =
        kernels::make_cpu_device({.isa = kernels::Isa::avx2, .threads = 1});
    std::unique_ptr<kernels::Stream> stream = device->make_stream();
    kernels::Arena arena{*device};
    model::Compute compute{*device, *stream, arena};

    kernels::DeviceBuffer<float> random(std::int64_t size) {
        kernels::DeviceBuffer<float> buffer(*device, size);
        std::vector<float> values(static_cast<std::size_t>(size));
        std::uint32_t state = 1;
        for (float& value : values) {
            state = state * 1664525U + 1013904223U;
            value = static_cast<float>(state >> 8U) * 0x1p-24F - 0.5F;
        }
        device->upload(std::span<const float>(values), buffer.span(), *stream);
        return buffer;
    }
};

/// Once so that memory has its size, once counted.
void count(const std::function<void()>& work) {
    work();
    rankwise_counted_work(work);
}

/// Forward, both gradients and packing of one matrix.
void matmul() {
    constexpr std::int64_t kRows = 256;
    constexpr std::int64_t kInputs = 192;
    constexpr std::int64_t kOutputs = 320;
    Machine on;
    const kernels::PackSpec forward{DType::f32, kOutputs,
                                    Contraction::of_leaves({{2, 2}}, kInputs)};
    const kernels::PackSpec backward{DType::f32, kInputs, Contraction::straight(kOutputs)};
    const auto weights = on.random(kInputs * kOutputs);
    const auto x = on.random(kRows * kInputs);
    const auto dy = on.random(kRows * kOutputs);
    const auto y = on.random(kRows * kOutputs);
    const auto dx = on.random(kRows * kInputs);
    const auto dw = on.random(kInputs * kOutputs);
    const kernels::DeviceBuffer<std::byte> packed(*on.device, on.device->packed_bytes(forward));
    const kernels::DeviceBuffer<std::byte> back(*on.device, on.device->packed_bytes(backward));
    const ConstMatrix w(weights.span(), kOutputs, kInputs);
    count([&] {
        on.device->pack(forward, kernels::PackSide::outputs, {&w, 1}, packed.span(), *on.stream);
        on.device->pack(backward, kernels::PackSide::inputs, {&w, 1}, back.span(), *on.stream);
        on.device->matmul({.x = ConstMatrix(x.span(), kRows, kInputs),
                           .w = {&forward, packed.span()},
                           .y = Matrix(y.span(), kRows, kOutputs)},
                          *on.stream);
        on.device->matmul({.x = ConstMatrix(dy.span(), kRows, kOutputs),
                           .w = {&backward, back.span()},
                           .y = Matrix(dx.span(), kRows, kInputs)},
                          *on.stream);
        on.device->weight_gradient({.dy = ConstMatrix(dy.span(), kRows, kOutputs),
                                    .x = ConstMatrix(x.span(), kRows, kInputs),
                                    .dw = Matrix(dw.span(), kOutputs, kInputs),
                                    .output = kernels::Output::add},
                                   *on.stream);
    });
}

/// A prompt and two answers, forward and backward.
void attention() {
    constexpr std::int64_t kHeads = 4;
    constexpr std::int64_t kKvHeads = 2;
    constexpr std::int64_t kHeadDim = 64;
    constexpr std::int64_t kRows = 200;
    const std::vector<kernels::AttentionSegment> segments{
        {.row_begin = 0, .rows = 50, .position = 100, .parent = 2},
        {.row_begin = 50, .rows = 50, .position = 100, .parent = 2},
        {.row_begin = 100, .rows = 100}};
    Machine on;
    const auto q = on.random(kRows * kHeads * kHeadDim);
    const auto k = on.random(kRows * kKvHeads * kHeadDim);
    const auto v = on.random(kRows * kKvHeads * kHeadDim);
    const auto dout = on.random(kRows * kHeads * kHeadDim);
    const auto out = on.random(kRows * kHeads * kHeadDim);
    const auto dq = on.random(kRows * kHeads * kHeadDim);
    const auto dk = on.random(kRows * kKvHeads * kHeadDim);
    const auto dv = on.random(kRows * kKvHeads * kHeadDim);
    const auto maximum = on.random(kRows * kHeads);
    const auto denominator = on.random(kRows * kHeads);
    const auto matrix = [&](const kernels::DeviceBuffer<float>& buffer) {
        return Matrix(buffer.span(), kRows, buffer.size() / kRows);
    };
    count([&] {
        on.device->segment_attention({.q = matrix(q),
                                      .k = matrix(k),
                                      .v = matrix(v),
                                      .heads = kHeads,
                                      .kv_heads = kKvHeads,
                                      .segments = segments,
                                      .scale = 0.125F,
                                      .out = matrix(out),
                                      .maximum = maximum.span(),
                                      .denominator = denominator.span()},
                                     *on.stream);
        on.device->segment_attention_backward({.q = matrix(q),
                                               .k = matrix(k),
                                               .v = matrix(v),
                                               .out = matrix(out),
                                               .dout = matrix(dout),
                                               .maximum = maximum.span(),
                                               .denominator = denominator.span(),
                                               .heads = kHeads,
                                               .kv_heads = kKvHeads,
                                               .head_order = Contraction::straight(kHeads),
                                               .segments = segments,
                                               .scale = 0.125F,
                                               .dq = matrix(dq),
                                               .dk = matrix(dk),
                                               .dv = matrix(dv)},
                                              *on.stream);
    });
}

model::ModelConfig small_config() {
    model::ModelConfig config;
    config.vocab_size = 500;
    config.hidden = 64;
    config.layers = 2;
    config.heads = 4;
    config.kv_heads = 2;
    config.head_dim = 16;
    config.intermediate = 176;
    config.max_position = 128;
    config.tied = true;
    return config;
}

struct SmallModel : Machine {
    SmallModel() { model::initialise(weights, {}, 1, compute); }
    model::ModelConfig config = small_config();
    model::Weights weights{*device, config, model::Passes::forward_and_backward};
};

std::vector<TokenId> tokens(std::int64_t count, std::int64_t seed) {
    std::vector<TokenId> ids;
    for (std::int64_t i = 0; i < count; ++i)
        ids.push_back(narrow<TokenId>((i * 7919 + seed * 104729) % small_config().vocab_size));
    return ids;
}

/// Two prompts, four samples of twelve tokens each.
void decode() {
    SmallModel on;
    rollout::Generator generator(on.compute, on.weights, {.slots = 8}, nullptr,
                                 on.config.vocab_size);
    std::vector<rollout::Request> requests;
    for (std::int64_t i = 0; i < 2; ++i) {
        requests.push_back({.prompt_id = static_cast<std::uint64_t>(i),
                            .group = i,
                            .samples = 4,
                            .prompt = tokens(30, i)});
    }
    count([&] {
        rollout::LocalWork work(requests);
        (void)generator.run(requests, {.max_new_tokens = 12, .seed = 2}, work, 0, {});
    });
}

/// An update of two groups of three answers: forward, backward, AdamW.
void update() {
    SmallModel on;
    const auto data = parallel::make_self_communicator({}, "data");
    update::Trainer trainer(on.compute, on.weights, *data, {.head = {.ids = on.config.vocab_size}},
                            {});
    std::vector<update::SampleSize> sizes;
    std::vector<std::vector<TokenId>> prompts, answers;
    for (std::int64_t i = 0; i < 6; ++i) {
        sizes.push_back({.group = i / 3, .prompt_tokens = 20, .answer_tokens = 15 + i});
        prompts.push_back(tokens(20, i / 3));
        answers.push_back(tokens(15 + i, 10 + i));
    }
    const update::PlanOptions options{.chunk_tokens = 256, .chunk_multiple = 1};
    const update::MinibatchPlan plan = update::plan_minibatch(sizes, options);
    const update::MinibatchCallbacks callbacks{
        .text =
            [&](std::int64_t sample) {
                const auto i = static_cast<std::size_t>(sample);
                return update::SampleText{prompts[i], answers[i]};
            },
        .loss =
            [](std::int64_t, std::span<const float> logprob, std::span<const float>,
               std::span<float> coefficient) {
                for (std::size_t t = 0; t < logprob.size(); ++t) coefficient[t] = -0.01F;
            }};
    count([&] { (void)trainer.step(plan, options, callbacks, 1e-4); });
}

/// What the host does between: filtered and plain sampling, advantages, losses token by token.
void host() {
    constexpr std::int64_t kRows = 8;
    constexpr std::int64_t kVocabulary = 2000;
    constexpr std::size_t kTokens = 400;
    Machine on;
    const auto logits = on.random(kRows * kVocabulary);
    std::vector<kernels::SampleRow> rows(static_cast<std::size_t>(kRows));
    for (std::uint32_t i = 0; i < kRows; ++i) {
        rows[i] = {.key = {i, 7}, .position = 3};
        if (i % 2 == 1) {
            rows[i].top_k = 100;
            rows[i].top_p = 0.9;
        }
    }
    std::vector<std::int32_t> drawn(static_cast<std::size_t>(kRows));
    std::vector<double> logprob, old, reference, rewards;
    for (std::size_t t = 0; t < kTokens; ++t) {
        const auto x = static_cast<double>(t);
        logprob.push_back(-1.0 - 0.001 * x);
        old.push_back(-1.05 - 0.0009 * x);
        reference.push_back(-0.95 - 0.0011 * x);
        rewards.push_back(static_cast<double>(t % 5));
    }
    const std::vector<std::uint8_t> mask(kTokens, 1);
    count([&] {
        on.device->sample({.logits = ConstMatrix(logits.span(), kRows, kVocabulary),
                           .ids = kVocabulary,
                           .rows = rows,
                           .tokens = drawn},
                          *on.stream);
        const update::Advantages advantages =
            update::group_advantages(rewards, 8, update::RewardScaling::group);
        for (int sample = 0; sample < 16; ++sample) {
            (void)update::sample_loss(
                {.beta = 0.04},
                {.logprob = logprob,
                 .old_logprob = old,
                 .ref_logprob = reference,
                 .mask = mask,
                 .advantage = advantages.values[static_cast<std::size_t>(sample)]},
                1e-3);
        }
    });
}

const std::map<std::string, void (*)()>& works() {
    static const std::map<std::string, void (*)()> table{{"matmul", matmul},
                                                         {"attention", attention},
                                                         {"decode", decode},
                                                         {"update", update},
                                                         {"host", host}};
    return table;
}

}  // namespace
}  // namespace rankwise::test

int main(int argc, char** argv) {
    const auto& works = rankwise::test::works();
    const std::string name = argc == 2 ? argv[1] : "";
    if (name == "--names") {
        for (const auto& [work, function] : works) fmt::print("{}\n", work);
        return 0;
    }
    if (name == "--facts") {
        fmt::print("{}\n", RANKWISE_COUNTED_BUILD);
        return 0;
    }
    const auto work = works.find(name);
    if (work == works.end()) {
        fmt::print(stderr, "counted_work: '{}' is none of its works (--names)\n", name);
        return 2;
    }
    work->second();
    return 0;
}
