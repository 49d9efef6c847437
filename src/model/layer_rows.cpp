#include "src/model/layer_rows.hpp"

namespace rankwise::model {

void rotate(Compute& compute, const Weights& weights, std::span<const std::int32_t> positions,
            kernels::Matrix qkv, bool inverse) {
    const Part& part = weights.part();
    const QkvColumns columns(part);
    const auto turn = [&](Range range, std::int64_t heads) {
        compute.device.rope({.x = qkv.col_range(range),
                             .heads = heads,
                             .head_dim = part.head_dim,
                             .positions = positions,
                             .cosine = weights.cosine(),
                             .sine = weights.sine(),
                             .inverse = inverse},
                            compute.stream);
    };
    turn(columns.q, part.heads.size());
    turn(columns.k, part.kv_heads.size());
}

void in_rows(Compute& compute, const Weights& weights, std::int64_t rows,
             FunctionRef<void(Range rows)> work) {
    if (weights.split()) {
        work({0, rows});
    } else {
        compute.over_rows(rows, work);
    }
}

}  // namespace rankwise::model
