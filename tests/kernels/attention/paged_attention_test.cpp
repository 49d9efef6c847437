#include <gtest/gtest.h>

#include "tests/support/paged_sequences.hpp"

namespace rankwise::test {
namespace {

class PagedAttention : public OnEveryDevice {
  protected:
    void copies_whole_pages(const AttentionShape& shape);
    void reads_what_forks_share(const AttentionShape& shape, std::int64_t prompt);
};

TEST_P(PagedAttention, WritesKeysAsColumnsOfPanelsAndValuesAsRowsOfAPage) {
    const AttentionShape shape{2, 2, 5};
    PagedCache cache(device, shape, 3);
    const auto in = random_attention_input(shape, 70, 1);
    PagedCache::Sequence sequence;
    cache.grow(sequence, 70);
    cache.write(sequence, in, 0, 70, 0);
    const auto memory = cache.contents();
    std::vector<float> expected(memory.size(), NAN);
    for (std::int64_t p = 0; p < 70; ++p) {
        for (std::int64_t head = 0; head < 2; ++head) {
            const std::int64_t page = sequence[static_cast<std::size_t>(p / 64)];
            const std::int64_t base = (page * 2 + head) * 2 * 5 * 64;
            for (std::int64_t d = 0; d < 5; ++d) {
                const auto from = static_cast<std::size_t>((p * 2 + head) * 5 + d);
                expected[static_cast<std::size_t>(base + (p % 64 / 16 * 5 + d) * 16 + p % 16)] =
                    in.k[from];
                expected[static_cast<std::size_t>(base + (64 + p % 64) * 5 + d)] = in.v[from];
            }
        }
    }
    EXPECT_EQ(first_difference(memory, expected), "");
}

TEST_P(PagedAttention, KeepsPairsOfBf16KeysTogether) {
    const AttentionShape shape{2, 2, 6, 6, DType::bf16};
    PagedCache cache(device, shape, 1);
    const auto in = random_attention_input(shape, 12, 1);
    const PagedCache::Sequence sequence{0};
    cache.write(sequence, in, 0, 12, 7);
    const auto memory = cache.contents();
    std::vector<float> expected(memory.size(), widened(to_bf16({NAN})).front());
    for (std::int64_t p = 0; p < 12; ++p) {
        for (std::int64_t head = 0; head < 2; ++head) {
            for (std::int64_t d = 0; d < 6; ++d) {
                const std::int64_t base = head * 2 * 6 * 64;
                const auto from = static_cast<std::size_t>((p * 2 + head) * 6 + d);
                const std::int64_t place =
                    (((7 + p) / 16 * 3 + d / 2) * 16 + (7 + p) % 16) * 2 + d % 2;
                expected[static_cast<std::size_t>(base + place)] = in.k[from];
                expected[static_cast<std::size_t>(base + (64 + 7 + p) * 6 + d)] = in.v[from];
            }
        }
    }
    EXPECT_EQ(first_difference(memory, expected), "");
}

TEST_P(PagedAttention, CopiesWholePages) {
    for (const DType dtype : {DType::f32, DType::bf16}) copies_whole_pages({2, 1, 8, 8, dtype});
}

void PagedAttention::copies_whole_pages(const AttentionShape& shape) {
    PagedCache cache(device, shape, 4);
    const auto in = random_attention_input(shape, 256, 1);
    const PagedCache::Sequence all{0, 1, 2, 3};
    cache.write(all, in, 0, 256, 0);
    auto expected = cache.contents();
    const std::vector<std::int32_t> from{3, 3};
    const std::vector<std::int32_t> to{0, 2};
    device->kv_copy({.from = from, .to = to, .pages = cache.pages()}, device.stream());
    const auto size = cache.pages().page_elements();
    std::copy_n(expected.begin() + 3 * size, size, expected.begin());
    std::copy_n(expected.begin() + 3 * size, size, expected.begin() + 2 * size);
    EXPECT_EQ(first_difference(cache.contents(), expected), "");
}

TEST_P(PagedAttention, EqualsTheLoopsInExactOrder) {
    for (const AttentionShape& shape :
         {AttentionShape{1, 1, 1}, AttentionShape{2, 1, 8}, AttentionShape{5, 1, 20},
          AttentionShape{8, 4, 32}, AttentionShape{3, 3, 80}, AttentionShape{14, 2, 64},
          AttentionShape{50, 1, 16}, AttentionShape{2, 1, 128}, AttentionShape{4, 1, 28, 20},
          AttentionShape{2, 2, 5, 40}, AttentionShape{1, 1, 2, 2, DType::bf16},
          AttentionShape{5, 1, 20, 20, DType::bf16}, AttentionShape{8, 4, 32, 32, DType::bf16},
          AttentionShape{14, 2, 64, 64, DType::bf16}, AttentionShape{50, 1, 16, 16, DType::bf16},
          AttentionShape{4, 1, 28, 18, DType::bf16}}) {
        const auto segments = segments_of({{150, -1}, {1, -1}, {64, -1}});
        const auto in = random_attention_input(shape, rows_of(segments), 1);
        const auto expected = reference::attention(shape, in, segments);
        PagedCache cache(device, shape, 8);
        std::vector<PagedCache::Sequence> sequences(segments.size());
        std::vector<PagedCache::Piece> pieces;
        for (std::size_t i = 0; i < segments.size(); ++i) {
            cache.grow(sequences[i], segments[i].rows);
            cache.write(sequences[i], in, segments[i].row_begin, segments[i].rows, 0);
            pieces.push_back({&sequences[i], segments[i].row_begin, segments[i].rows, 0});
        }
        EXPECT_EQ(first_difference(cache.attend(in, pieces, 9), expected.out), "") << shape.text();
    }
}

TEST_P(PagedAttention, NothingBehindARowsPositionMatters) {
    const AttentionShape shape{2, 1, 16};
    const auto in = random_attention_input(shape, 130, 1);
    PagedCache cache(device, shape, 4);  // NaN where nothing is written
    PagedCache::Sequence sequence;
    cache.grow(sequence, 130);
    cache.write(sequence, in, 0, 70, 0);
    const auto before = cache.attend(in, {{&sequence, 3, 67, 3}});
    cache.write(sequence, in, 70, 60, 70);
    EXPECT_EQ(first_difference(before, cache.attend(in, {{&sequence, 3, 67, 3}})), "");
}

TEST_P(PagedAttention, RowsBehindManyKeysDoNotDependOnHowManyThereAre) {
    const AttentionShape shape{3, 1, 4};
    constexpr std::int64_t kBefore = 8100;  // more rows are attended to together from 8192 on
    constexpr std::int64_t kRows = 400;
    const auto in = random_attention_input(shape, kBefore + kRows, 1);
    PagedCache cache(device, shape, (kBefore + kRows) / kernels::kKeyBlock + 1);
    PagedCache::Sequence sequence;
    cache.grow(sequence, kBefore + kRows);
    cache.write(sequence, in, 0, kBefore + kRows, 0);
    std::vector<PagedCache::Piece> alone;
    for (std::int64_t row = kBefore; row < kBefore + kRows; ++row)
        alone.push_back({&sequence, row, 1, row});
    EXPECT_EQ(first_difference(cache.attend(in, {{&sequence, kBefore, kRows, kBefore}}),
                               cache.attend(in, alone)),
              "");
}

/// Samples of two prompts, with answers of other lengths and one of several rows: a row's bits do
/// not depend on whether what it shares is known.
void PagedAttention::reads_what_forks_share(const AttentionShape& shape, std::int64_t prompt) {
    const std::vector<std::int64_t> answers{1, 70, 11, 2, 130, 12, 64, 3, 1, 40};
    const auto in = random_attention_input(shape, prompt + 400, 1);
    PagedCache cache(device, shape, 80 + 2 * prompt / kernels::kKeyBlock * 12);
    std::vector<PagedCache::Sequence> sequences(2 * answers.size());
    std::vector<PagedCache::Piece> alone;
    std::vector<PagedCache::Piece> together;
    for (std::size_t i = 0; i < sequences.size(); ++i) {
        const bool second = i >= answers.size();
        const std::int64_t shared = second ? prompt / 2 + 1 : prompt;
        const std::int64_t answer = answers[i % answers.size()];
        PagedCache::Sequence& sequence = sequences[i];
        if (i == 0 || i == answers.size()) {
            cache.grow(sequence, shared + answer);
            cache.write(sequence, in, second ? 1 : 0, shared, 0);
        } else {
            sequence = cache.fork(sequences[second ? answers.size() : 0], shared);
            cache.grow(sequence, shared + answer);
        }
        const auto row = static_cast<std::int64_t>(i);
        cache.write(sequence, in, prompt + row, answer, shared);
        const std::int64_t rows = i == 7 ? 2 : 1;  // no fork: it has two
        alone.push_back({&sequence, row, rows, shared + answer - rows});
        together.push_back(alone.back());
        if (i != 0 && i != answers.size()) together.back().shared = shared;
    }
    EXPECT_EQ(first_difference(cache.attend(in, together, 9), cache.attend(in, alone, 9)), "")
        << shape.text() << ", " << prompt << " positions shared";
}

TEST_P(PagedAttention, WhatForksShareIsReadOnceAndChangesNoBit) {
    for (const AttentionShape& shape :
         {AttentionShape{4, 4, 8}, AttentionShape{3, 1, 20}, AttentionShape{14, 2, 16},
          AttentionShape{60, 1, 4}, AttentionShape{4, 1, 28, 20},
          AttentionShape{5, 1, 20, 20, DType::bf16}, AttentionShape{14, 2, 16, 16, DType::bf16}}) {
        for (const std::int64_t prompt : {1, 15, 53, 64, 150}) {
            reads_what_forks_share(shape, prompt);
        }
    }
    reads_what_forks_share({2, 1, 4}, 2047);  // the answers go on in the next span
    reads_what_forks_share({2, 1, 4}, 2100);
}

INSTANTIATE_TEST_SUITE_P(Devices, PagedAttention, testing::ValuesIn(device_cases()), device_name);

}  // namespace
}  // namespace rankwise::test
