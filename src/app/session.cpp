#include "src/app/session.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <new>

#include "src/app/recipe.hpp"

namespace rankwise::app {
namespace {

[[noreturn]] void refuse(const parallel::Agreement& agreement, int ranks) {
    throw StartRefused(agreement.code, merged_text(agreement, ranks));
}

}  // namespace

void Session::start_together(const std::function<void()>& check) {
    std::vector<parallel::Problem> problems;
    try {
        check();
    } catch (const StartRefused&) {
        throw;  // already agreed, inside the check
    } catch (const Problems& found) {
        for (const std::string& problem : found.list()) {
            problems.push_back({found.code(), problem});
        }
    } catch (const Error& error) {
        problems.push_back({error.code(), error.what()});
    } catch (const std::bad_alloc&) {
        problems.push_back({ExitCode::environment, "out of memory during start-up"});
    } catch (const std::exception& error) {
        problems.push_back({ExitCode::internal, error.what()});
    }
    const parallel::Agreement agreement = parallel::agree(world_, problems);
    if (!agreement.ok()) refuse(agreement, size());
}

void Session::require_same(std::string_view what, std::string_view value, std::string_view advice) {
    const std::vector<int> others = parallel::agree_same(world_, what, value);
    if (others.empty()) return;
    throw StartRefused(
        ExitCode::bad_input,
        rank() != 0 ? std::string()
                    : fmt::format("the {} is not the same on all ranks: {} of {} "
                                  "differ from the others; {}",
                                  what, parallel::to_string_ranks(others, size()), size(), advice));
}

std::string Session::identity() const {
    return mpi_ != nullptr ? mpi_->identity() : fmt::format("rank {}/{}", rank(), size());
}

std::unique_ptr<parallel::Watchdog> Session::start_watchdog(
    double timeout_s, double end_after_s, std::function<void(const std::string&)> report) {
    parallel::Watchdog::Options options{.timeout_s = timeout_s,
                                        .end_after_s = end_after_s,
                                        .poll_s = std::min(1.0, timeout_s / 4.0),
                                        .world_size = size(),
                                        .identity = identity(),
                                        .report = std::move(report)};
    if (mpi_ != nullptr) {
        options.exchange = mpi_->state_exchange();
        options.end_job = [mpi = mpi_] { mpi->abort(ExitCode::environment); };
    }
    std::vector<parallel::Watchdog::Watched> watched{{rank(), recorder()}};
    auto watchdog = std::make_unique<parallel::Watchdog>(std::move(watched), std::move(options));
    watchdog->start();
    return watchdog;
}

std::string merged_text(const parallel::Agreement& agreement, int ranks) {
    const auto line = [ranks](const parallel::AgreedProblem& problem) {
        if (static_cast<int>(problem.ranks.size()) == ranks) return problem.message;
        return fmt::format("{} ({})", problem.message,
                           parallel::to_string_ranks(problem.ranks, ranks));
    };
    if (agreement.problems.empty()) return {};
    if (agreement.problems.size() == 1) return line(agreement.problems.front());
    std::string text = fmt::format("{} problems:", agreement.problems.size());
    for (const parallel::AgreedProblem& problem : agreement.problems) {
        text += fmt::format("\n  {}", line(problem));
    }
    return text;
}

}  // namespace rankwise::app
