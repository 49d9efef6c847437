#include "src/rollout/kv_pool.hpp"

namespace rankwise::rollout {

std::int64_t pages_for(std::int64_t positions) {
    return ceil_div(positions, kernels::kKeyBlock);
}

KvPool::KvPool(kernels::Device& device, std::int64_t layers, const model::AttentionShape& heads,
               std::int64_t pages) {
    shape_ = {.dtype = heads.dtype,
              .pages = pages,
              .kv_heads = heads.kv_heads,
              .head_dim = heads.key_dim,
              .value_dim = heads.value_dim};
    memory_ = kernels::DeviceBuffer<std::byte>(device, layers * shape_.bytes());
    references_.assign(static_cast<std::size_t>(pages), 0);
    for (std::int64_t page = pages; page-- > 0;) free_.push_back(narrow<PageId>(page));
}

PageId KvPool::take() {
    ensure(!free_.empty(), "all {} pages of the key-value cache are in use", capacity());
    const PageId page = free_.back();
    free_.pop_back();
    references_[static_cast<std::size_t>(page)] = 1;
    return page;
}

void KvPool::retain(PageId page) {
    ++references_[static_cast<std::size_t>(page)];
}

void KvPool::release(PageId page) {
    std::int32_t& count = references_[static_cast<std::size_t>(page)];
    ensure(count > 0, "page {} was given back twice", page);
    if (--count == 0) free_.push_back(page);
}

kernels::KvPages KvPool::layer(std::int64_t index) const {
    kernels::KvPages pages = shape_;
    pages.handle = memory_.span().subspan(index * shape_.bytes(), shape_.bytes()).handle();
    return pages;
}

}  // namespace rankwise::rollout
