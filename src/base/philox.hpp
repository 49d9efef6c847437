// Counter-based random numbers: the value of a draw depends on its name (seed, purpose, ids, index)
// and on nothing else.
#pragma once

#include <array>
#include <cstdint>

namespace rankwise {

/// Philox4x32 with 10 rounds. Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC
/// 2011, section 4.
[[nodiscard]] std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                                      std::array<std::uint32_t, 2> key);

/// What a stream of draws is for; part of its key, so that two uses never share numbers. Values
/// never change.
enum class Purpose : std::uint32_t {
    initialisation = 1,
    data_order = 2,
    sampling = 3,
    minibatch_split = 4,
    data_generation = 5,
    held_out = 6,
    resampling = 7,
};

/// A stateless stream: NUMERICS N7. key' = two words of Philox({id low, id high, sample, step},
/// seed xor purpose); word(position, index) = Philox({index / 4, position, 0, 0}, key')[index % 4].
class RandomStream {
  public:
    RandomStream(std::uint64_t seed, Purpose purpose, std::uint64_t id = 0,
                 std::uint32_t sample = 0, std::uint32_t step = 0);

    [[nodiscard]] std::uint32_t word(std::uint32_t position, std::uint32_t index) const;
    /// The key of the stream, for kernels that draw many words themselves.
    [[nodiscard]] std::array<std::uint32_t, 2> key() const { return key_; }

  private:
    std::array<std::uint32_t, 2> key_;
};

/// Uniform in the open interval (0, 1), never 0 or 1: (2 * (word >> 9) + 1) * 2^-24: odd multiples
/// of 2^-24, exact in float and double.
[[nodiscard]] constexpr float uniform_open(std::uint32_t word) {
    return static_cast<float>(2U * (word >> 9U) + 1U) * 0x1p-24F;
}

/// Draws in sequence from one stream, for host code that wants a plain generator (data, shuffles).
/// Satisfies UniformRandomBitGenerator; the library's distributions differ between implementations,
/// so use the members below.
class RandomSequence {
  public:
    using result_type = std::uint32_t;
    explicit RandomSequence(RandomStream stream) : stream_(stream) {}

    [[nodiscard]] static constexpr result_type min() { return 0; }
    [[nodiscard]] static constexpr result_type max() { return 0xFFFFFFFFU; }
    result_type operator()();

    /// Uniform integer in [0, n), without bias (rejection); 0 < n <= 2^32.
    std::uint64_t below(std::uint64_t n);
    /// Uniform in (0, 1) with 52 random bits; never 0 or 1.
    double uniform();
    /// In-place Fisher-Yates.
    template <class Sequence>
    void shuffle(Sequence& items) {
        for (std::uint64_t i = items.size(); i > 1; --i) {
            using std::swap;
            swap(items[static_cast<std::size_t>(i - 1)], items[static_cast<std::size_t>(below(i))]);
        }
    }

  private:
    RandomStream stream_;
    std::uint64_t next_ = 0;
};

}  // namespace rankwise
