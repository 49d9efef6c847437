// What the ranks of an update have recorded of it (update::UpdateTrace), brought together.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <tuple>

#include "src/update/update_trace.hpp"

namespace rankwise::test {

/// Values that all tensor ranks hold, by place; gradients added over ranks.
class WholeTrace {
  public:
    void add(std::span<const update::TraceRecord> records) {
        const std::lock_guard lock(mutex_);
        for (const update::TraceRecord& r : records) {
            orders_.emplace(std::tuple(r.pass, r.layer, r.op), r.order);
            EXPECT_EQ(orders_.at(std::tuple(r.pass, r.layer, r.op)), r.order)
                << r.op << " stands elsewhere on another rank";
            if (r.parts > 1) continue;
            const auto [at, is_new] = values_.emplace(
                std::tuple(r.update, r.chunk, r.pass, r.layer, r.order, r.op), r.digest);
            if (is_new) continue;
            EXPECT_EQ(r.pass, update::TracePass::gradient) << r.op << " is recorded by two ranks";
            at->second += r.digest;
        }
    }
    using Place = std::tuple<std::int64_t, std::int64_t, update::TracePass, std::int64_t,
                             std::int64_t, std::string>;
    [[nodiscard]] const std::map<Place, UInt128>& values() const { return values_; }
    [[nodiscard]] std::int64_t count(update::TracePass pass) const {
        return std::ranges::count_if(values_, [&](const auto& value) {
            return std::get<update::TracePass>(value.first) == pass;
        });
    }

  private:
    std::mutex mutex_;
    std::map<std::tuple<update::TracePass, std::int64_t, std::string>, std::int64_t> orders_;
    std::map<Place, UInt128> values_;
};

}  // namespace rankwise::test
