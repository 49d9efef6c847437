// Writes a sample checkpoint, a view of it in two places, and sample rollouts for h5py_test.py.
#include <cstdio>

#include "io/checkpoint_view.hpp"
#include "tests/unit/io/sample_checkpoint.hpp"
#include "tests/unit/io/sample_rollouts.hpp"

int main(int argc, char** argv) {
    using namespace rankwise::io;
    if (argc != 2) return 2;
    try {
        const Path dir = argv[1];
        const auto fs = posix_file_system();
        const Path checkpoint = test::save_sample(*fs, dir / "checkpoints", 120, 3, 1, true);
        build_view(*fs, checkpoint, "policy", checkpoint / "model.h5");
        build_view(*fs, checkpoint, "policy", dir / "elsewhere.h5");
        test::write_sample_rollouts(*fs, dir / "rollouts", 120, test::sample_trajectories(20));
    } catch (const rankwise::Error& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return static_cast<int>(error.code());
    }
    return 0;
}
