// Pages of the key-value cache: handed out, shared by forks, given back.
#pragma once

#include <cstdint>
#include <vector>

#include "src/model/attention_pass.hpp"

namespace rankwise::rollout {

using PageId = std::int32_t;

/// One pool of pages of kKeyBlock positions; a page exists in every layer under the same number.
class KvPool {
  public:
    /// @param layers, heads  of this rank; heads give the sizes and the type of a page
    KvPool(kernels::Device& device, std::int64_t layers, const model::AttentionShape& heads,
           std::int64_t pages);

    [[nodiscard]] std::int64_t capacity() const {
        return static_cast<std::int64_t>(references_.size());
    }
    [[nodiscard]] std::int64_t free() const { return static_cast<std::int64_t>(free_.size()); }
    /// @throws InternalError if none is free: callers reserve before they take.
    [[nodiscard]] PageId take();
    void retain(PageId page);
    void release(PageId page);
    /// Pages of one of this rank's layers, counted among these.
    [[nodiscard]] kernels::KvPages layer(std::int64_t index) const;
    [[nodiscard]] std::int64_t bytes() const { return memory_.span().size_bytes(); }

  private:
    kernels::KvPages shape_;
    kernels::DeviceBuffer<std::byte> memory_;
    std::vector<PageId> free_;
    std::vector<std::int32_t> references_;
};

/// Pages for `positions` positions.
[[nodiscard]] std::int64_t pages_for(std::int64_t positions);

}  // namespace rankwise::rollout
