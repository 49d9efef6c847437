// What all ranks must know together: problems at start, sameness of inputs, whether to stop.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/communicator.hpp"
#include "src/base/error.hpp"

namespace rankwise::parallel {

/// Something that a rank found wrong before the run began.
struct Problem {
    ExitCode code = ExitCode::bad_input;
    std::string message;
};

/// The same problem, once, with the ranks that met it, ascending.
struct AgreedProblem {
    ExitCode code = ExitCode::bad_input;
    std::string message;
    std::vector<int> ranks;
};

struct Agreement {
    /// What every rank exits with: the code of the first problem of the merged list; ExitCode::done
    /// if there is none.
    ExitCode code = ExitCode::done;
    std::int64_t ranks_with_problems = 0;
    /// On rank 0: problems in order of the lowest rank that met them, then of its own list. Empty
    /// elsewhere.
    std::vector<AgreedProblem> problems;

    [[nodiscard]] bool ok() const { return code == ExitCode::done; }
};

/// Collective. One small reduction when nobody has a problem; else the lists go to rank 0.
[[nodiscard]] Agreement agree(Communicator& comm, std::span<const Problem> problems);

/// "all ranks", "rank 3", "ranks 0-2, 7".
[[nodiscard]] std::string to_string_ranks(std::span<const int> ranks, int size);

/// Collective. The ranks whose bytes differ from those that most ranks have (of equally many: from
/// those of the lowest rank); empty if all are equal. Known on every rank. Two small reductions
/// when all are equal.
[[nodiscard]] std::vector<int> agree_same(Communicator& comm, std::string_view label,
                                          std::span<const std::byte> value);
[[nodiscard]] std::vector<int> agree_same(Communicator& comm, std::string_view label,
                                          std::string_view value);

/// Collective. True everywhere if it is true anywhere.
[[nodiscard]] bool agree_any(Communicator& comm, std::string_view label, bool value);

}  // namespace rankwise::parallel
