#include "parallel/traffic.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace rankwise::parallel {

std::string_view kind_of(std::string_view label) {
    return label.substr(0, label.find(':'));
}

void Traffic::count(std::string_view communicator, Op op, std::string_view label,
                    std::int64_t bytes) {
    const KeyView key{communicator, op, kind_of(label)};
    const std::lock_guard lock(mutex_);
    auto found = counts_.find(key);
    if (found == counts_.end()) {
        const Key owned{std::string(key.communicator), op, std::string(key.kind)};
        found = counts_.emplace(owned, Count{}).first;
    }
    ++found->second.calls;
    found->second.bytes += bytes;
}

std::vector<Traffic::Row> Traffic::rows() const {
    const std::lock_guard lock(mutex_);
    std::vector<Row> rows;
    for (const auto& [key, count] : counts_) {
        rows.push_back({key.communicator, key.op, key.kind, count.calls, count.bytes});
    }
    return rows;
}

std::int64_t Traffic::bytes() const {
    const std::lock_guard lock(mutex_);
    std::int64_t sum = 0;
    for (const auto& [key, count] : counts_) sum += count.bytes;
    return sum;
}

std::map<std::string, std::int64_t> Traffic::bytes_by_communicator() const {
    const std::lock_guard lock(mutex_);
    std::map<std::string, std::int64_t> sums;
    for (const auto& [key, count] : counts_) {
        if (count.bytes > 0) sums[key.communicator] += count.bytes;
    }
    return sums;
}

void Traffic::reset() {
    const std::lock_guard lock(mutex_);
    counts_.clear();
}

std::string table(const std::vector<Traffic::Row>& rows) {
    std::size_t communicator = std::string_view("communicator").size();
    std::size_t kind = std::string_view("kind").size();
    for (const auto& row : rows) {
        communicator = std::max(communicator, row.communicator.size());
        kind = std::max(kind, row.kind.size());
    }
    const auto line = [&](std::string_view c, std::string_view op, std::string_view k,
                          const auto& calls, const auto& bytes) {
        return fmt::format("{:<{}}  {:<12}  {:<{}}  {:>10}  {:>16}\n", c, communicator, op, k, kind,
                           calls, bytes);
    };
    std::string text = line("communicator", "operation", "kind", "calls", "bytes sent");
    std::int64_t calls = 0;
    std::int64_t bytes = 0;
    for (const auto& row : rows) {
        text += line(row.communicator, name_of(row.op), row.kind, row.calls, row.bytes);
        calls += row.calls;
        bytes += row.bytes;
    }
    return text + line("total", "", "", calls, bytes);
}

}  // namespace rankwise::parallel
