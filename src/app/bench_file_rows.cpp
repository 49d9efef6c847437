// Rows of `rankwise bench`: checkpoints, beside plain files of as many bytes.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include "src/app/bench_rows.hpp"
#include "src/app/bench_update.hpp"
#include "src/base/numerics_version.hpp"
#include "src/stages/checkpointing.hpp"

namespace rankwise::app {
namespace {

constexpr std::int64_t kPlainBlock = std::int64_t{8} << 20;
constexpr std::int64_t kKept = 2;  // checkpoints that lie there when one was saved

/// A stage that has a policy and its moments, and does the model's usual update.
class Trained final : public stages::Stage {
  public:
    Trained(BenchContext& context, const BenchModel& model, model::Weights& policy)
        : update_(context, model, policy) {}
    [[nodiscard]] std::int64_t steps() const override { return 1; }
    stages::StepResult step(std::int64_t /*index*/) override {
        update_.step();
        return {};
    }
    [[nodiscard]] std::vector<stages::OptimizerState> optimizers() override {
        return {{"policy", &update_.trainer().optimizer()}};
    }

  private:
    BenchUpdate update_;
};

/// Makes the system forget what it holds of a file, or of the files of a folder: the next read is
/// of the disk.
void forget(io::FileSystem& files, const io::Path& path) {
    std::vector<io::Path> all{path};
    if (std::filesystem::is_directory(path)) {
        for (const std::string& name : files.list(path)) all.push_back(path / name);
    }
    for (const io::Path& file : all) {
        const int descriptor = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
        if (descriptor < 0) continue;
        (void)::posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED);
        ::close(descriptor);
    }
}

/// A checkpoint of a model with its moments, and one plain file a rank with as many bytes.
class Files {
  public:
    Files(BenchContext& context, const BenchModel& model)
        : context_(context),
          models_(context.models(model)),
          policy_(models_.at("policy")),
          environment_{.compute = context.compute(),
                       .mesh = context.mesh(),
                       .models = models_,
                       .task = task_,
                       .log = log_,
                       .clock = context.clock(),
                       .seed = 1,
                       .physical = context.physical()},
          stage_(context, model, policy_),
          folder_(context.options().folder),
          saver_(context.files(), folder_ / "checkpoints", environment_, {.keep_last = kKept},
                 false, [](const io::Path&) {}),
          background_(context.files(), folder_ / "checkpoints", environment_, {.keep_last = kKept},
                      true, [](const io::Path&) {}),
          plain_(folder_ / fmt::format("plain_{:05}", context.world().rank())),
          bytes_(3 * policy_.bytes()) {
        context.files().create_directories(folder_);
        block_.resize(static_cast<std::size_t>(kPlainBlock), std::byte{7});
    }
    Files(const Files&) = delete;
    Files& operator=(const Files&) = delete;
    ~Files() {
        context_.world().barrier("bench:files");
        if (context_.world().rank() == 0) context_.files().remove_tree(folder_);
    }

    /// Of all ranks.
    [[nodiscard]] std::int64_t bytes() const { return bytes_; }

    double save() { return saved_by(saver_); }
    double step() {
        return timed([&] { (void)stage_.step(0); });
    }
    /// A step while a checkpoint is written. How long the run waits for that: to begin it, and
    /// before the optimizer changes what is not written yet.
    struct StepBeside {
        double stall_s, step_s;
    };
    StepBeside step_beside_save() {
        StepBeside times{.stall_s = saved_by(background_), .step_s = 0.0};
        std::function<void()>& before_change = context_.compute().before_change;
        before_change = [&, keep = std::exchange(before_change, {})] {
            const double begin_s = context_.clock().now_s();
            keep();
            times.stall_s += context_.clock().now_s() - begin_s;
        };
        times.step_s = step();
        background_.finish();
        return times;
    }
    double write_plain() {
        context_.files().remove_tree(plain_);  // as a checkpoint, it is written anew
        return timed([&] {
            const auto file = context_.files().open(plain_, io::OpenMode::create);
            for (std::int64_t at = 0; at < mine(); at += kPlainBlock)
                file->write_at(at, std::span(block_).first(piece(at)));
            file->sync();
        });
    }
    double load() {
        const io::Path path = folder_ / "checkpoints" / io::step_name(step_);
        forget(context_.files(), path);
        return timed([&] {
            io::CheckpointReader reader(context_.files(), path, context_.world().size() == 1);
            stages::restore_stage(reader, environment_, stage_);
        });
    }
    double read_plain() {
        forget(context_.files(), plain_);
        return timed([&] {
            const auto file = context_.files().open(plain_, io::OpenMode::read);
            for (std::int64_t at = 0; at < mine(); at += kPlainBlock)
                (void)file->read_at(at, std::span(block_).first(piece(at)));
        });
    }

  private:
    double saved_by(stages::Checkpointer& saver) {
        // As with the plain file: what is not needed any more goes before the clock starts.
        if (context_.world().rank() == 0)
            (void)io::prune(context_.files(), folder_ / "checkpoints", 1, 0);
        return timed([&] {
            saver.save(stage_, {.stage = "bench",
                                .step = ++step_,
                                .seed = 1,
                                .numerics_version = kNumericsVersion,
                                .mesh = stages::mesh_record(environment_.mesh.shape())});
        });
    }
    [[nodiscard]] std::int64_t mine() const { return bytes_ / context_.world().size(); }
    [[nodiscard]] std::size_t piece(std::int64_t at) const {
        return static_cast<std::size_t>(std::min(kPlainBlock, mine() - at));
    }
    /// Until the last rank is done.
    double timed(const auto& work) {
        context_.world().barrier("bench:files");
        const double begin_s = context_.clock().now_s();
        work();
        context_.world().barrier("bench:files");
        return context_.clock().now_s() - begin_s;
    }

    BenchContext& context_;
    model::ModelSet& models_;
    model::Weights& policy_;
    stages::TaskData task_ = {
        .kind = "bench",
        .tokenizer = text::Tokenizer::from_json(
            R"({"version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": null,
                "post_processor": null, "decoder": null,
                "model": {"type": "WordLevel", "unk_token": "<unk>", "vocab": {"<unk>": 0}}})",
            "bench")};
    Log log_;
    stages::Environment environment_;
    Trained stage_;
    io::Path folder_;
    stages::Checkpointer saver_, background_;
    io::Path plain_;
    std::int64_t bytes_;
    std::int64_t step_ = 0;
    std::vector<std::byte> block_;
};

RowFacts facts_of(const Files& files) {
    const auto bytes = static_cast<double>(files.bytes());
    return {.work = {.bytes = bytes}, .units = bytes / 1e9, .unit = "GB"};
}

BenchRow file_row(const BenchModel& model, bool reading) {
    return {.name = fmt::format("checkpoint/{}/{}", reading ? "read" : "write", model.name),
            .what = reading ? "weights and moments restored, from the disk, beside plain files"
                            : "weights and moments saved and synced, beside plain files",
            .run = [=](BenchContext& context, Meter& meter) -> RowFacts {
                Files files(context, model);
                (void)files.save();
                (void)files.write_plain();
                while (meter.more()) {
                    const double ours_s = reading ? files.load() : files.save();
                    meter.sample_against(ours_s, reading ? files.read_plain() : files.write_plain(),
                                         "plain file");
                }
                return facts_of(files);
            }};
}

/// The share is that of a step: how often it could wait so long.
BenchRow stall_row(const BenchModel& model) {
    return {.name = fmt::format("checkpoint/stall/{}", model.name),
            .what = "what an update waits for a save that is written beside it",
            .run = [=](BenchContext& context, Meter& meter) -> RowFacts {
                Files files(context, model);
                (void)files.step();
                while (meter.more()) {
                    const Files::StepBeside beside = files.step_beside_save();
                    const double step_s = files.step();
                    meter.sample_against(beside.stall_s, step_s, "step");
                    meter.part("step alone", step_s);
                    meter.part("step beside the save", beside.step_s);
                }
                return facts_of(files);
            }};
}

}  // namespace

void append_file_rows(const BenchSizes& sizes, std::vector<BenchRow>& rows) {
    for (const BenchModel& model : sizes.models) {
        rows.push_back(file_row(model, false));
        rows.push_back(file_row(model, true));
        rows.push_back(stall_row(model));
    }
}

}  // namespace rankwise::app
