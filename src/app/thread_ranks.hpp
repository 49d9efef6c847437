// Ranks as threads of this process: the same program over another communicator.
#pragma once

#include <functional>

#include "src/app/session.hpp"

namespace rankwise::app {

/// Runs `body` on `ranks` threads, each with a session of its own. @return what rank 0 returns
/// @throws StartRefused with the list of problems; RankFailed with the rank that failed first.
[[nodiscard]] int run_on_threads(int ranks, const std::function<int(Session&)>& body);

}  // namespace rankwise::app
