// rankwise reshard: a checkpoint as another layout would have written it.
#include <fmt/format.h>

#include <cstdio>

#include "io/checkpoint.hpp"
#include "src/app/command_options.hpp"
#include "src/app/commands.hpp"
#include "src/app/run_directory.hpp"
#include "src/stages/reshard.hpp"

namespace rankwise::app {
namespace {

struct ReshardSettings {
    std::int64_t ranks = 1;
    std::int64_t tensor = 1;

    [[nodiscard]] OptionList options() {
        OptionList list;
        list.physical("ranks", &ranks, {}, "ranks to write for: a shard each").at_least(1);
        list.physical("tensor", &tensor, {}, "tensor ranks among them").at_least(1);
        return list;
    }
};

std::int64_t bytes_of(const io::Manifest& manifest) {
    std::int64_t bytes = 0;
    for (const io::ShardEntry& file : manifest.files) bytes += file.bytes;
    return bytes;
}

}  // namespace

int run_reshard(const Arguments& arguments) {
    const auto fs = io::posix_file_system();
    ReshardSettings settings;
    std::vector<std::string> problems;
    read_options(arguments, settings.options(), problems);
    const parallel::MeshShape shape = parallel::fill_data(
        {.data = 0, .tensor = narrow<int>(settings.tensor)}, narrow<int>(settings.ranks));
    for (std::string& problem : parallel::check_shape(shape, narrow<int>(settings.ranks)))
        problems.push_back(std::move(problem));
    if (!problems.empty()) throw Problems(std::move(problems));

    const io::Path checkpoint = checkpoint_at(*fs, arguments.positional.at(0));
    io::CheckpointReader reader(*fs, checkpoint);
    const io::Path directory = arguments.positional.at(1);
    const io::Path target = directory / io::step_name(reader.state().step);
    require(!fs->exists(target),
            "{} is there already: give another folder (a run directory's checkpoints would be "
            "replaced)",
            target.string());
    fs->create_directories(directory);
    io::require_space(*fs, directory, bytes_of(reader.manifest()), "the new checkpoint");
    const io::Path path = stages::reshard(*fs, reader, directory, shape);
    fmt::print("{}: {} shards (data {}, tensor {}) of the {} in {}\n", path.string(), shape.ranks(),
               shape.data, shape.tensor, reader.manifest().files.size(), checkpoint.string());
    return 0;
}

}  // namespace rankwise::app
