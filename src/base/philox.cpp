#include "src/base/philox.hpp"

#include "src/base/error.hpp"

namespace rankwise {

std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                        std::array<std::uint32_t, 2> key) {
    constexpr std::uint64_t kMultiplier0 = 0xD2511F53U;
    constexpr std::uint64_t kMultiplier1 = 0xCD9E8D57U;
    constexpr std::uint32_t kWeyl0 = 0x9E3779B9U;
    constexpr std::uint32_t kWeyl1 = 0xBB67AE85U;
    for (int round = 0; round < 10; ++round) {
        const std::uint64_t p0 = kMultiplier0 * counter[0];
        const std::uint64_t p1 = kMultiplier1 * counter[2];
        counter = {static_cast<std::uint32_t>(p1 >> 32U) ^ counter[1] ^ key[0],
                   static_cast<std::uint32_t>(p1),
                   static_cast<std::uint32_t>(p0 >> 32U) ^ counter[3] ^ key[1],
                   static_cast<std::uint32_t>(p0)};
        key[0] += kWeyl0;
        key[1] += kWeyl1;
    }
    return counter;
}

RandomStream::RandomStream(std::uint64_t seed, Purpose purpose, std::uint64_t id,
                           std::uint32_t sample, std::uint32_t step) {
    const auto words = philox4x32(
        {static_cast<std::uint32_t>(id), static_cast<std::uint32_t>(id >> 32U), sample, step},
        {static_cast<std::uint32_t>(seed) ^ static_cast<std::uint32_t>(purpose),
         static_cast<std::uint32_t>(seed >> 32U)});
    key_ = {words[0], words[1]};
}

std::uint32_t RandomStream::word(std::uint32_t position, std::uint32_t index) const {
    return philox4x32({index / 4, position, 0, 0}, key_)[index % 4];
}

RandomSequence::result_type RandomSequence::operator()() {
    const std::uint64_t i = next_++;
    return stream_.word(static_cast<std::uint32_t>(i >> 32U), static_cast<std::uint32_t>(i));
}

std::uint64_t RandomSequence::below(std::uint64_t n) {
    ensure(n > 0 && n <= (std::uint64_t{1} << 32U), "a random integer below {} was asked for", n);
    const std::uint64_t range = std::uint64_t{1} << 32U;
    const std::uint64_t limit = range - range % n;
    std::uint64_t draw = 0;
    do {
        draw = (*this)();
    } while (draw >= limit);
    return draw % n;
}

double RandomSequence::uniform() {
    const std::uint64_t high = (*this)();
    const std::uint64_t low = (*this)();
    const std::uint64_t bits = ((high << 32U) | low) >> 12U;
    return static_cast<double>(2U * bits + 1U) * 0x1p-53;
}

}  // namespace rankwise
