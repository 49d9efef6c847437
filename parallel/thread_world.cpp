#include "parallel/thread_world.hpp"

#include <exception>
#include <thread>
#include <utility>

#include "parallel/post_office.hpp"
#include "parallel/thread_communicator.hpp"

namespace rankwise::parallel {

ThreadWorld::ThreadWorld(int ranks, Options options) {
    ensure(ranks >= 1, "a world needs at least one rank, found {}", ranks);
    for (int r = 0; r < ranks; ++r) {
        instruments_.push_back({std::make_shared<FlightRecorder>(options.clock),
                                std::make_shared<Traffic>(), options.check_collectives});
    }
}

ThreadWorld::~ThreadWorld() = default;

void ThreadWorld::run(const std::function<void(Communicator&)>& body) {
    const auto office = std::make_shared<PostOffice>(size());
    std::vector<std::thread> threads;
    for (int r = 0; r < size(); ++r) {
        threads.emplace_back([&, r] {
            try {
                const auto world =
                    ThreadCommunicator::world(office, size(), r, "world", instruments(r));
                body(*world);
            } catch (...) {
                office->fail(std::current_exception());
            }
            office->leave(r);
        });
    }
    for (std::thread& thread : threads) thread.join();
    if (const auto cause = office->cause()) std::rethrow_exception(cause);
}

}  // namespace rankwise::parallel
