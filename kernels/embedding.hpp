// Token embedding: a look-up and its gradient.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/stream.hpp"
#include "kernels/tensor.hpp"

namespace rankwise::kernels {

/// out[t] = table[ids[t]], rounded to the type of `out`.
struct EmbedArgs {
    ConstMatrix table;                  ///< [vocabulary, hidden] f32, or the type of `out`
    std::span<const std::int32_t> ids;  ///< host
    Matrix out;                         ///< [T, hidden] f32 or bf16
};

/// drows[u] = the sum over the rows t with ids[t] == unique[u], t ascending, one fp32 accumulator
/// from zero.
struct EmbedGradientArgs {
    ConstMatrix dout;                      ///< [T, hidden] f32 or bf16
    std::span<const std::int32_t> ids;     ///< [T], host
    std::span<const std::int32_t> unique;  ///< the distinct ids, ascending
    Matrix drows;                          ///< [unique, hidden] f32: row u for unique[u]
};

class EmbeddingOps {
  public:
    virtual ~EmbeddingOps() = default;
    virtual void embed(const EmbedArgs& args, Stream& stream) = 0;
    virtual void embed_gradient(const EmbedGradientArgs& args, Stream& stream) = 0;
};

}  // namespace rankwise::kernels
