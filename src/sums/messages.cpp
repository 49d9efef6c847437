#include "src/sums/messages.hpp"

namespace rankwise::sums {
namespace {

template <class Float, class Matrix>
DeviceSpan<Float> elements_of(const Matrix& matrix) {
    ensure(matrix.dense(), "a matrix to be moved has gaps between its rows");
    return {reinterpret_cast<Float*>(matrix.handle), matrix.rows * matrix.cols};
}

}  // namespace

parallel::Request start_send(Tools tools, parallel::Communicator& axis, std::string_view label,
                             kernels::ConstMatrix matrix, int to, parallel::Channel channel) {
    return axis.start_send(label, wire(tools, elements_of<const float>(matrix)), to, channel);
}

parallel::Request start_receive(Tools tools, parallel::Communicator& axis, std::string_view label,
                                kernels::Matrix matrix, int from, parallel::Channel channel) {
    return axis.start_receive(label, wire(tools, elements_of<float>(matrix)), from, channel);
}

void receive(Tools tools, parallel::Communicator& axis, std::string_view label,
             kernels::Matrix matrix, int from, parallel::Channel channel) {
    start_receive(tools, axis, label, matrix, from, channel).wait();
}

Outbox::Outbox(Tools tools, parallel::Communicator& axis, int to, parallel::Channel channel,
               std::size_t depth, std::int64_t elements)
    : tools_(tools), axis_(axis), to_(to), channel_(channel), slots_(depth) {
    for (Slot& slot : slots_) slot.memory = tools.arena.take<float>(elements);
}

kernels::Matrix Outbox::room(std::int64_t rows, std::int64_t cols) {
    Slot& slot = slots_[next_];
    slot.request.wait();
    room_ = {slot.memory.subspan(0, rows * cols), rows, cols};
    return room_;
}

void Outbox::send(std::string_view label) {
    slots_[next_].request = start_send(tools_, axis_, label, room_, to_, channel_);
    next_ = (next_ + 1) % slots_.size();
}

}  // namespace rankwise::sums
