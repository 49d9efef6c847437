// ZeRO-3 while it is under way: what a rank holds of gradients, and that weights and gradients
// travel beside the work.
#include <array>
#include <condition_variable>

#include "tests/support/forwarding_device.hpp"
#include "tests/unit/update/updates_on.hpp"

namespace rankwise::update {
namespace {

using namespace test_updates;
using model::ModelConfig;
using parallel::Communicator;

/// A layer's gradient is much more than what a layer keeps of its activations.
ModelConfig wide_layers(std::int64_t layers) {
    ModelConfig config = config_of(model::Family::llama, layers);
    config.intermediate = 400;
    return config;
}

/// Knows the most memory that was ever taken of it at once.
class PeakDevice final : public test::ForwardingDevice {
  public:
    using ForwardingDevice::ForwardingDevice;
    [[nodiscard]] std::byte* allocate(std::int64_t bytes) override {
        std::byte* const memory = ForwardingDevice::allocate(bytes);
        peak_ = std::max(peak_, bytes_in_use());
        return memory;
    }
    [[nodiscard]] std::int64_t peak_bytes() const { return peak_; }

  private:
    std::int64_t peak_ = 0;
};

/// One rank of several that share a model's rows, on a device of a test.
template <class Device>
struct ShardedRank {
    ShardedRank(Communicator& world, const ModelConfig& configuration)
        : config(configuration),
          mesh(world, {.data = world.size()}),
          cpu(test::plain_device()),
          device(*cpu),
          arena(device),
          compute{device, cpu.stream(), arena},
          weights(device, config, model::Passes::forward_and_backward,
                  {.shards = &mesh.weights()}) {
        model::initialise(weights, {.std = 0.4, .scale_residual = true}, 1, compute);
    }
    Result update(std::int64_t recompute = 0) {
        return updates(compute, weights, mesh.axis(parallel::Axis::data),
                       {.head = {.ids = config.vocab_size}, .recompute = recompute, .zero = 3});
    }
    ModelConfig config;
    parallel::Mesh mesh;
    test::DeviceUnderTest cpu;
    Device device;
    kernels::Arena arena;
    model::Compute compute;
    model::Weights weights;
};

/// A sink of gradients that gives each layer's back, or keeps all of them.
class PassSink final : public model::GradientSink {
  public:
    PassSink(model::Compute& compute, const model::Weights& weights, bool keeps)
        : compute_(compute), weights_(weights), keeps_(keeps) {}
    model::GradientSlot slot(ParameterId id) override {
        const Shape shape = weights_.shape(id);
        if (!keeps_) return {compute_.matrix(shape.rows, shape.cols), kernels::Output::store};
        kept_.emplace_back(compute_.device, shape.size());
        return {{kept_.back().span(), shape.rows, shape.cols}, kernels::Output::store};
    }
    void layer_done(std::int64_t /*layer*/) override {}
    void head_done() override {}
    void embedding(std::span<const TokenId> /*unique*/, kernels::ConstMatrix /*rows*/) override {}

  private:
    model::Compute& compute_;
    const model::Weights& weights_;
    bool keeps_;
    std::vector<kernels::DeviceBuffer<float>> kept_;
};

enum class Work : std::uint8_t { update, pass, pass_that_keeps_all };

/// The most memory that a rank takes for it, of the masters' size.
struct Taken {
    std::int64_t most = 0;
    std::int64_t masters = 0;
};

Taken taken_for(Communicator& world, Work work, std::int64_t layers) {
    ShardedRank<PeakDevice> rank(world, wide_layers(layers));
    rank.arena.reserve(std::int64_t{16} << 20U);  // so that it does not grow in pieces
    const std::vector<model::Microbatch> batches = batches_of(plan_minibatch(Data().sizes, kPlan));
    if (work == Work::update) {
        (void)rank.update(model::kAllLayers);
    } else {
        PassSink sink(rank.compute, rank.weights, work == Work::pass_that_keeps_all);
        const model::HeadOptions head{.ids = rank.config.vocab_size};
        model::TrainingPass pass(rank.compute, rank.weights, head, batches.front(),
                                 model::kAllLayers);
        pass.backward(std::vector<float>(batches.front().head.size(), 0.5F), sink);
    }
    return {rank.device.peak_bytes() + rank.arena.peak_bytes(), rank.weights.bytes()};
}

/// Whether twice as many layers take no more than their shards and what a layer keeps: its input,
/// where the rest is computed again.
bool grows_by_shards_alone(Work work) {
    // Masters; in an update totals and two moments too.
    const std::int64_t shards = work == Work::update ? 4 : 1;
    constexpr std::int64_t kMore = 6;
    std::int64_t rows = 0;
    for (const model::Microbatch& batch : batches_of(plan_minibatch(Data().sizes, kPlan)))
        rows = std::max(rows, batch.rows());
    const ModelConfig config = wide_layers(kMore);
    const std::int64_t activations = kMore * 4 * rows * config.hidden;
    std::array<bool, 2> within{};
    parallel::ThreadWorld(2).run([&](Communicator& world) {
        const Taken few = taken_for(world, work, kMore);
        const Taken many = taken_for(world, work, 2 * kMore);
        within[static_cast<std::size_t>(world.rank())] =
            many.most - few.most <= shards * (many.masters - few.masters) + activations;
    });
    return within[0] && within[1];
}

TEST(ShardedUpdate, NoMoreGradientsAreHeldWholeThanThoseOfTheLayersUnderWay) {
    EXPECT_TRUE(grows_by_shards_alone(Work::update));
    EXPECT_TRUE(grows_by_shards_alone(Work::pass));
    EXPECT_FALSE(grows_by_shards_alone(Work::pass_that_keeps_all)) << "it could not be seen";
}

/// A device on which something happens before a layer's attention, forward or backward, the first
/// time that it is computed.
class HookedDevice final : public test::ForwardingDevice {
  public:
    using ForwardingDevice::ForwardingDevice;
    using Hook = std::function<void(std::int64_t count)>;
    Hook before_forward, before_backward;  ///< told how many came before

    void segment_attention(const kernels::SegmentAttentionArgs& a, S& s) override {
        if (before_forward) before_forward(forward_++);
        ForwardingDevice::segment_attention(a, s);
    }
    void segment_attention_backward(const kernels::SegmentAttentionBackwardArgs& a, S& s) override {
        if (before_backward) before_backward(backward_++);
        ForwardingDevice::segment_attention_backward(a, s);
    }

  private:
    std::int64_t forward_ = 0, backward_ = 0;
};

constexpr std::int64_t kLayers = 6;

/// How often a rank has begun to send weights or gradients.
std::int64_t begun(const parallel::ThreadWorld& world, int rank, std::string_view kind) {
    return test::sent(*world.instruments(rank).traffic, {.over = "data", .kinds = {kind}}).calls;
}

TEST(ShardedUpdate, TheNextLayersWeightsAreOnTheirWayBeforeALayerComputes) {
    parallel::ThreadWorld world(2);
    world.run([&](Communicator& axis) {
        ShardedRank<HookedDevice> rank(axis, config_of(model::Family::llama, kLayers));
        std::vector<std::int64_t> forward, backward;
        const auto note = [&](std::vector<std::int64_t>& in) {
            return [&](std::int64_t count) {
                if (count < kLayers) in.push_back(begun(world, axis.rank(), "weights"));
            };
        };
        rank.device.before_forward = note(forward);
        rank.device.before_backward = note(backward);
        (void)rank.update();
        ASSERT_EQ(forward.size(), static_cast<std::size_t>(kLayers));
        for (std::int64_t layer = 0; layer < kLayers; ++layer) {
            constexpr std::int64_t kEmbedding = 1;
            EXPECT_EQ(forward[static_cast<std::size_t>(layer)],
                      kEmbedding + std::min(layer + 2, kLayers))
                << "layer " << layer;
        }
        const std::int64_t turned = backward.front();
        for (std::int64_t back = 0; back < kLayers; ++back) {  // the first two are still there
            EXPECT_EQ(backward[static_cast<std::size_t>(back)],
                      turned + std::min(back, kLayers - 2))
                << "layer " << kLayers - 1 - back;
        }
    });
}

TEST(ShardedUpdate, ALayersGradientsHaveLeftBeforeTheLayerBelowGoesBack) {
    parallel::ThreadWorld world(2);
    world.run([&](Communicator& axis) {
        ShardedRank<HookedDevice> rank(axis, config_of(model::Family::llama, kLayers));
        std::vector<std::int64_t> backward;
        rank.device.before_backward = [&](std::int64_t count) {
            if (count < kLayers) backward.push_back(begun(world, axis.rank(), "gradients"));
        };
        (void)rank.update();
        for (std::int64_t back = 0; back < kLayers; ++back) {
            constexpr std::int64_t kHead = 1;
            EXPECT_EQ(backward[static_cast<std::size_t>(back)], kHead + back);
        }
    });
}

/// One rank waits for what another does, but not for ever.
class Gate {
  public:
    void open() {
        const std::lock_guard lock(mutex_);
        open_ = true;
        changed_.notify_all();
    }
    [[nodiscard]] bool opens_in_time() {
        std::unique_lock lock(mutex_);
        return changed_.wait_for(lock, std::chrono::seconds(5), [&] { return open_; });
    }

  private:
    std::mutex mutex_;
    std::condition_variable changed_;
    bool open_ = false;
};

/// Rank 1 stands still in a layer until rank 0 has come to the next one: which needs what rank 1
/// has sent already, and nothing that it sends later.
TEST(ShardedUpdate, ARankComputesALayerWhileTheNextLayersWeightsHaveNotCome) {
    Gate gate;
    parallel::ThreadWorld(2).run([&](Communicator& axis) {
        ShardedRank<HookedDevice> rank(axis, config_of(model::Family::llama, kLayers));
        rank.device.before_forward = [&](std::int64_t layer) {
            if (axis.rank() == 0 && layer == 2) gate.open();
            if (axis.rank() != 1 || layer != 1) return;
            EXPECT_TRUE(gate.opens_in_time()) << "layer 3 was waited for before layer 2";
        };
        (void)rank.update();
    });
}

TEST(ShardedUpdate, ARankGoesBackThroughALayerWhileTheGradientsOfTheOneAboveHaveNotCome) {
    Gate gate;
    parallel::ThreadWorld(2).run([&](Communicator& axis) {
        ShardedRank<HookedDevice> rank(axis, config_of(model::Family::llama, kLayers));
        rank.device.before_backward = [&](std::int64_t back) {
            if (axis.rank() == 0 && back == 3) gate.open();
            if (axis.rank() != 1 || back != 2) return;
            EXPECT_TRUE(gate.opens_in_time()) << "gradients were waited for at once";
        };
        (void)rank.update();
    });
}

}  // namespace
}  // namespace rankwise::update
