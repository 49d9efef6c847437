#include "parallel/agree.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

#include "src/base/checked.hpp"

namespace rankwise::parallel {

namespace {

constexpr std::string_view kLabel = "agreement";

// A list of problems as bytes: code, length, text, one after the other.
void append(std::vector<char>& bytes, std::int64_t value) {
    char raw[sizeof value];
    std::memcpy(raw, &value, sizeof value);
    bytes.insert(bytes.end(), raw, raw + sizeof value);
}

std::vector<char> pack(std::span<const Problem> problems) {
    std::vector<char> bytes;
    for (const Problem& problem : problems) {
        append(bytes, static_cast<std::int64_t>(problem.code));
        append(bytes, static_cast<std::int64_t>(problem.message.size()));
        bytes.insert(bytes.end(), problem.message.begin(), problem.message.end());
    }
    return bytes;
}

std::vector<Problem> unpack(std::span<const char> bytes) {
    const auto number = [&] {
        std::int64_t value = 0;
        std::memcpy(&value, bytes.data(), sizeof value);
        bytes = bytes.subspan(sizeof value);
        return value;
    };
    std::vector<Problem> problems;
    while (!bytes.empty()) {
        const auto code = static_cast<ExitCode>(number());
        const auto length = static_cast<std::size_t>(number());
        problems.push_back({code, std::string(bytes.data(), length)});
        bytes = bytes.subspan(length);
    }
    return problems;
}

std::vector<AgreedProblem> merge(const Gathered<char>& packed) {
    std::vector<AgreedProblem> merged;
    std::map<std::pair<int, std::string>, std::size_t> known;
    std::size_t offset = 0;
    for (std::size_t rank = 0; rank < packed.counts.size(); ++rank) {
        const auto size = static_cast<std::size_t>(packed.counts[rank]);
        for (Problem& problem : unpack(std::span(packed.values).subspan(offset, size))) {
            const auto [found, is_new] =
                known.try_emplace({static_cast<int>(problem.code), problem.message}, merged.size());
            if (is_new) merged.push_back({problem.code, std::move(problem.message), {}});
            auto& ranks = merged[found->second].ranks;
            // A rank may have met it twice.
            if (ranks.empty() || ranks.back() != static_cast<int>(rank)) {
                ranks.push_back(static_cast<int>(rank));
            }
        }
        offset += size;
    }
    return merged;
}

}  // namespace

Agreement agree(Communicator& comm, std::span<const Problem> problems) {
    Agreement result;
    result.ranks_with_problems =
        comm.all_reduce_sum(kLabel, std::int64_t{problems.empty() ? 0 : 1});
    if (result.ranks_with_problems == 0) return result;
    const auto packed = comm.gather_v(kLabel, pack(problems), 0);
    std::int64_t code = 0;
    if (comm.rank() == 0) {
        result.problems = merge(packed);
        code = static_cast<std::int64_t>(result.problems.front().code);
    }
    comm.broadcast(kLabel, std::span(&code, 1), 0);
    result.code = static_cast<ExitCode>(code);
    return result;
}

std::string to_string_ranks(std::span<const int> ranks, int size) {
    if (static_cast<int>(ranks.size()) == size) return size == 1 ? "rank 0" : "all ranks";
    std::string text = ranks.size() == 1 ? "rank " : "ranks ";
    for (std::size_t i = 0; i < ranks.size();) {
        std::size_t end = i + 1;
        while (end < ranks.size() && ranks[end] == ranks[end - 1] + 1) ++end;
        if (i > 0) text += ", ";
        text += fmt::format("{}", ranks[i]);
        if (end - i > 1) text += fmt::format("{}{}", end - i == 2 ? ", " : "-", ranks[end - 1]);
        i = end;
    }
    return text;
}

std::vector<int> agree_same(Communicator& comm, std::string_view label,
                            std::span<const std::byte> value) {
    const UInt128 hash = xxh3_128(value.data(), value.size());
    if (comm.all_reduce_min(label, hash) == comm.all_reduce_max(label, hash)) return {};

    const auto hashes = comm.gather_v(label, std::span(&hash, 1), 0);
    std::vector<int> different;
    if (comm.rank() == 0) {
        std::map<std::pair<std::uint64_t, std::uint64_t>, std::int64_t> votes;
        for (const UInt128& h : hashes.values) ++votes[{h.high, h.low}];
        UInt128 usual = hashes.values.front();
        for (const UInt128& h : hashes.values) {
            if (votes[{h.high, h.low}] > votes[{usual.high, usual.low}]) usual = h;
        }
        for (std::size_t r = 0; r < hashes.values.size(); ++r) {
            if (hashes.values[r] != usual) different.push_back(static_cast<int>(r));
        }
    }
    std::int64_t count = static_cast<std::int64_t>(different.size());
    comm.broadcast(label, std::span(&count, 1), 0);
    different.resize(static_cast<std::size_t>(count));
    comm.broadcast(label, different, 0);
    return different;
}

std::vector<int> agree_same(Communicator& comm, std::string_view label, std::string_view value) {
    return agree_same(comm, label, std::as_bytes(std::span(value)));
}

bool agree_any(Communicator& comm, std::string_view label, bool value) {
    return comm.all_reduce_max(label, std::int64_t{value ? 1 : 0}) != 0;
}

}  // namespace rankwise::parallel
