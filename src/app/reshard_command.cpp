// rankwise reshard: a checkpoint as another layout would have written it.
#include <fmt/format.h>

#include <cstdio>

#include "io/checkpoint.hpp"
#include "src/app/command_options.hpp"
#include "src/app/commands.hpp"
#include "src/app/engine_options.hpp"
#include "src/app/run_directory.hpp"
#include "src/stages/reshard.hpp"

namespace rankwise::app {
namespace {

/// The ranks to write for, and how [parallel] would divide them.
struct ReshardSettings {
    std::int64_t ranks = 1;
    ParallelOptions parallel;

    [[nodiscard]] OptionList options() {
        OptionList list;
        list.physical("ranks", &ranks, {}, "ranks to write for: a shard each").at_least(1);
        return list;
    }
    [[nodiscard]] stages::ReshardLayout layout(std::vector<std::string>& problems) const {
        stages::ReshardLayout layout{.shape = parallel.shape(narrow<int>(ranks)),
                                     .schedule = parallel::schedule_of(parallel.schedule)};
        for (std::string& problem : parallel::check_shape(layout.shape, narrow<int>(ranks)))
            problems.push_back(std::move(problem));
        return layout;
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
    read_options(arguments, settings.parallel.options(), problems);
    if (!problems.empty()) throw Problems(std::move(problems));
    const stages::ReshardLayout layout = settings.layout(problems);
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
    const io::Path path = stages::reshard(*fs, reader, directory, layout);
    fmt::print("{}: {} shards ({}) of the {} in {}\n", path.string(), layout.shape.ranks(),
               to_string(layout.shape), reader.manifest().files.size(), checkpoint.string());
    return 0;
}

}  // namespace rankwise::app
