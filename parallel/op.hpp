// The operations of a communicator, as they appear in counters, reports and error messages.
#pragma once

#include <cstdint>
#include <string_view>

namespace rankwise::parallel {

enum class Op : std::uint8_t {
    barrier,
    broadcast,
    all_gather,
    all_gather_v,
    all_to_all,
    all_to_all_v,
    gather_v,
    send,
    receive,
    send_receive,
    all_reduce,
    split,
};

/// Fixed spelling: "barrier", "all_to_all_v", …
[[nodiscard]] constexpr std::string_view name_of(Op op) {
    constexpr std::string_view kNames[] = {
        "barrier",  "broadcast", "all_gather", "all_gather_v", "all_to_all", "all_to_all_v",
        "gather_v", "send",      "receive",    "send_receive", "all_reduce", "split"};
    return kNames[static_cast<std::size_t>(op)];
}

}  // namespace rankwise::parallel
