// rankwise view: a file with the whole tensors of a checkpoint.
#include <fmt/format.h>

#include <cstdio>

#include "io/checkpoint.hpp"
#include "io/checkpoint_view.hpp"
#include "src/app/commands.hpp"
#include "src/app/run_directory.hpp"

namespace rankwise::app {

int run_view(const Arguments& arguments) {
    const auto fs = io::posix_file_system();
    io::Path checkpoint = arguments.positional.at(0);
    // A run directory stands for its newest checkpoint.
    const RunPaths run{checkpoint};
    if (fs->exists(run.checkpoints())) {
        const io::Found found = io::find_latest(*fs, run.checkpoints(), io::Check::sizes);
        require(found.path.has_value(), "{} has no whole checkpoint yet", checkpoint.string());
        checkpoint = *found.path;
    }
    const io::Path output = arguments.get("output", (checkpoint / "model.h5").string());
    io::build_view(*fs, checkpoint, arguments.get("model", "policy"), output);
    fmt::print("{}\n", output.string());
    return 0;
}

}  // namespace rankwise::app
