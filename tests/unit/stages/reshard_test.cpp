// A checkpoint that is written anew for a layout is what ranks of that layout would have saved.
#include "src/stages/reshard.hpp"

#include <filesystem>

#include "src/stages/checkpointing.hpp"
#include "tests/unit/stages/toy_run.hpp"

namespace rankwise::stages {
namespace {

/// A stage whose optimizer has the weights as first moments: what is saved depends on no layout.
class WithMoments final : public Stage {
  public:
    WithMoments(const Environment& environment, int zero)
        : weights_(environment.models.at("policy")),
          owners_(weights_.shapes(), environment.data().size(), weights_.frozen(),
                  weights_.data_ranks()),
          optimizer_(environment.compute, weights_, owners_, environment.data(), zero, {}) {
        for (const parallel::ShardPiece& piece : optimizer_.pieces()) {
            const ParameterId id = piece.parameter;
            const std::int64_t before = piece.rows.begin - weights_.held_rows(id).begin;
            environment.compute.device.copy(
                cast_span<const std::byte>(DeviceSpan<const float>(weights_.master_span(id).subspan(
                    before * weights_.shape(id).cols, piece.size))),
                cast_span<std::byte>(optimizer_.first_moments().subspan(piece.offset, piece.size)),
                environment.compute.stream);
        }
    }
    [[nodiscard]] std::int64_t steps() const override { return 1; }
    StepResult step(std::int64_t) override { return {}; }
    [[nodiscard]] std::vector<OptimizerState> optimizers() override {
        return {{"policy", &optimizer_}};
    }

  private:
    model::Weights& weights_;
    parallel::ShardMap owners_;
    update::Adamw optimizer_;
};

/// A table of more than one piece, whose borders lie within rows; four layers, of which three have
/// eight experts, and a module that predicts further.
model::ModelConfig several_pieces() {
    model::ModelConfig config = test::small_config(model::Family::deepseek_v3);
    config.vocab_size = 6000;
    config.hidden = 48;
    config.layers = 4;
    config.extra_layers = 1;
    return config;
}

struct LayoutCase {
    parallel::MeshShape shape;
    std::int64_t zero = 1;
    parallel::Schedule schedule = parallel::Schedule::one_forward_one_backward;
    bool trains_modules = false;
};

class Reshard : public testing::Test {
  protected:
    Reshard()
        : folder_(std::filesystem::temp_directory_path() /
                  fmt::format("rankwise_reshard_{}", getpid())) {
        std::filesystem::remove_all(folder_);
        std::filesystem::create_directories(folder_);
    }
    ~Reshard() override { std::filesystem::remove_all(folder_); }

    /// What ranks of a layout save.
    io::Path save(const std::string& name, const LayoutCase& layout) {
        parallel::ThreadWorld world(narrow<int>(layout.shape.ranks()));
        world.run([&](parallel::Communicator& communicator) {
            PhysicalOptions physical;
            physical.zero = layout.zero;
            physical.schedule = layout.schedule;
            physical.trains_modules = layout.trains_modules;
            test::ToyRun run(communicator, layout.shape, config_, physical);
            WithMoments stage(run.environment, narrow<int>(layout.zero));
            Checkpointer checkpointer(*fs_, folder_ / name, run.environment, {}, false,
                                      [](const io::Path&) {});
            if (communicator.rank() == 0) fs_->create_directories(folder_ / name);
            communicator.barrier("test");
            checkpointer.save(stage,
                              {.stage = "idle", .step = 1, .mesh = mesh_record(layout.shape)});
        });
        return folder_ / name / io::step_name(1);
    }

    model::ModelConfig config_ = several_pieces();
    std::filesystem::path folder_;
    std::unique_ptr<io::FileSystem> fs_ = io::posix_file_system();
};

TEST_F(Reshard, WritesForEveryLayoutTheBytesThatItsRanksWouldHaveSaved) {
    const io::Path plain = save("plain", {});
    const auto interleaved = parallel::Schedule::interleaved;
    const LayoutCase layouts[] = {
        {{.data = 3}},
        {{.data = 2}, 3},
        {{.tensor = 4}},
        {{.pipeline = 2}},
        {{.pipeline = 2}, 1, interleaved},
        {{.data = 2, .expert = 2}, 0},
        {{.data = 4, .tensor = 2, .expert = 4}, 3},
        {{.data = 2, .tensor = 4, .expert = 2}, 3},
        {{.data = 2, .pipeline = 2, .tensor = 2, .expert = 4}, 3, interleaved},
    };
    int number = 0;
    for (const LayoutCase& layout : layouts) {
        SCOPED_TRACE(fmt::format("{}, zero {}, {}", to_string(layout.shape), layout.zero,
                                 parallel::name_of(layout.schedule)));
        const std::string name = fmt::format("layout_{}", number++);
        const io::Manifest expected = io::read_manifest(*fs_, save(name, layout));
        io::CheckpointReader reader(*fs_, plain);
        const io::Path made =
            reshard(*fs_, reader, folder_ / (name + "_made"), {layout.shape, layout.schedule});
        // Its files' boxes, sizes and checksums among it.
        EXPECT_EQ(io::read_manifest(*fs_, made), expected);
    }
}

TEST_F(Reshard, APipelineIsBalancedAsInTheRunWithModulesThatTrain) {
    config_.vocab_size = 40;  // so that the head leaves the last stage layers to give away
    config_.layers = 6;
    const LayoutCase layout{.shape = {.pipeline = 2}, .trains_modules = true};
    const auto last_stage = [&](bool with_modules) {
        return model::pipeline_part(config_, {2, 1, 1, with_modules}).layer_count();
    };
    ASSERT_LT(last_stage(true), last_stage(false));
    io::CheckpointReader reader(*fs_, save("plain", {.trains_modules = true}));
    const io::Manifest expected = io::read_manifest(*fs_, save("dealt", layout));
    const io::Path made = reshard(*fs_, reader, folder_ / "made", {layout.shape});
    EXPECT_EQ(io::read_manifest(*fs_, made), expected);
}

TEST_F(Reshard, FromAnyLayoutTheFilesOfOneRankComeBack) {
    const io::Manifest plain = io::read_manifest(*fs_, save("plain", {}));
    const io::Path split = save("split", {{.data = 2, .pipeline = 2, .tensor = 2, .expert = 2}, 3});
    io::CheckpointReader reader(*fs_, split);
    const io::Path made = reshard(*fs_, reader, folder_ / "made", {});
    EXPECT_EQ(io::read_manifest(*fs_, made), plain);
    EXPECT_EQ(plain.state.mesh.at("expert"), 1);
    EXPECT_EQ(reader.state().mesh.at("expert"), 2);
}

TEST_F(Reshard, RefusesEveryDegreeThatTheModelCannotHaveWithThoseThatItCan) {
    const io::Path plain = save("plain", {});
    io::CheckpointReader reader(*fs_, plain);
    const parallel::MeshShape shape{.data = 10, .pipeline = 5, .tensor = 3, .expert = 30};
    try {
        (void)reshard(*fs_, reader, folder_ / "made", {shape});
        FAIL() << "written";
    } catch (const BadInput& problem) {
        const std::string text = problem.what();
        EXPECT_NE(text.find("--tensor = 3"), std::string::npos) << text;
        EXPECT_NE(text.find("over 1, 2, 4 ranks"), std::string::npos) << text;
        EXPECT_NE(text.find("--expert = 30: the 8 experts"), std::string::npos) << text;
        EXPECT_NE(text.find("over 1, 3, 6 ranks where tensor = 3"), std::string::npos) << text;
        EXPECT_NE(text.find("at most 4 pipeline ranks"), std::string::npos) << text;
    }
    EXPECT_FALSE(fs_->exists(folder_ / "made"));
}

}  // namespace
}  // namespace rankwise::stages
