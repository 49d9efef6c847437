// The decoder in plain loops and in double: logits and log-probabilities of one sequence.
#pragma once

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "src/model/rope_table.hpp"
#include "src/model/weights.hpp"

namespace rankwise::test::reference {

using Vector = std::vector<double>;

/// Llama, Qwen2 and Qwen3 as their configuration says, written from their definitions.
struct Model {
    model::ModelConfig config;
    std::map<std::string, Vector> weights;  ///< by Hugging Face name, row-major

    /// Log-probabilities of tokens 1, 2, … given those before: log-softmax(logits / temperature)
    /// over the first `ids` rows of the head.
    [[nodiscard]] std::vector<Vector> distributions(std::span<const TokenId> tokens,
                                                    double temperature, std::int64_t ids) const {
        std::vector<Vector> rows = logits(tokens);
        for (Vector& row : rows) {
            row.resize(static_cast<std::size_t>(ids));
            double largest = -INFINITY;
            for (double& x : row) largest = std::max(largest, x /= temperature);
            double sum = 0.0;
            for (const double x : row) sum += std::exp(x - largest);
            for (double& x : row) x -= largest + std::log(sum);
        }
        return rows;
    }

    /// [tokens][vocabulary]
    [[nodiscard]] std::vector<Vector> logits(std::span<const TokenId> tokens) const {
        const auto hidden = static_cast<std::size_t>(config.hidden);
        std::vector<Vector> x;
        for (const TokenId token : tokens) {
            const auto from = at("model.embed_tokens.weight").begin() +
                              static_cast<std::ptrdiff_t>(token * config.hidden);
            x.emplace_back(from, from + static_cast<std::ptrdiff_t>(hidden));
        }
        for (std::int64_t l = 0; l < config.layers; ++l) {
            const std::string layer = "model.layers." + std::to_string(l) + ".";
            attention(layer, x);
            for (Vector& row : x) {
                const Vector normed = norm(row, at(layer + "post_attention_layernorm.weight"));
                Vector gate = linear(normed, layer + "mlp.gate_proj");
                const Vector up = linear(normed, layer + "mlp.up_proj");
                for (std::size_t i = 0; i < gate.size(); ++i) {
                    gate[i] *= up[i] / (1.0 + std::exp(-gate[i]));
                }
                add(row, linear(gate, layer + "mlp.down_proj"));
            }
        }
        const char* head = config.tied ? "model.embed_tokens" : "lm_head";
        for (Vector& row : x) row = linear(norm(row, at("model.norm.weight")), head);
        return x;
    }

  private:
    [[nodiscard]] const Vector& at(const std::string& name) const { return weights.at(name); }

    static void add(Vector& to, const Vector& what) {
        for (std::size_t i = 0; i < to.size(); ++i) to[i] += what[i];
    }

    [[nodiscard]] Vector norm(const Vector& x, const Vector& weight) const {
        double squares = 0.0;
        for (const double value : x) squares += value * value;
        const double scale =
            1.0 / std::sqrt(squares / static_cast<double>(x.size()) + config.rms_norm_eps);
        Vector y(x.size());
        for (std::size_t i = 0; i < x.size(); ++i) y[i] = x[i] * scale * weight[i];
        return y;
    }

    [[nodiscard]] Vector linear(const Vector& x, const std::string& name) const {
        const Vector& weight = at(name + ".weight");
        Vector y(weight.size() / x.size());
        const auto bias = weights.find(name + ".bias");
        for (std::size_t o = 0; o < y.size(); ++o) {
            if (bias != weights.end()) y[o] = bias->second[o];
            for (std::size_t i = 0; i < x.size(); ++i) y[o] += weight[o * x.size() + i] * x[i];
        }
        return y;
    }

    /// The heads of one row, normed if the family does so, and rotated to their position.
    void rotate(Vector& heads, const std::string& norm_name, std::int64_t position) const {
        const auto size = static_cast<std::size_t>(config.head_dim);
        const model::RopeFrequencies rope =
            model::rope_frequencies(config.rope, config.head_dim, config.max_position);
        for (std::size_t begin = 0; begin < heads.size(); begin += size) {
            Vector head(heads.begin() + static_cast<std::ptrdiff_t>(begin),
                        heads.begin() + static_cast<std::ptrdiff_t>(begin + size));
            if (config.qk_norm) head = norm(head, at(norm_name));
            for (std::size_t i = 0; i < size / 2; ++i) {
                const double angle = static_cast<double>(position) * rope.inverse[i];
                const double c = std::cos(angle) * rope.attention_factor;
                const double s = std::sin(angle) * rope.attention_factor;
                const double a = head[i];
                const double b = head[i + size / 2];
                heads[begin + i] = a * c - b * s;
                heads[begin + i + size / 2] = b * c + a * s;
            }
        }
    }

    void attention(const std::string& layer, std::vector<Vector>& x) const {
        const std::string name = layer + "self_attn.";
        const auto size = static_cast<std::size_t>(config.head_dim);
        const auto group = static_cast<std::size_t>(config.heads / config.kv_heads);
        std::vector<Vector> k;
        std::vector<Vector> v;
        for (std::size_t t = 0; t < x.size(); ++t) {
            const Vector normed = norm(x[t], at(layer + "input_layernorm.weight"));
            Vector q = linear(normed, name + "q_proj");
            k.push_back(linear(normed, name + "k_proj"));
            v.push_back(linear(normed, name + "v_proj"));
            rotate(q, name + "q_norm.weight", static_cast<std::int64_t>(t));
            rotate(k.back(), name + "k_norm.weight", static_cast<std::int64_t>(t));
            Vector out(q.size(), 0.0);
            for (std::size_t h = 0; h < static_cast<std::size_t>(config.heads); ++h) {
                const std::size_t kv = h / group * size;
                Vector weight(t + 1, 0.0);
                double sum = 0.0;
                for (std::size_t j = 0; j <= t; ++j) {
                    for (std::size_t i = 0; i < size; ++i) {
                        weight[j] += q[h * size + i] * k[j][kv + i];
                    }
                    weight[j] = std::exp(weight[j] / std::sqrt(static_cast<double>(size)));
                    sum += weight[j];
                }
                for (std::size_t j = 0; j <= t; ++j) {
                    for (std::size_t i = 0; i < size; ++i) {
                        out[h * size + i] += weight[j] / sum * v[j][kv + i];
                    }
                }
            }
            add(x[t], linear(out, name + "o_proj"));
        }
    }
};

}  // namespace rankwise::test::reference
