// Saving and restoring a stage: models' weights and optimizers' moments as boxes, scalars in the
// manifest.
#pragma once

#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "io/async_writer.hpp"
#include "io/checkpoint.hpp"
#include "io/checkpoint_reader.hpp"
#include "src/base/host_buffer.hpp"
#include "src/stages/stage.hpp"

namespace rankwise::stages {

/// Kinds of saved tensors.
inline constexpr const char* kWeightsKind = "weights";
inline constexpr const char* kFirstMomentKind = "adam_m";
inline constexpr const char* kSecondMomentKind = "adam_v";

/// What a checkpoint says of the ranks that wrote it: axis → degree.
[[nodiscard]] std::map<std::string, std::int64_t> mesh_record(const parallel::MeshShape& shape);

/// Names of what a checkpoint keeps, among its state's values, so that its models can be used
/// without the recipe: a model's config.json, and the tokenizer's files.
[[nodiscard]] std::string config_value(const std::string& model);
[[nodiscard]] std::string tokenizer_value(const std::string& file);
/// Whether the saved moments of a model are also those of its module that predicts further: there
/// if so.
[[nodiscard]] std::string mtp_value(const std::string& model);

/// Whether the pipeline that saved was balanced with modules that predict further: there if so.
inline constexpr const char* kWithModules = "pipeline.with_modules";

/// Which checkpoints stay: io::prune.
struct Retention {
    std::int64_t keep_last = 1;
    std::int64_t keep_every = 0;
};

/// Writes a run's checkpoints, while the next steps compute if `background`: one I/O thread reads
/// what a rank saves where it lies, and what it has not read when that is about to change
/// (model::Compute::before_change: in most steps nothing) is copied first, in memory that is kept
/// for the next save. Every data rank writes the rows that it owns (the same whatever `zero` is);
/// rank 0 commits. Members are collective over all ranks, unless they say otherwise.
class Checkpointer {
  public:
    /// @param saved  told on rank 0 of each checkpoint that has become whole
    Checkpointer(io::FileSystem& fs, io::Path directory, const Environment& environment,
                 Retention retention, bool background, std::function<void(const io::Path&)> saved);
    Checkpointer(const Checkpointer&) = delete;
    Checkpointer& operator=(const Checkpointer&) = delete;
    ~Checkpointer();

    /// Completes the save before, then starts this one. Models and moments may change as soon as it
    /// returns, and must be there until the stage ends.
    /// @param state  what the run knows of itself; the stage's own scalars are added
    /// @throws EnvironmentError if files cannot be written: now, or from a later call.
    void save(Stage& stage, io::RunState state);
    /// Commits what is under way if every rank has written its part. For between steps: one small
    /// reduction while a save is under way, nothing otherwise.
    void poll();
    /// Waits until the save under way is whole.
    void finish();

    /// Of a stage that saves: made after it, so that it ends before. What is under way is read from
    /// its memory, and waited for then, on this rank alone; copies' memory is given back. Where the
    /// stage ends by an exception what is under way is given up instead: it can no longer become
    /// whole, and the error must not wait for a disk.
    class StageScope {
      public:
        explicit StageScope(Checkpointer& checkpointer) : checkpointer_(checkpointer) {}
        StageScope(const StageScope&) = delete;
        StageScope& operator=(const StageScope&) = delete;
        ~StageScope() { checkpointer_.end_stage(std::uncaught_exceptions() > exceptions_); }

      private:
        Checkpointer& checkpointer_;
        int exceptions_ = std::uncaught_exceptions();
    };

  private:
    struct Pending;
    void end_stage(bool fails) noexcept;
    void commit(const std::shared_ptr<Pending>& pending);

    io::FileSystem& fs_;
    io::Path directory_;
    const Environment& environment_;
    Retention retention_;
    bool background_;
    std::function<void(const io::Path&)> saved_;
    std::shared_ptr<Pending> pending_;  ///< shared with the job
    std::vector<HostBuffer> spare_;     ///< copies of the stage's saves before
    io::AsyncWriter writer_;            ///< last: its thread ends before what it uses
};

/// Reads one model's weights, whatever layout wrote them, and packs. Every rank reads for itself.
/// @throws CorruptFile, BadInput as CheckpointReader.
void load_weights(io::CheckpointReader& reader, const std::string& name, model::Weights& weights,
                  model::Compute& compute);

/// Puts a stage that was just made into the state that `reader` holds: its models, optimizers and
/// scalars. Collective. Of what several data ranks hold each reads the rows that it would save and
/// gets the others from them, so that the data axis reads the files once, and a rank of the layout
/// that wrote them its own.
/// @throws CorruptFile, BadInput as CheckpointReader, on the rank that finds it: the others wait.
void restore_stage(io::CheckpointReader& reader, const Environment& environment, Stage& stage);

}  // namespace rankwise::stages
