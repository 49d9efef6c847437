#include "kernels/cpu/scratch.hpp"

#include "kernels/cpu/host_memory.hpp"
#include "src/base/error.hpp"

namespace rankwise::kernels::cpu {
namespace {

constexpr std::int64_t bytes_of(std::int64_t floats) {
    return floats * std::int64_t{sizeof(float)};
}

}  // namespace

Scratch::~Scratch() {
    give_back();
}

void Scratch::give_back() noexcept {
    give_back_host_memory(reinterpret_cast<std::byte*>(memory_), bytes_of(size_));
    memory_ = nullptr;
    size_ = 0;
}

void Scratch::grow(std::int64_t floats) {
    give_back();
    memory_ = reinterpret_cast<float*>(take_host_memory(bytes_of(floats)));
    if (memory_ == nullptr) {
        throw EnvironmentError(
            fmt::format("out of memory: {} bytes of scratch wanted", bytes_of(floats)));
    }
    size_ = floats;
}

}  // namespace rankwise::kernels::cpu
