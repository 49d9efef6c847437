#include "src/stages/rollout_files.hpp"

#include <vector>

#include "io/checkpoint.hpp"

namespace rankwise::stages {

void write_rollouts(io::FileSystem& fs, const io::Path& dir, const parallel::Mesh& mesh,
                    const io::RolloutHeader& header, std::span<const Trajectory> mine) {
    if (mesh.coordinates().tensor > 0 || mesh.coordinates().pipeline > 0) {
        mesh.world().barrier("rollouts:end");
        return;
    }
    parallel::Communicator& data = mesh.axis(parallel::Axis::data);
    const io::Path folder = dir / (io::step_name(header.step) + ".tmp");
    if (data.rank() == 0) (void)io::begin_step(fs, dir, header.step);
    data.barrier("rollouts:begin");
    const std::vector<io::RolloutPart> part{
        io::write_rollout_part(fs, folder, data.rank(), header, mine)};
    const std::vector<io::RolloutPart> parts = data.gather_v("rollouts:parts", part, 0).values;
    if (data.rank() == 0) (void)io::commit_rollouts(fs, dir, header, parts);
    mesh.world().barrier("rollouts:end");
}

}  // namespace rankwise::stages
