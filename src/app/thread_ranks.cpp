#include "src/app/thread_ranks.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "parallel/thread_world.hpp"
#include "src/app/failure.hpp"

namespace rankwise::app {

int run_on_threads(int ranks, const std::function<int(Session&)>& body) {
    parallel::ThreadWorld world(ranks);
    std::vector<parallel::Watchdog::Watched> watched;
    for (int rank = 0; rank < ranks; ++rank)
        watched.push_back({rank, world.instruments(rank).recorder});
    int code = 0;
    std::string refusal;  // rank 0 alone has the list
    try {
        world.run([&](parallel::Communicator& communicator) {
            Session session(communicator, watched);
            try {
                const int mine = body(session);
                if (session.rank() == 0) code = mine;
            } catch (const StartRefused& refused) {
                if (session.rank() == 0) refusal = refused.merged();
                throw;
            } catch (const parallel::RankReleased&) {
                throw;
            } catch (...) {
                const Failure failure = current_failure();
                const parallel::FlightState state = session.recorder()->state();
                const std::string line =
                    error_line(session.identity(), state.phase, state.step, failure.what);
                session.log().error("{}", line);
                throw RankFailed(failure.code, line);
            }
        });
    } catch (const StartRefused& refused) {
        throw StartRefused(refused.code(), refusal);
    }
    return code;
}

}  // namespace rankwise::app
