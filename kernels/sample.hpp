// Choosing a token from a row of logits.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "kernels/stream.hpp"
#include "kernels/tensor.hpp"

namespace rankwise::kernels {

/// How one row is sampled. Filters in this order on x = logit / temperature: top_k (ties at the
/// k-th place all stay), top_p (softmax of what is left; the most probable first, of equal ones the
/// lower id, until their sum reaches top_p; at least one; Holtzman et al. 2020), min_p (softmax of
/// what is left; drop p < min_p * max p): all in double. A row with a NaN is not filtered. Then
/// Gumbel-max in fp32: argmax of x - log(-log(u)), u = uniform_open of the word (position, id) of
/// the row's stream; ties to the lower id. temperature 0: argmax of the logits, ties to the lower
/// id. NaN is never chosen; a row without any number above -infinity gives id 0.
struct SampleRow {
    std::array<std::uint32_t, 2> key{};  ///< RandomStream::key()
    std::uint32_t position = 0;          ///< position of the token that is drawn
    double temperature = 1.0;            ///< finite, at least 0
    std::int64_t top_k = 0;              ///< 0: off
    double top_p = 1.0;                  ///< in [0, 1]; 1: off
    double min_p = 0.0;                  ///< in [0, 1]; 0: off
    std::int32_t forced = -1;            ///< take this id instead of drawing
};

struct SampleArgs {
    ConstMatrix logits;  ///< [T, columns] f32: the vocabulary from `first_column` on; a row with a
                         ///< filter needs the whole
    std::int64_t ids = 0;             ///< ids from here on are never chosen; more than first_column
    std::int64_t first_column = 0;    ///< a multiple of 4
    std::span<const SampleRow> rows;  ///< [T], host
    std::span<std::int32_t> tokens;   ///< [T], host; there when the call returns
    /// [T], host; or empty. What the token won with, so that parts of a vocabulary can be compared
    /// (ties to the lower id): -infinity if it won for want of any number, 0 if forced.
    std::span<float> scores = {};
};

/// The distribution that `sample` draws from, in double: exactly 0 for what is dropped, for the
/// columns from `ids` on and, where the choice is certain (forced, temperature 0), for all but it.
struct FilteredProbabilitiesArgs {
    ConstMatrix logits;  ///< [T, columns] f32, or f64
    std::int64_t ids = 0;
    std::span<const SampleRow> rows;
    DeviceSpan<double> probabilities;  ///< [T, columns]
};

class SampleOps {
  public:
    virtual ~SampleOps() = default;
    virtual void sample(const SampleArgs& args, Stream& stream) = 0;
    virtual void filtered_probabilities(const FilteredProbabilitiesArgs& args, Stream& stream) = 0;
};

}  // namespace rankwise::kernels
