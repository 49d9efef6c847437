// Small values of samples, brought together in canonical order; and the order of a data set's
// epochs.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <numeric>
#include <optional>
#include <vector>

#include "parallel/mesh.hpp"
#include "src/base/philox.hpp"

namespace rankwise::stages {

/// Some doubles of one sample.
template <std::size_t N>
struct SampleValues {
    std::int64_t sample = 0;
    std::array<double, N> values{};
};

/// Collective over the pipeline axis, of which the last rank knows losses, then over the data axis:
/// values of all ranks, in no particular order.
template <class T>
[[nodiscard]] std::vector<T> gather_losses(const parallel::Mesh& mesh, const std::vector<T>& mine) {
    parallel::Communicator& data = mesh.axis(parallel::Axis::data);
    parallel::Communicator& pipeline = mesh.axis(parallel::Axis::pipeline);
    if (pipeline.size() == 1) return data.all_gather_v("sample values", mine).values;
    const std::vector<T> own = pipeline.all_gather_v("sample values", mine).values;
    return data.all_gather_v("sample values", own).values;
}

/// Collective. The values of all ranks by ascending sample, so that sums over them have one order
/// (N8).
template <std::size_t N>
[[nodiscard]] std::vector<SampleValues<N>> gather_by_sample(
    const parallel::Mesh& mesh, const std::vector<SampleValues<N>>& mine) {
    std::vector<SampleValues<N>> all = gather_losses(mesh, mine);
    std::sort(all.begin(), all.end(), [](const SampleValues<N>& a, const SampleValues<N>& b) {
        return a.sample < b.sample;
    });
    return all;
}

/// The i-th item of a stream that goes through `size` items again and again, each epoch in a random
/// order of its own; of a set without end: item i.
class EpochOrder {
  public:
    [[nodiscard]] std::int64_t index(std::int64_t i, std::optional<std::int64_t> size,
                                     std::uint64_t seed) {
        if (!size) return i;
        const std::int64_t epoch = i / *size;
        if (epoch != epoch_) {
            order_.resize(static_cast<std::size_t>(*size));
            std::iota(order_.begin(), order_.end(), std::int64_t{0});
            RandomSequence random(
                RandomStream(seed, Purpose::data_order, static_cast<std::uint64_t>(epoch)));
            random.shuffle(order_);
            epoch_ = epoch;
        }
        return order_[static_cast<std::size_t>(i % *size)];
    }

  private:
    std::int64_t epoch_ = -1;
    std::vector<std::int64_t> order_;
};

}  // namespace rankwise::stages
