// y = x W^T of bf16 elements in pairs, by whichever Pair this instruction set has.
#include "kernels/cpu/isa/bf16.hpp"
#include "kernels/cpu/isa/matmul_family.hpp"
#include "kernels/cpu/isa/matmul_rows.hpp"

namespace rankwise::kernels::cpu::RANKWISE_ISA {
namespace {

constexpr bool kPairs = Pair::kWords == 1;

/// The words of `count` elements that begin a pair; returns where the next ones go.
RANKWISE_INLINE float* stage_run(const std::uint16_t* from, std::int64_t count, float* to) {
    // Second elements come first where they are widened.
    const __m128i swap = _mm_setr_epi8(2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
    std::int64_t i = 0;
    for (; i + kEight <= count; i += kEight) {
        const __m128i eight = load_eight(from + i);
        if constexpr (kPairs) {
            _mm_storeu_si128(reinterpret_cast<__m128i*>(to), eight);
        } else {
            _mm256_storeu_ps(to, widen_eight(_mm_shuffle_epi8(eight, swap)));
        }
        to += kEight / 2 * Pair::kWords;
    }
    if (i == count) return to;
    const __m128i rest = load_eight(from + i, count - i);
    alignas(32) float words[kEight];
    if constexpr (kPairs) {
        _mm_store_si128(reinterpret_cast<__m128i*>(words), rest);
    } else {
        _mm256_store_ps(words, widen_eight(_mm_shuffle_epi8(rest, swap)));
    }
    const std::int64_t left = (count - i + 1) / 2 * Pair::kWords;
    for (std::int64_t word = 0; word < left; ++word) to[word] = words[word];
    return to + left;
}

/// Words from one staged row to the next: not a multiple of 2 KiB, at which distance rows evict
/// each other from the first-level cache.
std::int64_t staged_stride(std::int64_t terms) {
    const std::int64_t words = (terms * Pair::kWords + kPanel - 1) / kPanel * kPanel;
    return words % 512 == 0 ? words + kPanel : words;
}

std::int64_t rows_of_block(std::int64_t terms) {
    return block_rows(terms * Pair::kWords);
}

std::int64_t scratch_words(std::int64_t rows, std::int64_t terms) {
    const std::int64_t most = rows_of_block(terms);
    return (rows < most ? rows : most) * staged_stride(terms);
}

void matmul(const Bf16MatmulBlock& block) {
    const MatmulBlock& whole = block.terms;
    const std::int64_t terms = whole.depth;
    const std::int64_t blocks = ceil_div(whole.rows, rows_of_block(terms));
    MatmulBlock part = whole;
    if (block.elements == nullptr) {
        // In words, of which the rows of x have whole numbers.
        part.x = reinterpret_cast<const float*>(block.x);
        part.x_stride = block.x_stride / 2;
    } else {
        part.x = block.scratch;
        part.x_stride = staged_stride(terms);
    }
    for (std::int64_t i = 0; i < blocks; ++i) {
        const std::int64_t first = begin_of_block(whole.rows, blocks, i);
        const std::int64_t rows = begin_of_block(whole.rows, blocks, i + 1) - first;
        if (block.elements == nullptr) {
            row_block<Pair>(part, first, rows);
            continue;
        }
        for (std::int64_t row = 0; row < rows; ++row) {
            const std::uint16_t* from = block.x + (first + row) * block.x_stride;
            float* to = block.scratch + row * part.x_stride;
            for (std::int64_t r = 0; r < whole.run_count; ++r) {
                to = stage_run(from + block.elements[r].first, block.elements[r].count, to);
            }
        }
        if (whole.y_bf16 != nullptr) {
            part.y_bf16 = whole.y_bf16 + first * whole.y_stride;
        } else {
            part.y = whole.y + first * whole.y_stride;
        }
        row_block<Pair>(part, 0, rows);
    }
}

}  // namespace

const Bf16MatmulKernels& bf16_matmul_kernels() {
    static constexpr Bf16MatmulKernels kernels{kPairs, matmul, scratch_words, bf16_weight_gradient};
    return kernels;
}

}  // namespace rankwise::kernels::cpu::RANKWISE_ISA
