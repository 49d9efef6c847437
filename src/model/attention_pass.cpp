#include "src/model/attention_pass.hpp"

#include <cmath>

#include "src/base/maths.hpp"

namespace rankwise::model {
namespace {

/// 1 / sqrt(size of a query), with YaRN's mscale squared where the configuration weighs all of a
/// head (DeepSeek-V2 (2024) appendix on YaRN).
float attention_scale(const ModelConfig& config) {
    double scale = 1.0 / std::sqrt(static_cast<double>(config.head_dim));
    const RopeConfig& rope = config.rope;
    if (config.latent.used() && rope.scaling == RopeScaling::yarn && rope.mscale_all_dim != 0.0 &&
        rope.factor > 1.0) {
        const double mscale = 0.1 * rope.mscale_all_dim * maths::log(rope.factor) + 1.0;
        scale *= mscale * mscale;
    }
    return static_cast<float>(scale);
}

}  // namespace

AttentionShape attention_shape(const Weights& weights) {
    const ModelConfig& config = weights.config();
    const Part& part = weights.part();
    AttentionShape shape{.heads = part.heads.size(),
                         .kv_heads = part.kv_heads.size(),
                         .key_dim = config.head_dim,
                         .value_dim = config.head_dim,
                         .scale = attention_scale(config),
                         .dtype = config.dtype};
    if (config.latent.used()) {
        shape.kv_heads = 1;
        shape.key_dim = config.latent.key_dim();
        shape.value_dim = config.latent.kv_rank;
    }
    return shape;
}

}  // namespace rankwise::model
