// The directory of a run: its files, who may use it, and where to go on.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/checkpoint.hpp"
#include "io/fs.hpp"
#include "src/app/recipe.hpp"
#include "src/app/run_options.hpp"
#include "src/app/session.hpp"
#include "src/base/log.hpp"

namespace rankwise::app {

/// Names of the files of a run (see README.md of this folder).
struct RunPaths {
    io::Path root;
    [[nodiscard]] io::Path recipe() const { return root / "recipe.ini"; }
    [[nodiscard]] io::Path metrics() const { return root / "metrics.jsonl"; }
    [[nodiscard]] io::Path samples() const { return root / "samples.jsonl"; }
    [[nodiscard]] io::Path memory() const { return root / "memory.jsonl"; }
    [[nodiscard]] io::Path report() const { return root / "report.html"; }
    [[nodiscard]] io::Path checkpoints() const { return root / "checkpoints"; }
    [[nodiscard]] io::Path rollouts() const { return root / "rollouts"; }
    [[nodiscard]] io::Path traces() const { return root / "traces"; }
    [[nodiscard]] io::Path models() const { return root / "models"; }
    [[nodiscard]] io::Path data() const { return root / "data"; }
    [[nodiscard]] io::Path offload() const { return root / "offload"; }
    [[nodiscard]] io::Path lock() const { return root / "run.lock"; }
    /// logs/rank_00005.log
    [[nodiscard]] io::Path log(int rank) const;
};

/// Where a run goes on.
struct ResumePoint {
    std::optional<io::Path> checkpoint = {};  ///< nothing: from the start
    std::vector<std::string> notes = {};  ///< for the log: what was tidied, which were passed by
};

/// A run directory in use by this run and nobody else.
class RunDirectory {
  public:
    /// Collective. Rank 0 makes the directories, takes the lock and tidies what a dead writer left.
    /// @throws StartRefused on all ranks: no permission, no space, in use by a live run (which is
    /// named).
    RunDirectory(io::FileSystem& fs, io::Path root, Session& session);

    [[nodiscard]] const RunPaths& paths() const { return paths_; }

    /// Collective. Finds the checkpoint to go on from: the newest whole one, or that of
    /// [resume] step; compares its logical options with `recipe`'s.
    /// @throws StartRefused on all ranks: a logical option differs and is not accepted (all that
    /// differ are listed); another numerics version; the step asked for is not there or not whole
    /// (code 4, names the way out); every checkpoint is damaged.
    [[nodiscard]] ResumePoint find_resume(const Recipe& recipe, const ResumeOptions& resume,
                                          Session& session);

    /// Rank 0: writes recipe.ini, replacing it as a whole. Elsewhere nothing.
    void write_recipe(const Recipe& recipe, const Session& session);

    /// This rank's log.
    [[nodiscard]] Log open_log(int rank, std::string_view level) const;

  private:
    [[nodiscard]] ResumePoint choose(const ResumeOptions& resume) const;
    void check_same_logic(const io::Path& checkpoint, const Recipe& recipe,
                          const ResumeOptions& resume) const;

    io::FileSystem& fs_;
    RunPaths paths_;
    std::unique_ptr<io::Lock> lock_;  ///< rank 0
    std::vector<std::string> tidied_;
};

/// The checkpoint that a path of a command stands for: a run directory for its newest whole one.
/// @throws BadInput if the run has none yet.
[[nodiscard]] io::Path checkpoint_at(io::FileSystem& fs, const io::Path& path);

/// The directory of a run without [run] directory: runs/<recipe's name>.
[[nodiscard]] io::Path default_directory(const io::Path& recipe_file);

/// What differs between the options saved in a checkpoint and `recipe`, less those accepted; one
/// line each.
[[nodiscard]] std::vector<std::string> refused_changes(std::string_view saved_options,
                                                       const Recipe& recipe,
                                                       const std::vector<std::string>& accepted);

}  // namespace rankwise::app
