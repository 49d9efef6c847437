#include "src/sums/messages.hpp"

namespace rankwise::sums {

parallel::Request start_send(Tools tools, parallel::Communicator& axis, std::string_view label,
                             kernels::ConstMatrix matrix, int to, parallel::Channel channel) {
    return axis.start_send(label, wire(tools, bytes_of(matrix)), to, channel);
}

parallel::Request start_receive(Tools tools, parallel::Communicator& axis, std::string_view label,
                                kernels::Matrix matrix, int from, parallel::Channel channel) {
    return axis.start_receive(label, wire(tools, bytes_of(matrix)), from, channel);
}

void receive(Tools tools, parallel::Communicator& axis, std::string_view label,
             kernels::Matrix matrix, int from, parallel::Channel channel) {
    start_receive(tools, axis, label, matrix, from, channel).wait();
}

Outbox::Outbox(Tools tools, parallel::Communicator& axis, int to, parallel::Channel channel,
               std::size_t depth, std::int64_t elements, DType dtype)
    : tools_(tools), axis_(axis), to_(to), channel_(channel), dtype_(dtype), slots_(depth) {
    for (Slot& slot : slots_) slot.memory = tools.arena.take<std::byte>(elements * size_of(dtype));
}

kernels::Matrix Outbox::room(std::int64_t rows, std::int64_t cols) {
    Slot& slot = slots_[next_];
    slot.request.wait();
    ensure(rows * cols * size_of(dtype_) <= slot.memory.size(),
           "a message of {} x {} {} in a room of {} bytes", rows, cols, name_of(dtype_),
           slot.memory.size());
    room_ = {slot.memory.handle(), dtype_, rows, cols, cols};
    return room_;
}

void Outbox::send(std::string_view label) {
    slots_[next_].request = start_send(tools_, axis_, label, room_, to_, channel_);
    next_ = (next_ + 1) % slots_.size();
}

}  // namespace rankwise::sums
