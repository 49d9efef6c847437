#include "src/app/session.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <set>
#include <sstream>

#include "src/app/recipe.hpp"

namespace rankwise::app {
namespace {

[[noreturn]] void refuse(const parallel::Agreement& agreement, int ranks) {
    throw StartRefused(agreement.code, merged_text(agreement, ranks));
}

std::set<std::string> lines_of(std::string_view text) {
    std::set<std::string> lines;
    std::istringstream in{std::string(text)};
    for (std::string line; std::getline(in, line);) lines.insert(line);
    return lines;
}

/// Lines that only one of two texts has, some of them; empty for texts that are no lines.
std::string different_lines(std::string_view mine, std::string_view theirs, int their_rank) {
    constexpr std::size_t kMostLines = 6;
    const std::set<std::string> a = lines_of(mine);
    const std::set<std::string> b = lines_of(theirs);
    if (a.size() < 2 && b.size() < 2) return {};
    std::vector<std::string> told;
    const auto tell = [&](const std::set<std::string>& some, const std::set<std::string>& other,
                          int whose) {
        for (const std::string& line : some) {
            if (!other.contains(line)) told.push_back(fmt::format("rank {}: {}", whose, line));
        }
    };
    tell(a, b, 0);
    tell(b, a, their_rank);
    if (told.size() > kMostLines) told.resize(kMostLines);
    return fmt::format(" ({})", fmt::join(told, "; "));
}

}  // namespace

void Session::start_together(const std::function<void()>& check, Concerns concerns) {
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
    if (!agreement.ok()) refuse(agreement, concerns == Concerns::ranks ? size() : 0);
}

void Session::start_on_main(const std::function<void()>& check) {
    start_together(
        [&] {
            if (rank() == 0) check();
        },
        Concerns::run);
}

void Session::require_same(std::string_view what, std::string_view value, std::string_view advice) {
    const std::vector<int> others = parallel::agree_same(world_, what, value);
    if (others.empty()) return;
    // Rank 0 tells; it compares with a rank on the other side.
    int teller = others.front();
    if (teller == 0) {
        while (std::ranges::find(others, teller) != others.end()) ++teller;
    }
    std::vector<std::int64_t> bytes{std::ssize(value)};
    world_.broadcast("differs", bytes, teller);
    std::string theirs(rank() == teller ? value : std::string_view());
    theirs.resize(static_cast<std::size_t>(bytes.front()));
    world_.broadcast("differs", theirs, teller);
    if (rank() != 0) throw StartRefused(ExitCode::bad_input, {});
    throw StartRefused(
        ExitCode::bad_input,
        fmt::format("the {} is not the same on all ranks: {} of {} differ from the others{}; {}",
                    what, parallel::to_string_ranks(others, size()), size(),
                    different_lines(value, theirs, teller), advice));
}

std::string Session::identity() const {
    return mpi_ != nullptr ? mpi_->identity() : fmt::format("rank {}/{}", rank(), size());
}

std::unique_ptr<parallel::Watchdog> Session::start_watchdog(
    double timeout_s, double end_after_s, std::function<void(const std::string&)> report) {
    if (!ranks_.empty() && rank() != 0) return nullptr;
    parallel::Watchdog::Options options{.timeout_s = timeout_s,
                                        .end_after_s = end_after_s,
                                        .poll_s = std::min(1.0, timeout_s / 4.0),
                                        .world_size = size(),
                                        .identity = identity(),
                                        .report = std::move(report)};
    // Alone, a rank waits for nobody: a step that takes long is computed, however long.
    if (size() == 1) options.end_after_s = 0.0;
    if (mpi_ != nullptr) {
        options.exchange = mpi_->state_exchange();
        options.end_job = [mpi = mpi_] { mpi->abort(ExitCode::environment); };
    } else {
        options.end_job = [] {
            std::fflush(nullptr);
            std::_Exit(static_cast<int>(ExitCode::environment));
        };
    }
    std::vector<parallel::Watchdog::Watched> watched = ranks_;
    if (watched.empty()) watched.push_back({rank(), recorder()});
    auto watchdog = std::make_unique<parallel::Watchdog>(std::move(watched), std::move(options));
    watchdog->start();
    return watchdog;
}

std::string merged_text(const parallel::Agreement& agreement, int ranks) {
    const auto line = [ranks](const parallel::AgreedProblem& problem) {
        if (ranks == 0 || static_cast<int>(problem.ranks.size()) == ranks) return problem.message;
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
