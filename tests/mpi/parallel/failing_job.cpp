// A job as the program runs one, on several ranks: `failing_job PHASE RANK CODE` computes steps
// until rank RANK throws in PHASE with exit code CODE while the others wait for it. See
// failing_job_test.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "parallel/mpi_session.hpp"
#include "parallel/watchdog.hpp"

namespace {

using rankwise::Error;
using rankwise::ExitCode;
using rankwise::parallel::Communicator;
using rankwise::parallel::Instruments;
using rankwise::parallel::MpiSession;
using rankwise::parallel::Watchdog;

struct Fault {
    std::string phase;
    int rank = 0;
    ExitCode code = ExitCode::internal;
};

void enter(Communicator& world, const std::string& phase, std::int64_t step, const Fault& fault) {
    world.instruments().recorder->set_phase(phase, step);
    if (step != 2 || phase != fault.phase || world.rank() != fault.rank) return;
    if (phase == "hang") std::this_thread::sleep_for(std::chrono::seconds(60));
    throw Error(fault.code, "planted in " + phase);
}

void run(Communicator& world, const Fault& fault) {
    const auto data = world.split(0, world.rank(), "data");
    std::vector<std::int64_t> numbers(1 << 16);
    std::vector<std::int64_t> all(numbers.size() * static_cast<std::size_t>(world.size()));
    std::vector<std::int64_t> others(all.size());
    for (std::int64_t step = 1; step <= 3; ++step) {
        enter(world, "generate", step, fault);
        auto request = data->start_all_gather("free slots", numbers, all);
        enter(world, "overlap", step, fault);  // with a request under way
        request.wait();
        enter(world, "update", step, fault);
        data->all_to_all("gradients", all, others);
        enter(world, "ring", step, fault);
        const int next = (world.rank() + 1) % world.size();
        const int previous = (world.rank() + world.size() - 1) % world.size();
        world.send_receive("ring", all, next, others, previous);
        enter(world, "hang", step, fault);
        enter(world, "checkpoint", step, fault);
        world.barrier("checkpoint");
    }
}

Watchdog::Options watchdog_options(MpiSession& session) {
    Watchdog::Options options;
    options.timeout_s = 1.0;
    options.end_after_s = 1.0;
    options.poll_s = 0.05;
    options.world_size = session.size();
    options.identity = session.identity();
    options.exchange = session.state_exchange();
    options.report = [](const std::string& line) { std::fprintf(stderr, "%s\n", line.c_str()); };
    options.end_job = [&session] { session.abort(ExitCode::environment); };
    return options;
}

}  // namespace

int main(int argc, char** argv) {
    MpiSession session(argc, argv);
    Instruments instruments{std::make_shared<rankwise::parallel::FlightRecorder>(),
                            std::make_shared<rankwise::parallel::Traffic>()};
    const Fault fault{argv[1], std::atoi(argv[2]), static_cast<ExitCode>(std::atoi(argv[3]))};
    if (fault.phase == "unwinding") {
        // Nobody catches: the session aborts the job from its destructor, or the run-time library
        // ends the process.
        const auto world = session.world(instruments);
        if (world->rank() == fault.rank) throw Error(fault.code, "planted in unwinding");
        world->barrier("never");
        return 0;
    }
    try {
        const auto world = session.world(instruments);
        Watchdog watchdog({{session.rank(), instruments.recorder}}, watchdog_options(session));
        if (fault.phase == "hang") watchdog.start();
        run(*world, fault);
    } catch (const Error& error) {
        const auto state = instruments.recorder->state();
        std::fprintf(stderr, "[%s phase=%s step=%lld] %s\n", session.identity().c_str(),
                     state.phase.c_str(), static_cast<long long>(state.step), error.what());
        session.abort(error.code());
    }
    return 0;
}
