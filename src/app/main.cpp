#include "src/app/commands.hpp"
#include "src/app/launch.hpp"

int main(int argc, char** argv) {
    return rankwise::app::launch(argc, argv, rankwise::app::all_commands());
}
