// What the ways through a layer have in common: its rows, and the columns of q, k and v.
#pragma once

#include <span>

#include "src/model/context.hpp"
#include "src/model/weights.hpp"

namespace rankwise::model {

/// Columns of q, k and v in their stacked matrix.
struct QkvColumns {
    explicit QkvColumns(const Part& part)
        : q{0, part.q_size()}, k{q.end, q.end + part.kv_size()}, v{k.end, k.end + part.kv_size()} {}
    Range q, k, v;
};

/// q and k of stacked rows turned to their positions, or (`inverse`) back.
void rotate(Compute& compute, const Weights& weights, std::span<const std::int32_t> positions,
            kernels::Matrix qkv, bool inverse);

/// work(rows) for blocks of rows, or for all rows where tensor ranks share them out and meet.
void in_rows(Compute& compute, const Weights& weights, std::int64_t rows,
             FunctionRef<void(Range rows)> work);

}  // namespace rankwise::model
