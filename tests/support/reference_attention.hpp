// Attention by plain loops: in the exact order of NUMERICS N5 and kernels/cpu/README.md, to be
// compared with ==, and in double without any order, to bound errors and to differentiate.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/attention.hpp"
#include "kernels/cpu/thread_team.hpp"
#include "tests/support/reference_bf16.hpp"

namespace rankwise::test {

/// Heads and a scale; matrices are dense: q [rows, heads * head_dim], k [rows, kv_heads *
/// head_dim], v [rows, kv_heads * value_size()].
struct AttentionShape {
    std::int64_t heads = 1;
    std::int64_t kv_heads = 1;
    std::int64_t head_dim = 1;
    std::int64_t value_dim = 0;  ///< 0: as head_dim
    DType dtype = DType::f32;    ///< of what goes in and comes out: bf16 values are floats here too

    [[nodiscard]] std::int64_t value_size() const { return value_dim > 0 ? value_dim : head_dim; }
    [[nodiscard]] std::int64_t group() const { return heads / kv_heads; }
    [[nodiscard]] float scale() const {
        return 1.0F / std::sqrt(static_cast<float>(head_dim)) * 0.97F;  // no power of two
    }
    [[nodiscard]] std::string text() const {
        return std::to_string(heads) + "/" + std::to_string(kv_heads) + " heads of size " +
               std::to_string(head_dim) + " with values of size " + std::to_string(value_size()) +
               (dtype == DType::bf16 ? ", bf16" : "");
    }
};

template <class Real>
struct AttentionInput {
    std::int64_t rows = 0;
    std::vector<Real> q;
    std::vector<Real> k;
    std::vector<Real> v;
    std::vector<Real> dout;
};

inline std::vector<float> random_values(std::int64_t count, std::uint32_t seed, float size = 1.0F) {
    std::mt19937 bits(seed);
    std::vector<float> values(static_cast<std::size_t>(count));
    for (float& value : values) {
        value = size * (static_cast<float>(bits() >> 8) / 8388608.0F - 1.0F);
    }
    return values;
}

/// Values as elements of a type hold them.
inline std::vector<float> rounded_to(DType dtype, const std::vector<float>& values) {
    return dtype == DType::bf16 ? widened(to_bf16(values)) : values;
}

inline AttentionInput<float> random_attention_input(const AttentionShape& shape, std::int64_t rows,
                                                    std::uint32_t seed) {
    const auto some = [&](std::int64_t count, std::uint32_t which, float size) {
        return rounded_to(shape.dtype, random_values(count, which, size));
    };
    return {rows, some(rows * shape.heads * shape.head_dim, seed, 3.0F),
            some(rows * shape.kv_heads * shape.head_dim, seed + 1, 3.0F),
            some(rows * shape.kv_heads * shape.value_size(), seed + 2, 1.0F),
            some(rows * shape.heads * shape.value_size(), seed + 3, 1.0F)};
}

/// The rows of the keys that each row attends to, positions ascending, its own last.
inline std::vector<std::vector<std::int64_t>> keys_of_rows(
    const std::vector<kernels::AttentionSegment>& segments) {
    std::vector<std::vector<std::int64_t>> keys;
    for (const auto& segment : segments) {
        std::vector<std::int64_t> path;
        for (auto above = segment.parent; above >= 0;) {
            const auto& parent = segments[static_cast<std::size_t>(above)];
            for (std::int64_t r = parent.rows; r-- > 0;) path.push_back(parent.row_begin + r);
            above = parent.parent;
        }
        std::reverse(path.begin(), path.end());
        for (std::int64_t r = 0; r < segment.rows; ++r) {
            path.push_back(segment.row_begin + r);
            keys.push_back(path);
        }
    }
    return keys;
}

namespace reference {

/// The sequence of kernels/cpu/isa/maths.hpp, one lane.
inline float exp(float x) {
    if (x < -0x1.5d589ep+6F) return 0.0F;
    if (!(x < 0x1.62e43p+6F)) return x + std::numeric_limits<float>::infinity();
    const float shift = 0x1.8p23F;
    const float shifted = std::fma(x, 0x1.715476p+0F, shift);
    const float n = shifted - shift;
    float r = std::fma(-n, 0x1.62e4p-1F, x);
    r = std::fma(-n, 0x1.7f7d1cp-20F, r);
    float q = 0x1.6a2432p-10F;
    for (float c : {0x1.1239e2p-7F, 0x1.5558f2p-5F, 0x1.555492p-3F, 0x1.fffffcp-2F}) {
        q = std::fma(q, r, c);
    }
    const float p = 1.0F + std::fma(q, r * r, r);
    std::uint32_t bits = 0;
    std::uint32_t exponent = 0;
    std::memcpy(&bits, &p, 4);
    std::memcpy(&exponent, &shifted, 4);
    bits += exponent << 23U;
    float result = 0;
    std::memcpy(&result, &bits, 4);
    return result;
}

/// The tree over sixteen lanes: i with i + 8, then i + 4, i + 2, i + 1.
inline float lane_tree(const float* lanes) {
    float sums[16];
    std::copy_n(lanes, 16, sums);
    for (int step = 8; step > 0; step /= 2) {
        for (int i = 0; i < step; ++i) sums[i] = sums[i] + sums[i + step];
    }
    return sums[0];
}

inline float dot(const float* a, const float* b, std::int64_t count, DType dtype) {
    float sum = 0.0F;
    if (dtype == DType::bf16) {
        for (std::int64_t d = 0; d < count; d += 2)
            sum = reference_pair(a[d], b[d], a[d + 1], b[d + 1], sum);
        return sum;
    }
    for (std::int64_t d = 0; d < count; ++d) sum = std::fma(a[d], b[d], sum);
    return sum;
}

/// One row and query head against `keys`; k and v point at the KV head in its first row.
struct AttentionRow {
    std::vector<float> out;
    float maximum = 0;
    float denominator = 0;
};

inline AttentionRow attention_row(const float* q, const float* k, const float* v,
                                  const AttentionShape& shape,
                                  const std::vector<std::int64_t>& keys) {
    const auto size = static_cast<std::size_t>(shape.value_size());
    const std::int64_t k_stride = shape.kv_heads * shape.head_dim;
    const std::int64_t v_stride = shape.kv_heads * shape.value_size();
    const auto count = static_cast<std::int64_t>(keys.size());
    AttentionRow merged;
    for (std::int64_t span = 0; span < count; span += kernels::kKeySpan) {
        const std::int64_t span_end = std::min(count, span + kernels::kKeySpan);
        float m = -std::numeric_limits<float>::infinity();
        float lanes[16] = {};
        std::vector<float> o(size, 0.0F);
        for (std::int64_t block = span; block < span_end; block += kernels::kKeyBlock) {
            const std::int64_t end = std::min(span_end, block + kernels::kKeyBlock);
            std::vector<float> s;
            for (std::int64_t j = block; j < end; ++j) {
                s.push_back(dot(q, k + keys[static_cast<std::size_t>(j)] * k_stride, shape.head_dim,
                                shape.dtype) *
                            shape.scale());
            }
            const float top = *std::max_element(s.begin(), s.end());
            if (top > m) {
                const float c = exp(m - top);
                for (float& lane : lanes) lane = lane * c;
                for (float& x : o) x = x * c;
                m = top;
            }
            for (std::int64_t j = block; j < end; ++j) {
                const float p = exp(s[static_cast<std::size_t>(j - block)] - m);
                lanes[j % 16] = lanes[j % 16] + p;
                const float* value = v + keys[static_cast<std::size_t>(j)] * v_stride;
                for (std::size_t d = 0; d < size; ++d) o[d] = std::fma(p, value[d], o[d]);
            }
        }
        const float l = lane_tree(lanes);
        if (span == 0) {
            merged = {o, m, l};
            continue;
        }
        const float top = std::max(m, merged.maximum);
        const float c1 = exp(merged.maximum - top);
        const float c2 = exp(m - top);
        for (std::size_t d = 0; d < size; ++d) {
            merged.out[d] = std::fma(o[d], c2, merged.out[d] * c1);
        }
        merged.denominator = std::fma(l, c2, merged.denominator * c1);
        merged.maximum = top;
    }
    for (float& x : merged.out) x = x / merged.denominator;
    merged.out = rounded_to(shape.dtype, merged.out);
    merged.maximum += 0.0F;
    return merged;
}

struct Attention {
    std::vector<float> out;
    std::vector<float> maximum;
    std::vector<float> denominator;
};

inline Attention attention(const AttentionShape& shape, const AttentionInput<float>& in,
                           const std::vector<kernels::AttentionSegment>& segments) {
    const kernels::cpu::FlushDenormals flush;
    const std::int64_t dim = shape.head_dim;
    Attention result;
    const auto keys = keys_of_rows(segments);
    for (std::int64_t t = 0; t < in.rows; ++t) {
        for (std::int64_t h = 0; h < shape.heads; ++h) {
            const std::int64_t kv = h / shape.group();
            const AttentionRow row = attention_row(
                in.q.data() + (t * shape.heads + h) * dim, in.k.data() + kv * dim,
                in.v.data() + kv * shape.value_size(), shape, keys[static_cast<std::size_t>(t)]);
            result.out.insert(result.out.end(), row.out.begin(), row.out.end());
            result.maximum.push_back(row.maximum);
            result.denominator.push_back(row.denominator);
        }
    }
    return result;
}

struct AttentionGradients {
    std::vector<float> dq;
    std::vector<float> dk;
    std::vector<float> dv;
};

/// A value that may not exist: adding to nothing is not adding to zero.
struct Maybe {
    bool exists = false;
    std::vector<float> x;

    void add(const std::vector<float>& other) {
        if (!exists) {
            x = other;
            exists = true;
            return;
        }
        for (std::size_t i = 0; i < x.size(); ++i) x[i] = x[i] + other[i];
    }
};

inline Maybe sum_heads(const Contraction& order, const std::vector<Maybe>& heads, Range mine,
                       std::size_t level, std::int64_t leaf, std::int64_t width) {
    Maybe total;
    if (level == order.tree.radices.size()) {
        for (Range range : order.leaves[static_cast<std::size_t>(leaf)]) {
            for (std::int64_t h = range.begin; h < range.end; ++h) {
                if (mine.contains(h)) total.add(heads[static_cast<std::size_t>(h)].x);
            }
        }
        return total;
    }
    const std::int64_t part = width / order.tree.radices[level];
    for (std::int64_t child = leaf; child < leaf + width; child += part) {
        const Maybe node = sum_heads(order, heads, mine, level + 1, child, part);
        if (node.exists) total.add(node.x);
    }
    return total;
}

inline AttentionGradients attention_gradients(
    const AttentionShape& shape, const AttentionInput<float>& in, const Attention& forward,
    const std::vector<kernels::AttentionSegment>& segments, const Contraction& head_order) {
    const kernels::cpu::FlushDenormals flush;
    const std::int64_t dim = shape.head_dim;
    const std::int64_t value_dim = shape.value_size();
    const auto keys = keys_of_rows(segments);
    AttentionGradients result{std::vector<float>(in.q.size()), std::vector<float>(in.k.size()),
                              std::vector<float>(in.v.size())};
    std::vector<Maybe> dk(static_cast<std::size_t>(shape.heads));  // [rows, head_dim] a head
    std::vector<Maybe> dv(static_cast<std::size_t>(shape.heads));  // [rows, value_dim]
    for (std::int64_t h = 0; h < shape.heads; ++h) {
        std::vector<Maybe> dk_rows(static_cast<std::size_t>(in.rows));
        std::vector<Maybe> dv_rows(static_cast<std::size_t>(in.rows));
        const std::int64_t kv = h / shape.group();
        for (const auto& segment : segments) {
            std::vector<float> dk_given(static_cast<std::size_t>(in.rows * dim), 0.0F);
            std::vector<float> dv_given(static_cast<std::size_t>(in.rows * value_dim), 0.0F);
            for (std::int64_t t = segment.row_begin; t < segment.row_begin + segment.rows; ++t) {
                const std::int64_t head = t * shape.heads + h;
                const float* q = in.q.data() + head * dim;
                const float* dout = in.dout.data() + head * value_dim;
                const float* out = forward.out.data() + head * value_dim;
                const float m = forward.maximum[static_cast<std::size_t>(t * shape.heads + h)];
                const float l = forward.denominator[static_cast<std::size_t>(t * shape.heads + h)];
                float lanes[16] = {};
                for (std::int64_t d = 0; d < value_dim; ++d) {
                    lanes[d % 16] = std::fma(dout[d], out[d], lanes[d % 16]);
                }
                const float delta = lane_tree(lanes);
                float* dq = result.dq.data() + head * dim;
                for (std::int64_t key : keys[static_cast<std::size_t>(t)]) {
                    const float* k = in.k.data() + (key * shape.kv_heads + kv) * dim;
                    const float* v = in.v.data() + (key * shape.kv_heads + kv) * value_dim;
                    const float p = exp(dot(q, k, dim, shape.dtype) * shape.scale() - m) / l;
                    const float ds = p * (dot(dout, v, value_dim, shape.dtype) - delta);
                    for (std::int64_t d = 0; d < dim; ++d) {
                        dq[d] = std::fma(ds, k[d], dq[d]);
                        float& dk_sum = dk_given[static_cast<std::size_t>(key * dim + d)];
                        dk_sum = std::fma(ds, q[d], dk_sum);
                    }
                    for (std::int64_t d = 0; d < value_dim; ++d) {
                        float& dv_sum = dv_given[static_cast<std::size_t>(key * value_dim + d)];
                        dv_sum = std::fma(p, dout[d], dv_sum);
                    }
                }
                for (std::int64_t d = 0; d < dim; ++d) dq[d] = dq[d] * shape.scale();
            }
            if (segment.rows == 0) continue;
            const std::int64_t last = segment.row_begin + segment.rows - 1;
            for (std::int64_t key : keys[static_cast<std::size_t>(last)]) {
                const auto slice = [&](const std::vector<float>& all, std::int64_t size) {
                    return std::vector<float>(all.begin() + key * size,
                                              all.begin() + (key + 1) * size);
                };
                dk_rows[static_cast<std::size_t>(key)].add(slice(dk_given, dim));
                dv_rows[static_cast<std::size_t>(key)].add(slice(dv_given, value_dim));
            }
        }
        std::vector<float> dk_head;
        std::vector<float> dv_head;
        for (const Maybe& row : dk_rows) {
            for (float x : row.x) dk_head.push_back(x * shape.scale());
        }
        for (const Maybe& row : dv_rows) dv_head.insert(dv_head.end(), row.x.begin(), row.x.end());
        dk[static_cast<std::size_t>(h)].add(dk_head);
        dv[static_cast<std::size_t>(h)].add(dv_head);
    }
    for (std::int64_t kv = 0; kv < shape.kv_heads; ++kv) {
        const Range mine{kv * shape.group(), (kv + 1) * shape.group()};
        const auto leaves = static_cast<std::int64_t>(head_order.leaves.size());
        const Maybe dk_total = sum_heads(head_order, dk, mine, 0, 0, leaves);
        const Maybe dv_total = sum_heads(head_order, dv, mine, 0, 0, leaves);
        for (std::int64_t t = 0; t < in.rows; ++t) {
            const std::int64_t to = t * shape.kv_heads + kv;
            std::copy_n(dk_total.x.begin() + t * dim, dim, result.dk.begin() + to * dim);
            std::copy_n(dv_total.x.begin() + t * value_dim, value_dim,
                        result.dv.begin() + to * value_dim);
        }
    }
    return {rounded_to(shape.dtype, result.dq), rounded_to(shape.dtype, result.dk),
            rounded_to(shape.dtype, result.dv)};
}

/// Softmax attention in double, by its definition.
inline std::vector<double> attention_in_double(const AttentionShape& shape,
                                               const AttentionInput<double>& in,
                                               const std::vector<std::vector<std::int64_t>>& keys) {
    const std::int64_t dim = shape.head_dim;
    const std::int64_t value_dim = shape.value_size();
    std::vector<double> out(static_cast<std::size_t>(in.rows * shape.heads * value_dim), 0.0);
    for (std::int64_t t = 0; t < in.rows; ++t) {
        for (std::int64_t h = 0; h < shape.heads; ++h) {
            const std::int64_t head = t * shape.heads + h;
            const std::int64_t kv = h / shape.group();
            std::vector<double> p;
            for (std::int64_t key : keys[static_cast<std::size_t>(t)]) {
                double s = 0;
                for (std::int64_t d = 0; d < dim; ++d) {
                    s += in.q[static_cast<std::size_t>(head * dim + d)] *
                         in.k[static_cast<std::size_t>((key * shape.kv_heads + kv) * dim + d)];
                }
                p.push_back(s * static_cast<double>(shape.scale()));
            }
            const double top = *std::max_element(p.begin(), p.end());
            double sum = 0;
            for (double& x : p) sum += x = std::exp(x - top);
            for (std::size_t j = 0; j < p.size(); ++j) {
                const std::int64_t key = keys[static_cast<std::size_t>(t)][j];
                for (std::int64_t d = 0; d < value_dim; ++d) {
                    out[static_cast<std::size_t>(head * value_dim + d)] +=
                        p[j] / sum *
                        in.v[static_cast<std::size_t>((key * shape.kv_heads + kv) * value_dim + d)];
                }
            }
        }
    }
    return out;
}

inline AttentionInput<double> in_double(const AttentionInput<float>& in) {
    const auto widen = [](const std::vector<float>& x) {
        return std::vector<double>(x.begin(), x.end());
    };
    return {in.rows, widen(in.q), widen(in.k), widen(in.v), widen(in.dout)};
}

}  // namespace reference

/// Empty if the two hold the same bits, else where they first differ.
inline std::string first_difference(const std::vector<float>& found,
                                    const std::vector<float>& expected) {
    if (found.size() != expected.size()) {
        return std::to_string(found.size()) + " values, expected " +
               std::to_string(expected.size());
    }
    for (std::size_t i = 0; i < found.size(); ++i) {
        if (std::memcmp(&found[i], &expected[i], sizeof(float)) != 0) {
            char text[128];
            std::snprintf(text, sizeof text, "value %zu is %a, expected %a", i,
                          static_cast<double>(found[i]), static_cast<double>(expected[i]));
            return text;
        }
    }
    return {};
}

/// Segments given as {rows, parent}: rows and positions follow.
struct SegmentSketch {
    std::int64_t rows;
    std::int32_t parent;
};

inline std::vector<kernels::AttentionSegment> segments_of(
    const std::vector<SegmentSketch>& sketch) {
    std::vector<kernels::AttentionSegment> segments;
    std::int64_t row = 0;
    for (const auto& [rows, parent] : sketch) {
        segments.push_back({row, rows, 0, parent});
        row += rows;
    }
    for (std::size_t i = segments.size(); i-- > 0;) {
        if (segments[i].parent < 0) continue;
        const auto& parent = segments[static_cast<std::size_t>(segments[i].parent)];
        segments[i].position = parent.position + parent.rows;
    }
    return segments;
}

inline std::int64_t rows_of(const std::vector<kernels::AttentionSegment>& segments) {
    return segments.empty() ? 0 : segments.back().row_begin + segments.back().rows;
}

}  // namespace rankwise::test
