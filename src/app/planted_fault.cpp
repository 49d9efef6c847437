#include "src/app/planted_fault.hpp"

#include <chrono>
#include <csignal>
#include <thread>

#include "src/base/error.hpp"

namespace rankwise::app {

void PlantedFault::enter(std::string_view phase, std::int64_t step) const {
    if (phase != options_.throw_in || rank_ != options_.throw_rank) return;
    if (options_.throw_at > 0 && step != options_.throw_at) return;
    if (options_.throw_as == "kill") std::raise(SIGKILL);
    while (options_.throw_as == "hang") std::this_thread::sleep_for(std::chrono::seconds(1));
    throw EnvironmentError("planted fault: [faults] throw_in asks for it");
}

}  // namespace rankwise::app
