// What attention reads and gives, whatever the family: the pass decides where keys and values come
// from.
#pragma once

#include <cstdint>

#include "src/base/function_ref.hpp"
#include "src/model/weights.hpp"

namespace rankwise::model {

/// Rotated queries, keys and values of a pass's rows.
struct AttentionInputs {
    kernels::ConstMatrix q;  ///< [T, heads * key_dim]
    kernels::ConstMatrix k;  ///< [T, kv_heads * key_dim]
    kernels::ConstMatrix v;  ///< [T, kv_heads * value_dim]; may be columns of k
};

/// Fills `out` [T, heads * value_dim] from them.
using AttentionPass = FunctionRef<void(const AttentionInputs& in, kernels::Matrix out)>;

/// The heads of this rank, and what scores are multiplied by. Latent attention in its absorbed form
/// has one KV head: its key is the latent and the rotated key, its value the latent.
struct AttentionShape {
    std::int64_t heads = 0;
    std::int64_t kv_heads = 0;
    std::int64_t key_dim = 0;
    std::int64_t value_dim = 0;
    float scale = 1.0F;
    DType dtype = DType::f32;  ///< of queries, keys and values
};
[[nodiscard]] AttentionShape attention_shape(const Weights& weights);

}  // namespace rankwise::model
