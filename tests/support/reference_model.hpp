// The decoder in plain loops and in double: logits and log-probabilities of one sequence.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "src/model/rope_table.hpp"
#include "src/model/weights.hpp"

namespace rankwise::test::reference {

using Vector = std::vector<double>;

/// Llama, Qwen2, Qwen3 and DeepSeek as their configuration says, written from their definitions
/// (latent attention not absorbed: keys and values of every head).
struct Model {
    model::ModelConfig config;
    std::map<std::string, Vector> weights;  ///< by Hugging Face name, row-major

    /// Log-probabilities of tokens 1, 2, … given those before: log-softmax(logits / temperature)
    /// over the first `ids` rows of the head.
    [[nodiscard]] std::vector<Vector> distributions(std::span<const TokenId> tokens,
                                                    double temperature, std::int64_t ids) const {
        return log_softmax(logits(tokens), temperature, ids);
    }
    /// The same of rows of logits.
    [[nodiscard]] static std::vector<Vector> log_softmax(std::vector<Vector> rows,
                                                         double temperature, std::int64_t ids) {
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
        std::vector<Vector> x = hidden(tokens);
        for (Vector& row : x) row = linear(row, head());
        return x;
    }

    /// Of the module that predicts one token further (DeepSeek-V3 (2024) equations 21 to 23): row i
    /// of tokens - 1, from tokens 0 to i + 1, is of token i + 2. Embedding and head are the
    /// model's.
    [[nodiscard]] std::vector<Vector> further_logits(std::span<const TokenId> tokens) const {
        const std::string layer = layer_name(config.layers);
        const std::vector<Vector> states = hidden(tokens);
        std::vector<Vector> x;
        for (std::size_t i = 0; i + 1 < tokens.size(); ++i) {
            Vector joined = norm(embedding(tokens[i + 1]), at(layer + "enorm.weight"));
            const Vector state = norm(states[i], at(layer + "hnorm.weight"));
            joined.insert(joined.end(), state.begin(), state.end());
            x.push_back(linear(joined, layer + "eh_proj"));
        }
        pass(config.layers, x);
        for (Vector& row : x)
            row = linear(norm(row, at(layer + "shared_head.norm.weight")), head());
        return x;
    }

  private:
    [[nodiscard]] static std::string layer_name(std::int64_t layer) {
        return "model.layers." + std::to_string(layer) + ".";
    }
    [[nodiscard]] const char* head() const {
        return config.tied ? "model.embed_tokens" : "lm_head";
    }

    [[nodiscard]] Vector embedding(TokenId token) const {
        const auto from = at("model.embed_tokens.weight").begin() +
                          static_cast<std::ptrdiff_t>(token * config.hidden);
        return {from, from + static_cast<std::ptrdiff_t>(config.hidden)};
    }

    /// Hidden states after the final norm.
    [[nodiscard]] std::vector<Vector> hidden(std::span<const TokenId> tokens) const {
        std::vector<Vector> x;
        for (const TokenId token : tokens) x.push_back(embedding(token));
        for (std::int64_t l = 0; l < config.layers; ++l) pass(l, x);
        for (Vector& row : x) row = norm(row, at("model.norm.weight"));
        return x;
    }

    /// Through one layer.
    void pass(std::int64_t l, std::vector<Vector>& x) const {
        const std::string layer = layer_name(l);
        if (config.latent.used()) {
            latent_attention(layer, x);
        } else {
            attention(layer, x);
        }
        for (Vector& row : x) {
            const Vector normed = norm(row, at(layer + "post_attention_layernorm.weight"));
            add(row, config.has_experts(l) ? mixture(layer + "mlp.", normed)
                                           : mlp(layer + "mlp.", normed));
        }
    }

    [[nodiscard]] const Vector& at(const std::string& name) const { return weights.at(name); }

    static void add(Vector& to, const Vector& what) {
        for (std::size_t i = 0; i < to.size(); ++i) to[i] += what[i];
    }

    [[nodiscard]] Vector norm(const Vector& x, const Vector& weight) const {
        return norm(x, weight, config.rms_norm_eps);
    }
    [[nodiscard]] static Vector norm(const Vector& x, const Vector& weight, double eps) {
        double squares = 0.0;
        for (const double value : x) squares += value * value;
        const double scale = 1.0 / std::sqrt(squares / static_cast<double>(x.size()) + eps);
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

    [[nodiscard]] Vector mlp(const std::string& name, const Vector& x) const {
        Vector gate = linear(x, name + "gate_proj");
        const Vector up = linear(x, name + "up_proj");
        for (std::size_t i = 0; i < gate.size(); ++i) gate[i] *= up[i] / (1.0 + std::exp(-gate[i]));
        return linear(gate, name + "down_proj");
    }

    [[nodiscard]] Vector mixture(const std::string& name, const Vector& x) const {
        const model::ExpertsConfig& experts = config.experts;
        Vector scores = linear(x, name + "gate");
        double sum = 0.0;
        for (double& s : scores) {
            const bool sigmoid = experts.scoring == kernels::Scoring::sigmoid;
            s = sigmoid ? 1.0 / (1.0 + std::exp(-s)) : std::exp(s);
            sum += s;
        }
        if (experts.scoring == kernels::Scoring::softmax) {
            for (double& s : scores) s /= sum;
        }
        const std::vector<std::size_t> chosen = choice(name, scores);
        double total = 1.0;
        if (experts.normalise) {
            total = 0.0;
            for (const std::size_t e : chosen) total += scores[e];
        }
        Vector y(x.size(), 0.0);
        for (const std::size_t e : chosen) {
            Vector one = mlp(name + "experts." + std::to_string(e) + ".", x);
            for (double& value : one) value *= scores[e] / total * experts.scale;
            add(y, one);
        }
        if (experts.shared > 0) add(y, mlp(name + "shared_experts.", x));
        return y;
    }

    /// The experts that a row takes.
    [[nodiscard]] std::vector<std::size_t> choice(const std::string& name, Vector values) const {
        const model::ExpertsConfig& experts = config.experts;
        if (experts.has_bias()) add(values, at(name + "gate.e_score_correction_bias"));
        const auto best = [](const Vector& of, std::int64_t count) {
            std::vector<std::size_t> ids(of.size());
            for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = i;
            std::stable_sort(ids.begin(), ids.end(),
                             [&](std::size_t a, std::size_t b) { return of[a] > of[b]; });
            ids.resize(static_cast<std::size_t>(count));
            return ids;
        };
        const std::size_t size = values.size() / static_cast<std::size_t>(experts.groups);
        Vector worth;
        for (std::size_t begin = 0; begin < values.size(); begin += size) {
            Vector group(values.begin() + static_cast<std::ptrdiff_t>(begin),
                         values.begin() + static_cast<std::ptrdiff_t>(begin + size));
            std::sort(group.begin(), group.end(), std::greater<>());
            const bool two = experts.method == model::ChoiceMethod::noaux_tc && size > 1;
            worth.push_back(two ? group[0] + group[1] : group[0]);
        }
        Vector open(values.size(), -INFINITY);
        for (const std::size_t g : best(worth, experts.kept_groups)) {
            for (std::size_t e = g * size; e < (g + 1) * size; ++e) open[e] = values[e];
        }
        return best(open, experts.chosen);
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

    /// `size` elements from `begin` on, rotated to a position in pairs that stand side by side.
    void rotate_adjacent(Vector& of, std::size_t begin, std::int64_t position) const {
        const model::RopeFrequencies rope =
            model::rope_frequencies(config.rope, config.latent.rope_dim, config.max_position);
        for (std::size_t i = 0; i < rope.inverse.size(); ++i) {
            const double angle = static_cast<double>(position) * rope.inverse[i];
            const double c = std::cos(angle) * rope.attention_factor;
            const double s = std::sin(angle) * rope.attention_factor;
            double& a = of[begin + 2 * i];
            double& b = of[begin + 2 * i + 1];
            const double was = a;
            a = was * c - b * s;
            b = b * c + was * s;
        }
    }

    [[nodiscard]] double latent_scale() const {
        const model::RopeConfig& rope = config.rope;
        double mscale = 1.0;
        if (rope.scaling == model::RopeScaling::yarn && rope.mscale_all_dim != 0.0)
            mscale = 0.1 * rope.mscale_all_dim * std::log(rope.factor) + 1.0;
        return mscale * mscale / std::sqrt(static_cast<double>(config.head_dim));
    }

    void latent_attention(const std::string& layer, std::vector<Vector>& x) const {
        constexpr double kInnerEps = 1e-6;
        const std::string name = layer + "self_attn.";
        const model::LatentConfig& latent = config.latent;
        const auto nope = static_cast<std::size_t>(latent.nope_dim);
        const auto value = static_cast<std::size_t>(latent.value_dim);
        const auto rank = static_cast<std::ptrdiff_t>(latent.kv_rank);
        const auto query = static_cast<std::size_t>(config.head_dim);
        std::vector<Vector> up;      // nope keys and values of all heads
        std::vector<Vector> turned;  // the rotated key
        for (std::size_t t = 0; t < x.size(); ++t) {
            const auto position = static_cast<std::int64_t>(t);
            const Vector normed = norm(x[t], at(layer + "input_layernorm.weight"));
            Vector q = latent.q_rank > 0
                           ? linear(norm(linear(normed, name + "q_a_proj"),
                                         at(name + "q_a_layernorm.weight"), kInnerEps),
                                    name + "q_b_proj")
                           : linear(normed, name + "q_proj");
            const Vector down = linear(normed, name + "kv_a_proj_with_mqa");
            up.push_back(linear(norm({down.begin(), down.begin() + rank},
                                     at(name + "kv_a_layernorm.weight"), kInnerEps),
                                name + "kv_b_proj"));
            turned.emplace_back(down.begin() + rank, down.end());
            rotate_adjacent(turned.back(), 0, position);
            Vector out;
            for (std::size_t h = 0; h < static_cast<std::size_t>(config.heads); ++h) {
                rotate_adjacent(q, h * query + nope, position);
                Vector weight(t + 1, 0.0);
                double sum = 0.0;
                for (std::size_t j = 0; j <= t; ++j) {
                    for (std::size_t i = 0; i < nope; ++i)
                        weight[j] += q[h * query + i] * up[j][h * (nope + value) + i];
                    for (std::size_t i = nope; i < query; ++i)
                        weight[j] += q[h * query + i] * turned[j][i - nope];
                    weight[j] = std::exp(weight[j] * latent_scale());
                    sum += weight[j];
                }
                for (std::size_t i = 0; i < value; ++i) {
                    double total = 0.0;
                    for (std::size_t j = 0; j <= t; ++j)
                        total += weight[j] / sum * up[j][h * (nope + value) + nope + i];
                    out.push_back(total);
                }
            }
            add(x[t], linear(out, name + "o_proj"));
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
