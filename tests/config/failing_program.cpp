// A program with the launch of rankwise and commands that fail in every way, for launch_test.py.
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <iostream>
#include <new>
#include <thread>

#include "src/app/launch.hpp"
#include "src/app/session.hpp"
#include "src/app/stop.hpp"

namespace rankwise::app {
namespace {

void wait_for_others(Session& session) {
    session.world().barrier("wait");
}

/// `one WHAT`: rank 1 throws, the others wait for it.
int one(const Arguments& arguments, Session& session) {
    const std::string& what = arguments.positional.at(0);
    session.recorder()->set_phase("update", 1203);
    if (session.rank() == 1) {
        if (what == "numbers") throw BadNumbers("the loss is not finite");
        if (what == "corrupt") throw CorruptFile("shard damaged");
        if (what == "defect") throw std::logic_error("index out of range");
        if (what == "memory") throw std::bad_alloc();
        if (what == "unknown") throw 3;
        if (what == "thread") std::thread([] { throw BadNumbers("in a thread"); }).join();
        if (what == "exit") _exit(9);
    }
    wait_for_others(session);
    return 0;
}

/// All ranks meet the same error.
int all(const Arguments&, Session& session) {
    session.recorder()->set_phase("score", 7);
    throw BadNumbers("the reward is not finite");
}

/// Problems at start: one that all have, one of rank 1.
int start(const Arguments&, Session& session) {
    session.start_together([&] {
        if (session.rank() == 1) throw Problems({"no such model", "too little memory here"});
        throw Problems({"no such model"});
    });
    return 0;
}

/// Works until it is told to stop; --limit SECONDS.
int work(const Arguments& arguments, Session& session) {
    const StopConditions stop(std::stod(arguments.get("limit", "0")),
                              std::make_shared<SteadyClock>());
    if (session.rank() == 0) std::cout << "working " << getpid() << std::endl;
    for (;;) {
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        const StopReason reason = stop.agreed(session.world());
        if (reason == StopReason::none) continue;
        if (session.rank() == 0) std::cout << "stopped by " << name_of(reason) << std::endl;
        return static_cast<int>(ExitCode::requeue);
    }
}

/// Rank 1 never comes; the watchdog says so and ends the job.
int hang(const Arguments&, Session& session) {
    const auto watchdog =
        session.start_watchdog(0.5, 0.5, [](const std::string& line) { std::cerr << line + "\n"; });
    session.recorder()->set_phase("generate", 4);
    if (session.rank() == 1) std::this_thread::sleep_for(std::chrono::seconds(60));
    wait_for_others(session);
    return 0;
}

}  // namespace
}  // namespace rankwise::app

int main(int argc, char** argv) {
    using rankwise::app::Command;
    const std::vector<Command> commands{
        {.name = "one", .positional = "WHAT", .on_ranks = rankwise::app::one},
        {.name = "all", .on_ranks = rankwise::app::all},
        {.name = "start", .on_ranks = rankwise::app::start},
        {.name = "work", .options = {{"limit", "SECONDS", ""}}, .on_ranks = rankwise::app::work},
        {.name = "hang", .on_ranks = rankwise::app::hang},
    };
    return rankwise::app::launch(argc, argv, commands);
}
