#include "parallel/call_signature.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "parallel/agree.hpp"
#include "src/base/uint128.hpp"

namespace rankwise::parallel {

namespace {

std::string describe(const CallSignature& call) {
    const auto op = static_cast<Op>(call.op);
    const std::size_t length = strnlen(call.label, sizeof call.label);
    std::string text = fmt::format("{} '{}' (collective #{}", name_of(op),
                                   std::string_view(call.label, length), call.sequence);
    if (op == Op::broadcast || op == Op::gather_v) text += fmt::format(", root {}", call.root);
    if (op == Op::all_reduce) {
        constexpr const char* kKinds[] = {"sum", "min", "max"};
        text += fmt::format(", {}", kKinds[call.root]);
    }
    if (op == Op::all_gather_v || op == Op::gather_v) {
        text += fmt::format(", counts with hash {:x}", call.common_size);
    } else if (call.common_size != kAnySize) {
        text += fmt::format(", {} bytes", call.common_size);
    }
    return text + fmt::format(", elements of {} bytes)", call.element);
}

}  // namespace

CallSignature make_signature(Op op, std::uint64_t sequence, int root, std::int64_t element,
                             std::int64_t common_size, std::string_view label) {
    CallSignature call;
    call.sequence = sequence;
    call.common_size = common_size;
    call.element = element;
    call.root = root;
    call.op = static_cast<std::int32_t>(op);
    std::memcpy(call.label, label.data(), std::min(label.size(), sizeof call.label));
    return call;
}

std::int64_t counts_key(std::span<const std::int64_t> counts) {
    const UInt128 hash = xxh3_128(counts.data(), counts.size_bytes());
    return static_cast<std::int64_t>(hash.low >> 1U);
}

std::string describe_difference(std::span<const CallSignature> calls) {
    // Distinct calls in order of the lowest rank that makes them.
    std::vector<std::pair<CallSignature, std::vector<int>>> kinds;
    for (std::size_t rank = 0; rank < calls.size(); ++rank) {
        const auto kind = std::find_if(kinds.begin(), kinds.end(),
                                       [&](const auto& k) { return k.first == calls[rank]; });
        if (kind == kinds.end()) {
            kinds.push_back({calls[rank], {static_cast<int>(rank)}});
        } else {
            kind->second.push_back(static_cast<int>(rank));
        }
    }
    if (kinds.size() == 1) return {};
    const auto usual = std::max_element(
        kinds.begin(), kinds.end(),
        [](const auto& a, const auto& b) { return a.second.size() < b.second.size(); });
    const int size = static_cast<int>(calls.size());
    std::string text;
    for (auto kind = kinds.begin(); kind != kinds.end(); ++kind) {
        if (kind == usual) continue;
        text += fmt::format("{}: {}; ", to_string_ranks(kind->second, size), describe(kind->first));
    }
    return text +
           fmt::format("but {}: {}", to_string_ranks(usual->second, size), describe(usual->first));
}

}  // namespace rankwise::parallel
