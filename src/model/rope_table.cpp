#include "src/model/rope_table.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "src/base/maths.hpp"

namespace rankwise::model {
namespace {

/// MODEL configuration "yarn": frequencies below a ramp are divided by the factor, those above
/// kept.
void stretch_yarn(const RopeConfig& rope, std::int64_t head_dim, RopeFrequencies& out) {
    const auto dim = static_cast<double>(head_dim);
    const auto corrected = [&](double rotations) {
        return dim *
               maths::log(static_cast<double>(rope.original_max_position) /
                          (2.0 * std::numbers::pi * rotations)) /
               (2.0 * maths::log(rope.theta));
    };
    const double low = std::max(std::floor(corrected(rope.beta_fast)), 0.0);
    double high = std::min(std::ceil(corrected(rope.beta_slow)), dim - 1.0);
    if (low == high) high += 0.001;
    for (std::size_t i = 0; i < out.inverse.size(); ++i) {
        const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
        out.inverse[i] = out.inverse[i] * (1.0 - ramp) + out.inverse[i] / rope.factor * ramp;
    }
    const auto mscale = [&](double weight) {
        return rope.factor <= 1.0 ? 1.0 : 0.1 * weight * maths::log(rope.factor) + 1.0;
    };
    if (rope.attention_factor != 0.0) {
        out.attention_factor = rope.attention_factor;
    } else if (rope.mscale != 0.0 && rope.mscale_all_dim != 0.0) {
        out.attention_factor = mscale(rope.mscale) / mscale(rope.mscale_all_dim);
    } else {
        out.attention_factor = mscale(1.0);
    }
}

void stretch_llama3(const RopeConfig& rope, RopeFrequencies& out) {
    const auto original = static_cast<double>(rope.original_max_position);
    for (double& inverse : out.inverse) {
        const double wavelength = 2.0 * std::numbers::pi / inverse;
        if (wavelength < original / rope.high_freq_factor) continue;
        if (wavelength > original / rope.low_freq_factor) {
            inverse /= rope.factor;
        } else {
            const double smooth = (original / wavelength - rope.low_freq_factor) /
                                  (rope.high_freq_factor - rope.low_freq_factor);
            inverse = (1.0 - smooth) * inverse / rope.factor + smooth * inverse;
        }
    }
}

}  // namespace

RopeFrequencies rope_frequencies(const RopeConfig& rope, std::int64_t head_dim,
                                 std::int64_t positions) {
    RopeFrequencies out;
    const auto dim = static_cast<double>(head_dim);
    double theta = rope.theta;
    if (rope.scaling == RopeScaling::dynamic) {
        const auto original = static_cast<double>(rope.original_max_position);
        const double length = std::max(static_cast<double>(positions), original);
        theta *=
            maths::pow(rope.factor * length / original - (rope.factor - 1.0), dim / (dim - 2.0));
    }
    for (std::int64_t i = 0; i < head_dim / 2; ++i) {
        out.inverse.push_back(maths::pow(theta, -2.0 * static_cast<double>(i) / dim));
    }
    switch (rope.scaling) {
        case RopeScaling::none:
        case RopeScaling::dynamic:
            break;
        case RopeScaling::linear:
            for (double& inverse : out.inverse) inverse /= rope.factor;
            break;
        case RopeScaling::llama3:
            stretch_llama3(rope, out);
            break;
        case RopeScaling::yarn:
            stretch_yarn(rope, head_dim, out);
            break;
    }
    return out;
}

RopeTable rope_table(const RopeConfig& rope, std::int64_t head_dim, std::int64_t positions) {
    const RopeFrequencies frequencies = rope_frequencies(rope, head_dim, positions);
    RopeTable table{.positions = positions};
    table.cosine.reserve(static_cast<std::size_t>(positions * head_dim / 2));
    table.sine.reserve(table.cosine.capacity());
    for (std::int64_t position = 0; position < positions; ++position) {
        for (const double inverse : frequencies.inverse) {
            const double angle = static_cast<double>(position) * inverse;
            table.cosine.push_back(
                static_cast<float>(maths::cos(angle) * frequencies.attention_factor));
            table.sine.push_back(
                static_cast<float>(maths::sin(angle) * frequencies.attention_factor));
        }
    }
    return table;
}

}  // namespace rankwise::model
