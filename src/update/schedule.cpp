#include "src/update/schedule.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "src/base/error.hpp"
#include "src/base/maths.hpp"

namespace rankwise::update {
namespace {

double fraction(std::int64_t a, std::int64_t b) {
    return static_cast<double>(a) / static_cast<double>(std::max<std::int64_t>(b, 1));
}

double half_cosine(double progress, double cycles) {
    return std::max(0.0, 0.5 * (1.0 + maths::cos(2.0 * std::numbers::pi * cycles * progress)));
}

/// Factor after warm-up that falls to the minimum.
double with_minimum(double factor, double minimum) {
    return factor * (1.0 - minimum) + minimum;
}

double stable_decay(const Schedule& s, std::int64_t step) {
    const std::int64_t decay_begin = s.training_steps - s.decay_steps;
    double factor = 1.0;
    if (step < s.warmup_steps) {
        const double progress = fraction(step, s.warmup_steps);
        factor = s.warmup_type == "cosine" ? 0.5 * (1.0 - maths::cos(std::numbers::pi * progress))
                                           : progress;
    } else if (step >= s.training_steps) {
        return s.min_lr_ratio;
    } else if (step >= decay_begin) {
        const double progress = fraction(step - decay_begin, s.decay_steps);
        if (s.decay_type == "linear") {
            factor = 1.0 - progress;
        } else if (s.decay_type == "1-sqrt") {
            factor = 1.0 - std::sqrt(progress);
        } else {
            factor = half_cosine(progress, s.num_cycles);
        }
    } else {
        return 1.0;
    }
    return with_minimum(factor, s.min_lr_ratio);
}

double factor_of(const Schedule& s, std::int64_t step) {
    if (s.name == "constant") return 1.0;
    if (s.name == "warmup_stable_decay") return stable_decay(s, step);
    if (s.name == "cosine_warmup_with_min_lr") {
        if (step < s.warmup_steps) return fraction(step + 1, s.warmup_steps);
        const double progress =
            fraction(step - s.warmup_steps + 1, s.training_steps - s.warmup_steps);
        return with_minimum(half_cosine(progress, s.num_cycles), s.min_lr_ratio);
    }
    if (step < s.warmup_steps) return fraction(step, s.warmup_steps);
    if (s.name == "constant_with_warmup") return 1.0;
    const double progress = fraction(step - s.warmup_steps, s.training_steps - s.warmup_steps);
    if (s.name == "linear") return with_minimum(std::max(0.0, 1.0 - progress), s.min_lr_ratio);
    if (s.name == "cosine") return half_cosine(progress, s.num_cycles);
    if (s.name == "cosine_with_min_lr") {
        return with_minimum(half_cosine(progress, s.num_cycles), s.min_lr_ratio);
    }
    throw BadInput(fmt::format("unknown schedule \"{}\"", s.name));
}

}  // namespace

std::vector<std::string> schedule_names() {
    return {"constant",
            "constant_with_warmup",
            "linear",
            "cosine",
            "cosine_with_min_lr",
            "cosine_warmup_with_min_lr",
            "warmup_stable_decay"};
}

double learning_rate(const Schedule& schedule, std::int64_t step) {
    return schedule.base_lr * factor_of(schedule, step);
}

}  // namespace rankwise::update
