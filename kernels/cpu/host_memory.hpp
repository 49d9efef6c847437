// Memory of the host as the CPU device takes it from the system.
#pragma once

#include <cstddef>
#include <cstdint>

namespace rankwise::kernels::cpu {

/// From this size on memory is mapped by itself, so that what is given back is the system's at once
/// and the process is as large as what it holds.
constexpr std::int64_t kMappedBytes = std::int64_t{1} << 20;

/// At least `bytes` bytes, aligned to 64; from 2 MiB on to large pages, which are asked for: what
/// is read in long strides meets a page with every row. Null if there are no more, or for no bytes.
[[nodiscard]] std::byte* take_host_memory(std::int64_t bytes);
/// What take_host_memory(bytes) gave, or null.
void give_back_host_memory(std::byte* memory, std::int64_t bytes) noexcept;
/// What it takes of the system.
[[nodiscard]] std::int64_t host_memory_taken(std::int64_t bytes);

}  // namespace rankwise::kernels::cpu
