// What the ranks of a communicator compare before a collective when they are asked to.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "parallel/op.hpp"

namespace rankwise::parallel {

/// The size of a call whose size may differ from rank to rank.
inline constexpr std::int64_t kAnySize = -1;

/// One rank's call, in bytes that can be sent and compared.
struct CallSignature {
    std::uint64_t sequence = 0;  ///< collectives on this communicator, this one included
    std::int64_t common_size =
        0;  ///< bytes, or counts_key(), where ranks must agree; kAnySize where not
    std::int64_t element = 0;  ///< bytes of an element
    std::int32_t root = 0;     ///< or the kind of reduction
    std::int32_t op = 0;
    char label[64] = {};  ///< cut to fit, padded with zeros
    friend bool operator==(const CallSignature&, const CallSignature&) = default;
};

[[nodiscard]] CallSignature make_signature(Op op, std::uint64_t sequence, int root,
                                           std::int64_t element, std::int64_t common_size,
                                           std::string_view label);

/// A number (>= 0) that is equal for equal counts.
[[nodiscard]] std::int64_t counts_key(std::span<const std::int64_t> counts);

/// Names the ranks whose call is not the one that most ranks make (of equally many: that of the
/// lowest rank), and both calls. Empty if all are equal.
[[nodiscard]] std::string describe_difference(std::span<const CallSignature> calls);

}  // namespace rankwise::parallel
