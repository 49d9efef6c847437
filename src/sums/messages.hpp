// Matrices that travel from one rank of an axis to another: activations and their gradients between
// the stages of a pipeline. Nothing is added.
#pragma once

#include <string_view>
#include <vector>

#include "parallel/communicator.hpp"
#include "src/sums/tools.hpp"

namespace rankwise::sums {

/// Starts to send a dense matrix, which stays untouched until the request is done.
[[nodiscard]] parallel::Request start_send(Tools tools, parallel::Communicator& axis,
                                           std::string_view label, kernels::ConstMatrix matrix,
                                           int to, parallel::Channel channel);
/// Starts to receive a dense matrix of the size that the sender has; it is there when the request
/// is done.
[[nodiscard]] parallel::Request start_receive(Tools tools, parallel::Communicator& axis,
                                              std::string_view label, kernels::Matrix matrix,
                                              int from, parallel::Channel channel);
/// The same, waited for.
void receive(Tools tools, parallel::Communicator& axis, std::string_view label,
             kernels::Matrix matrix, int from, parallel::Channel channel);

/// Matrices on their way to one rank, in buffers of their own: who sends goes on at once, unless
/// the receiver is `depth` messages behind. Destroyed when all have arrived.
class Outbox {
  public:
    /// @param elements  the most that a message has, of type `dtype`; the buffers are scratch
    /// memory, taken here
    Outbox(Tools tools, parallel::Communicator& axis, int to, parallel::Channel channel,
           std::size_t depth, std::int64_t elements, DType dtype);

    /// Room for the next message. Waits for the receiver if it is far behind.
    [[nodiscard]] kernels::Matrix room(std::int64_t rows, std::int64_t cols);
    /// Sends what stands in the room that was given last.
    void send(std::string_view label);

  private:
    struct Slot {
        DeviceSpan<std::byte> memory;
        parallel::Request request;
    };
    Tools tools_;
    parallel::Communicator& axis_;
    int to_;
    parallel::Channel channel_;
    DType dtype_;
    std::vector<Slot> slots_;
    std::size_t next_ = 0;
    kernels::Matrix room_;
};

}  // namespace rankwise::sums
