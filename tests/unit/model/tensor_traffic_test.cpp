// Bytes that tensor ranks send in training and scoring: the table of parallel/README.md, row by row
// and exactly.
#include <gtest/gtest.h>

#include <map>
#include <mutex>

#include "parallel/thread_world.hpp"
#include "tests/support/pass_gradients.hpp"
#include "tests/support/traffic.hpp"

namespace rankwise::model {
namespace {

using parallel::Communicator;

/// Rows that a rank brings to each expert, by layer.
using ExpertLoadsOfRank = std::map<std::int64_t, std::vector<std::int64_t>>;

/// Gradients, and what each expert took.
class CountedGradients final : public test::PassGradients {
  public:
    using PassGradients::PassGradients;
    void expert_load(std::int64_t layer, std::span<const Range> rows) override {
        for (const Range range : rows) loads_[layer].push_back(range.size());
    }
    [[nodiscard]] const ExpertLoadsOfRank& loads() const { return loads_; }

  private:
    ExpertLoadsOfRank loads_;
};

/// The rows of the table, all ranks of an axis together. U: everything to the others once; S: all
/// of it to each of them.
struct TensorTable {
    ModelConfig config;
    std::int64_t ranks;
    std::int64_t rows;
    std::int64_t blocks;  ///< of 64 rows
    std::int64_t head_rows;

    [[nodiscard]] std::int64_t turn(std::int64_t elements, std::int64_t size = 4) const {
        return (ranks - 1) * size * elements;
    }
    [[nodiscard]] std::int64_t direct(std::int64_t elements) const {
        return ranks * (ranks - 1) * 4 * elements;
    }
    /// Rows of the stream brought together: they have the activations' type.
    [[nodiscard]] std::int64_t together() const {
        return turn(rows * config.hidden, size_of(config.dtype));
    }
    /// Partial sums to the ranks that have the rows.
    [[nodiscard]] std::int64_t sums() const { return turn(rows * config.hidden); }

    [[nodiscard]] std::int64_t layer_forward(bool experts) const {
        const bool second = !experts || config.experts.shared > 0;
        return 2 * together() + (second ? 2 : 1) * sums();
    }
    [[nodiscard]] std::int64_t layer_backward(bool experts) const {
        const bool mlp = !experts || config.experts.shared > 0;
        std::int64_t bytes = 2 * together() + (mlp ? sums() : 0);
        bytes += 2 * turn(blocks * config.hidden);
        bytes += config.latent.used() ? latent_backward() : heads_backward();
        if (experts) bytes += router_backward();
        return bytes;
    }
    [[nodiscard]] std::int64_t heads_backward() const {
        std::int64_t bytes = sums();
        if (ranks > config.kv_heads)  // groups of so many ranks
            bytes += ranks * (ranks / config.kv_heads - 1) * 4 * rows * 2 * config.head_dim;
        if (config.qk_norm) {  // those of keys from one rank a head
            const std::int64_t senders = ranks + std::min(ranks, config.kv_heads);
            bytes += senders * (ranks - 1) * 4 * blocks * config.head_dim;
        }
        return bytes;
    }
    [[nodiscard]] std::int64_t latent_backward() const {
        const LatentConfig& latent = config.latent;
        std::int64_t bytes = direct(rows * latent.key_dim()) + direct(rows * latent.kv_rank);
        bytes += turn(latent.key_dim() * config.hidden);
        if (latent.q_rank == 0) return bytes + sums();
        return bytes + direct(rows * latent.q_rank) + turn(latent.q_rank * config.hidden);
    }
    [[nodiscard]] std::int64_t router_backward() const {
        return turn(rows * config.experts.routed) + turn(config.experts.routed * config.hidden) +
               ranks * (ranks - 1) * 8 * config.experts.routed;
    }
    /// Expert e's gradient is summed by rank e mod T, of what `loads` of all ranks say.
    [[nodiscard]] std::int64_t expert_gradients(
        const std::vector<std::vector<std::int64_t>>& loads) const {
        const std::int64_t width = config.experts.intermediate;
        std::int64_t bytes = 0;
        for (std::int64_t expert = 0; expert < config.experts.routed; ++expert) {
            std::int64_t total = 0;
            for (std::int64_t rank = 0; rank < ranks; ++rank) {
                const std::int64_t some =
                    loads[static_cast<std::size_t>(rank)][static_cast<std::size_t>(expert)];
                total += some;
                if (expert % ranks != rank) bytes += some * 4 * (2 * config.hidden + 3 * width);
            }
            if (total > 0) bytes += (ranks - 1) * 4 * 3 * config.hidden * width;
        }
        return bytes;
    }
    [[nodiscard]] std::int64_t embedding_forward() const { return together(); }
    [[nodiscard]] std::int64_t embedding_backward() const { return together(); }
    [[nodiscard]] std::int64_t head_forward() const { return together() + statistics(head_rows); }
    [[nodiscard]] std::int64_t statistics(std::int64_t count) const {
        return ranks * (ranks - 1) * 4 * count * (3 * config.tree().leaves() / ranks + 1);
    }
    [[nodiscard]] std::int64_t head_backward() const { return direct(head_rows * config.hidden); }
    [[nodiscard]] std::int64_t module_forward() const {
        return together() + layer_forward(config.has_experts(config.layers)) + together();
    }
    [[nodiscard]] std::int64_t module_backward() const {
        return layer_backward(config.has_experts(config.layers)) + 3 * together() +
               turn(2 * config.hidden * config.hidden);
    }
};

ModelConfig roomy(Family family, std::int64_t heads, std::int64_t kv_heads) {
    ModelConfig config = test::small_config(family);
    config.heads = heads;
    config.kv_heads = kv_heads;
    // No leaf is empty.
    config.intermediate = 160;
    config.vocab_size = 150;
    config.experts.intermediate = config.experts.routed > 0 ? 36 : 0;
    config.experts.shared *= 4;
    return config;
}

/// Every row: KV heads that several ranks hold, norms of heads, latent attention with and without
/// compressed queries, experts with and without shared ones; and bf16.
std::vector<ModelConfig> counted_configs() {
    ModelConfig bare = roomy(Family::deepseek_v2, 8, 8);
    bare.experts.shared = 0;
    std::vector<ModelConfig> all{roomy(Family::llama, 8, 4),
                                 roomy(Family::qwen2, 9, 3),
                                 roomy(Family::qwen3, 4, 2),
                                 roomy(Family::qwen3, 4, 4),
                                 roomy(Family::deepseek_v3, 8, 8),
                                 roomy(Family::deepseek_v2, 6, 6),
                                 bare};
    for (std::size_t i = 0; i < 3; ++i) all.push_back(test::in_bf16(all[i]));
    return all;
}

struct CountedTexts {
    CountedTexts() {
        for (int i = 0; i < 70; ++i) long_prompt.push_back((7 * i + 3) % 36);
        append(batch, {.prompt = long_prompt, .answers = {a, b}});
        append(batch, {.prompt = a, .answers = {b, long_prompt, a}});
    }
    std::vector<TokenId> long_prompt;
    std::vector<TokenId> a{1, 5, 9, 30, 2};
    std::vector<TokenId> b{33, 4, 4, 8};
    Microbatch batch;
};

struct CountedRank : test::SmallModel {
    CountedRank(const ModelConfig& configuration, Communicator& tensor)
        : SmallModel(configuration, test::plain_device(), 1, 0.4, {.tensor = &tensor}) {}
};

TensorTable table_of(const ModelConfig& config, int degree, const Microbatch& batch) {
    return {config, degree, batch.rows(), std::ssize(batch.norm_blocks) - 1,
            std::ssize(batch.head) + std::ssize(batch.further)};
}

/// What the ranks' experts took of a pass, by rank, layer by layer.
class AllLoads {
  public:
    explicit AllLoads(int ranks) : ranks_(static_cast<std::size_t>(ranks)) {}
    void add(int rank, const ExpertLoadsOfRank& loads) {
        const std::lock_guard lock(mutex_);
        ranks_[static_cast<std::size_t>(rank)] = loads;
    }
    [[nodiscard]] std::int64_t gradient_bytes(const TensorTable& table) const {
        std::int64_t bytes = 0;
        for (const auto& [layer, unused] : ranks_.front()) {
            std::vector<std::vector<std::int64_t>> loads;
            for (const ExpertLoadsOfRank& rank : ranks_) loads.push_back(rank.at(layer));
            bytes += table.expert_gradients(loads);
        }
        return bytes;
    }

  private:
    std::mutex mutex_;
    std::vector<ExpertLoadsOfRank> ranks_;
};

void for_counted(const std::vector<ModelConfig>& configs,
                 const std::function<void(const ModelConfig&, int degree)>& each) {
    for (const ModelConfig& config : configs) {
        for (const int degree : tensor_degrees(config)) {
            if (degree == 1) continue;
            SCOPED_TRACE(fmt::format("{} in {}, {} / {} heads, {} shared experts, on {} ranks",
                                     name_of(config.family), rankwise::name_of(config.dtype),
                                     config.heads, config.kv_heads, config.experts.shared, degree));
            each(config, degree);
        }
    }
}

TEST(TensorTraffic, OfATrainingPassIsThatOfTheTableWithAndWithoutRecomputation) {
    const CountedTexts texts;
    for_counted(counted_configs(), [&](const ModelConfig& config, int degree) {
        for (const std::int64_t recompute : {std::int64_t{0}, kAllLayers}) {
            AllLoads loads(degree);
            parallel::ThreadWorld world(degree);
            world.run([&](Communicator& axis) {
                CountedRank rank(config, axis);
                CountedGradients sink(rank);
                test::run_backward(rank, {.ids = config.vocab_size}, texts.batch, recompute, sink);
                loads.add(axis.rank(), sink.loads());
            });
            const TensorTable table = table_of(config, degree, texts.batch);
            std::int64_t expected = table.embedding_forward() + table.head_forward() +
                                    table.head_backward() + table.embedding_backward() +
                                    loads.gradient_bytes(table);
            for (std::int64_t layer = 0; layer < config.layers; ++layer) {
                const bool experts = config.has_experts(layer);
                expected += (recompute > 0 ? 2 : 1) * table.layer_forward(experts) +
                            table.layer_backward(experts);
            }
            EXPECT_EQ(test::sent(world).bytes, expected) << "recompute " << recompute;
        }
    });
}

TEST(TensorTraffic, OfScoringIsTheForwardPartOfTheTable) {
    const CountedTexts texts;
    for_counted(counted_configs(), [&](const ModelConfig& config, int degree) {
        parallel::ThreadWorld world(degree);
        world.run([&](Communicator& axis) {
            CountedRank rank(config, axis);
            (void)score(rank.compute, rank.weights, {.ids = config.vocab_size}, texts.batch);
        });
        const TensorTable table = table_of(config, degree, texts.batch);
        std::int64_t expected = table.embedding_forward() + table.head_forward();
        for (std::int64_t layer = 0; layer < config.layers; ++layer)
            expected += table.layer_forward(config.has_experts(layer));
        EXPECT_EQ(test::sent(world).bytes, expected);
    });
}

TEST(TensorTraffic, OfAModuleThatPredictsFurtherIsThatOfTheTable) {
    ModelConfig config = roomy(Family::deepseek_v3, 8, 8);
    config.extra_layers = 1;
    const CountedTexts texts;
    Microbatch batch;
    std::vector<TokenId> tokens = texts.long_prompt;
    tokens.insert(tokens.end(), texts.b.begin(), texts.b.end());
    append_sequence(batch, tokens, 60, true);
    append_sequence(batch, texts.a, 2, true);
    for_counted({config}, [&](const ModelConfig&, int degree) {
        AllLoads loads(degree);
        parallel::ThreadWorld world(degree);
        world.run([&](Communicator& axis) {
            CountedRank rank(config, axis);
            rank.weights.use_mtp(rank.compute, true);
            CountedGradients sink(rank);
            TrainingPass pass(rank.compute, rank.weights, {.ids = config.vocab_size}, batch, 0);
            pass.backward(std::vector<float>(batch.head.size() + batch.further.size(), 0.25F),
                          sink);
            loads.add(axis.rank(), sink.loads());
        });
        const TensorTable table = table_of(config, degree, batch);
        std::int64_t expected = table.embedding_forward() + table.head_forward() +
                                table.module_forward() + table.head_backward() +
                                table.module_backward() + table.embedding_backward() +
                                loads.gradient_bytes(table);
        for (std::int64_t layer = 0; layer < config.layers; ++layer) {
            const bool experts = config.has_experts(layer);
            expected += table.layer_forward(experts) + table.layer_backward(experts);
        }
        EXPECT_EQ(test::sent(world).bytes, expected);
    });
}

}  // namespace
}  // namespace rankwise::model
