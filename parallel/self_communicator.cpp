#include "parallel/self_communicator.hpp"

#include <utility>

#include "parallel/thread_communicator.hpp"

namespace rankwise::parallel {

std::unique_ptr<Communicator> make_self_communicator(Instruments instruments, std::string name) {
    return ThreadCommunicator::world(std::make_shared<PostOffice>(1), 1, 0, std::move(name),
                                     std::move(instruments));
}

}  // namespace rankwise::parallel
