// Sequences in a paged cache on a device, for tests of paged attention.
#pragma once

#include "tests/support/attention_fixture.hpp"

namespace rankwise::test {

/// A cache filled with NaN whose pages are handed out in an order of no pattern.
class PagedCache {
  public:
    PagedCache(const DeviceUnderTest& device, const AttentionShape& shape, std::int64_t pages)
        : device_(device), shape_(shape) {
        pages_.pages = pages;
        pages_.kv_heads = shape.kv_heads;
        pages_.head_dim = shape.head_dim;
        pages_.value_dim = shape.value_size();
        pages_.dtype = shape.dtype;
        memory_ = put_as(
            device, shape.dtype,
            std::vector<float>(static_cast<std::size_t>(pages * pages_.page_elements()), NAN));
        pages_.handle = memory_.span().handle();
        for (std::int64_t i = 0; i < pages; ++i) free_.push_back(static_cast<std::int32_t>(i));
        std::shuffle(free_.begin(), free_.end(), std::mt19937(11));
    }

    [[nodiscard]] const kernels::KvPages& pages() const { return pages_; }
    [[nodiscard]] std::vector<float> contents() const {
        return get_as(device_, shape_.dtype, memory_);
    }

    /// The pages of a sequence, by block.
    using Sequence = std::vector<std::int32_t>;

    /// Room for positions up to `positions`.
    void grow(Sequence& sequence, std::int64_t positions) {
        while (std::ssize(sequence) * kernels::kKeyBlock < positions) {
            sequence.push_back(free_.back());
            free_.pop_back();
        }
    }

    /// A sequence that shares whole pages of the first `positions` with `from` and has its own copy
    /// of the last.
    Sequence fork(const Sequence& from, std::int64_t positions) {
        Sequence sequence(from.begin(), from.begin() + positions / kernels::kKeyBlock);
        if (positions % kernels::kKeyBlock != 0) {
            const std::int32_t source = from[sequence.size()];
            grow(sequence, positions);
            const std::int32_t copy = sequence.back();
            device_->kv_copy({.from = {&source, 1}, .to = {&copy, 1}, .pages = pages_},
                             device_.stream());
        }
        return sequence;
    }

    /// Writes rows [row, row + count) of k and v at positions from `position` on.
    void write(const Sequence& sequence, const AttentionInput<float>& in, std::int64_t row,
               std::int64_t count, std::int64_t position) {
        const std::int64_t keys = shape_.kv_heads * shape_.head_dim;
        const std::int64_t values = shape_.kv_heads * shape_.value_size();
        const GappedMatrix k(device_, slice(in.k, row, count, keys), count, keys, 3, shape_.dtype);
        const GappedMatrix v(device_, slice(in.v, row, count, values), count, values, 5,
                             shape_.dtype);
        std::vector<std::int64_t> slots;
        for (std::int64_t p = position; p < position + count; ++p) {
            slots.push_back(sequence[static_cast<std::size_t>(p / kernels::kKeyBlock)] *
                                kernels::kKeyBlock +
                            p % kernels::kKeyBlock);
        }
        device_->kv_write({.k = k.matrix(), .v = v.matrix(), .slots = slots, .pages = pages_},
                          device_.stream());
    }

    /// Some rows of the input at consecutive positions of one sequence.
    struct Piece {
        const Sequence* sequence;
        std::int64_t row;
        std::int64_t count;
        std::int64_t position;
        std::int64_t shared = 0;  ///< positions that the piece before has too
    };

    /// Attention of the pieces in one call; rows in the order of the pieces.
    [[nodiscard]] std::vector<float> attend(const AttentionInput<float>& in,
                                            const std::vector<Piece>& pieces,
                                            std::int64_t gap = 0) const {
        const std::int64_t wide = shape_.heads * shape_.head_dim;
        std::vector<float> rows;
        std::vector<kernels::PagedRun> runs;
        std::vector<std::int32_t> table;
        std::int64_t count = 0;
        for (const Piece& piece : pieces) {
            const auto q = slice(in.q, piece.row, piece.count, wide);
            rows.insert(rows.end(), q.begin(), q.end());
            runs.push_back({count, piece.count, piece.position, std::ssize(table), piece.shared});
            table.insert(table.end(), piece.sequence->begin(), piece.sequence->end());
            count += piece.count;
        }
        const GappedMatrix q(device_, rows, count, wide, gap, shape_.dtype);
        const GappedMatrix out(device_, {}, count, shape_.heads * shape_.value_size(), gap,
                               shape_.dtype);
        device_->paged_attention({.q = q.matrix(),
                                  .heads = shape_.heads,
                                  .pages = pages_,
                                  .runs = runs,
                                  .page_table = table,
                                  .scale = shape_.scale(),
                                  .out = out.matrix()},
                                 device_.stream());
        return out.values();
    }

    [[nodiscard]] static std::vector<float> slice(const std::vector<float>& values,
                                                  std::int64_t row, std::int64_t count,
                                                  std::int64_t cols) {
        return {values.begin() + row * cols, values.begin() + (row + count) * cols};
    }

  private:
    const DeviceUnderTest& device_;
    AttentionShape shape_;
    kernels::KvPages pages_;
    kernels::DeviceBuffer<std::byte> memory_;
    std::vector<std::int32_t> free_;
};

}  // namespace rankwise::test
