// rankwise view: a file with the whole tensors of a checkpoint.
#include <fmt/format.h>

#include <cstdio>

#include "io/checkpoint_view.hpp"
#include "src/app/commands.hpp"
#include "src/app/run_directory.hpp"

namespace rankwise::app {

int run_view(const Arguments& arguments) {
    const auto fs = io::posix_file_system();
    const io::Path checkpoint = checkpoint_at(*fs, arguments.positional.at(0));
    const io::Path output = arguments.get("output", (checkpoint / "model.h5").string());
    io::build_view(*fs, checkpoint, arguments.get("model", "policy"), output);
    fmt::print("{}\n", output.string());
    return 0;
}

}  // namespace rankwise::app
