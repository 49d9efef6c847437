#include "src/app/launch.hpp"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <thread>

#include "parallel/mpi_session.hpp"
#include "src/app/build_facts.hpp"
#include "src/app/command.hpp"
#include "src/app/failure.hpp"
#include "src/app/session.hpp"
#include "src/app/stop.hpp"

namespace rankwise::app {
namespace {

constexpr double kStallSeconds = 300.0;

int code_of(ExitCode code) {
    return static_cast<int>(code);
}

void print_error(const std::string& text) {
    // One write, so that lines of several ranks do not mix.
    const std::string line = text + "\n";
    std::fwrite(line.data(), 1, line.size(), stderr);
    std::fflush(stderr);
}

/// What a launcher says of this process before MPI starts; 0 without a launcher.
int launcher_rank() {
    for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"}) {
        if (const char* rank = std::getenv(name)) return std::atoi(rank);
    }
    return 0;
}

/// What was printed goes through the launcher, by another way than the end of the job: returns when
/// the launcher has read it, so that the cause stands before what the launcher says of its own.
void let_launcher_read() {
    using std::chrono::milliseconds;
    for (int i = 0; i < 100; ++i) {
        int unread = 0;
        if (::ioctl(STDERR_FILENO, FIONREAD, &unread) != 0 || unread == 0) break;
        std::this_thread::sleep_for(milliseconds(10));
    }
    std::this_thread::sleep_for(milliseconds(100));
}

/// A checkpoint has a file for each rank that wrote it, and one rank may have to open them all. No
/// more than can be closed in no time: a process that starts another closes as many as it may have.
void allow_open_files() {
    constexpr rlim_t kEnough = 65536;
    rlimit files{};
    if (::getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur >= kEnough) return;
    files.rlim_cur = std::min(files.rlim_max, kEnough);
    (void)::setrlimit(RLIMIT_NOFILE, &files);
}

int run_alone(const Command& command, const Arguments& arguments) {
    if (launcher_rank() > 0) return code_of(ExitCode::done);  // rank 0 does it
    try {
        const int code = command.alone(arguments);
        std::fflush(stdout);
        return code;
    } catch (...) {
        const Failure failure = current_failure();
        print_error(fmt::format("rankwise {}: {}", command.name, failure.what));
        return code_of(failure.code);
    }
}

/// When all ranks meet the same error, the lowest ends the job before the others have printed
/// theirs. It may come to it late where ranks share cores.
void wait_for_lower_ranks(int rank) {
    if (rank == 0) return;
    remove_stop_signals();  // the launcher's TERM then ends this rank quietly
    std::this_thread::sleep_for(std::chrono::milliseconds(1000 + 40 * std::min(rank, 20)));
}

int run_on_ranks(const Command& command, const Arguments& arguments, int argc, char** argv) {
    install_stop_signals();
    std::unique_ptr<parallel::MpiSession> mpi;
    try {
        mpi = std::make_unique<parallel::MpiSession>(argc, argv);
    } catch (...) {
        const Failure failure = current_failure();
        print_error(fmt::format("rankwise {}: {}", command.name, failure.what));
        return code_of(failure.code);
    }
    const auto recorder = std::make_shared<parallel::FlightRecorder>();
    std::unique_ptr<parallel::Communicator> world;
    std::unique_ptr<Session> session;
    try {
        world =
            mpi->world({.recorder = recorder, .traffic = std::make_shared<parallel::Traffic>()});
        session = std::make_unique<Session>(*world, mpi.get());
        session->require_same("program", binary_digest(),
                              "install one build on all nodes and start again");
        std::unique_ptr<parallel::Watchdog> watchdog;
        if (command.reports_stalls && session->size() > 1)
            watchdog = session->start_watchdog(kStallSeconds, 0.0, print_error);
        const int code = command.on_ranks(arguments, *session);
        std::fflush(stdout);
        return code;
    } catch (const StartRefused& refused) {
        if (mpi->rank() == 0) {
            print_error(fmt::format("rankwise {}: {}", command.name, refused.merged()));
            if (session) session->log().error("{}", refused.merged());
        }
        return code_of(refused.code());
    } catch (const RankFailed& failed) {  // of ranks that are threads of this process
        print_error(failed.what());
        return code_of(failed.code());
    } catch (...) {
        const Failure failure = current_failure();
        const parallel::FlightState state = recorder->state();
        const std::string line = error_line(mpi->identity(), state.phase, state.step, failure.what);
        if (session) session->log().error("{}", line);
        wait_for_lower_ranks(mpi->rank());
        print_error(line);
        let_launcher_read();
        mpi->abort(failure.code);
    }
}

/// An exception that leaves a thread, or a destructor: nothing can be finished any more.
[[noreturn]] void on_terminate() {
    Failure failure;
    if (std::current_exception() != nullptr) failure = current_failure();
    print_error(fmt::format(
        "rankwise: {}", failure.what.empty() ? "defect of the program: terminated" : failure.what));
    std::_Exit(code_of(ExitCode::internal));
}

}  // namespace

int launch(int argc, char** argv, const std::vector<Command>& commands) {
    std::set_terminate(on_terminate);
    ParsedCommandLine parsed;
    try {
        parsed = parse_command_line(std::vector<std::string>(argv + 1, argv + argc), commands);
    } catch (const Problems& problems) {
        // Rank 0 says it, and ends the job with its code: another that failed might end rank 0.
        if (launcher_rank() > 0) return code_of(ExitCode::done);
        print_error(fmt::format("rankwise: {}", problems.what()));
        return code_of(ExitCode::bad_input);
    }
    if (parsed.command == nullptr) {
        if (launcher_rank() == 0) std::fwrite(parsed.text.data(), 1, parsed.text.size(), stdout);
        return code_of(ExitCode::done);
    }
    allow_open_files();
    if (parsed.command->on_ranks == nullptr) return run_alone(*parsed.command, parsed.arguments);
    return run_on_ranks(*parsed.command, parsed.arguments, argc, argv);
}

}  // namespace rankwise::app
