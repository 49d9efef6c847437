// Generation and training attend alike: bits of the paged cache, whatever the grouping, and of
// segments.
#include <gtest/gtest.h>

#include "tests/support/paged_sequences.hpp"

namespace rankwise::test {
namespace {

class AttentionParity : public OnEveryDevice {
  protected:
    void five_thousand_tokens(const AttentionShape& shape);
};

/// The positions of a sequence cut into pieces of sizes without a pattern.
std::vector<std::int64_t> odd_pieces(std::int64_t count, std::uint32_t seed, std::int64_t most) {
    std::mt19937 bits(seed);
    std::vector<std::int64_t> pieces;
    for (std::int64_t left = count; left > 0; left -= pieces.back()) {
        pieces.push_back(std::min<std::int64_t>(left, 1 + bits() % static_cast<unsigned>(most)));
    }
    return pieces;
}

/// A group as segments: samples, then their prompt.
std::vector<kernels::AttentionSegment> group_of(std::int64_t prompt,
                                                const std::vector<std::int64_t>& samples) {
    std::vector<SegmentSketch> sketch;
    for (std::int64_t rows : samples) {
        sketch.push_back({rows, static_cast<std::int32_t>(samples.size())});
    }
    sketch.push_back({prompt, -1});
    return segments_of(sketch);
}

TEST_P(AttentionParity, DecodeOfForkedSequencesEqualsSegments) {
    for (const AttentionShape& shape :
         {AttentionShape{8, 4, 32}, AttentionShape{3, 1, 20}, AttentionShape{4, 1, 28, 20},
          AttentionShape{4, 2, 32, 32, DType::bf16}}) {
        for (const std::int64_t prompt : {1, 8, 64, 70, 131}) {
            const std::vector<std::int64_t> samples{5, 150, 0, 201, 33};
            const auto segments = group_of(prompt, samples);
            const auto in = random_attention_input(shape, rows_of(segments), 1);
            auto expected = run_forward(device, shape, in, segments).out;

            const std::int64_t wide = shape.heads * shape.value_size();
            std::vector<float> found(expected.size());
            const auto keep = [&](const std::vector<float>& out, std::int64_t from, std::int64_t to,
                                  std::int64_t count) {
                std::copy_n(out.begin() + from * wide, count * wide, found.begin() + to * wide);
            };
            PagedCache cache(device, shape, 40);
            PagedCache::Sequence root;
            const std::int64_t prompt_row = segments.back().row_begin;
            cache.grow(root, prompt);
            std::int64_t done = 0;
            for (std::int64_t count : odd_pieces(prompt, 3, 50)) {  // prefill in pieces
                cache.write(root, in, prompt_row + done, count, done);
                keep(cache.attend(in, {{&root, prompt_row + done, count, done}}), 0,
                     prompt_row + done, count);
                done += count;
            }
            std::vector<PagedCache::Sequence> forks;
            for (std::size_t i = 0; i < samples.size(); ++i) {
                forks.push_back(cache.fork(root, prompt));
            }
            for (std::int64_t step = 0; step < 201; ++step) {  // all samples, a row each
                std::vector<PagedCache::Piece> pieces;
                for (std::size_t i = samples.size(); i-- > 0;) {
                    if (step >= samples[i]) continue;
                    const std::int64_t row = segments[i].row_begin + step;
                    cache.grow(forks[i], prompt + step + 1);
                    cache.write(forks[i], in, row, 1, prompt + step);
                    pieces.push_back({&forks[i], row, 1, prompt + step});
                }
                const auto out = cache.attend(in, pieces);
                for (std::size_t i = 0; i < pieces.size(); ++i) {
                    keep(out, static_cast<std::int64_t>(i), pieces[i].row, 1);
                }
            }
            ASSERT_EQ(first_difference(found, expected), "") << shape.text() << ", " << prompt;
        }
    }
}

TEST_P(AttentionParity, FiveThousandTokensInPiecesOneByOneAndAsOneSegmentAreEqual) {
    for (const DType dtype : {DType::f32, DType::bf16}) five_thousand_tokens({2, 1, 16, 16, dtype});
}

void AttentionParity::five_thousand_tokens(const AttentionShape& shape) {
    const std::int64_t count = 5000;
    const std::int64_t wide = shape.heads * shape.head_dim;
    const auto segments = group_of(1999, {3001});
    const auto in = random_attention_input(shape, count, 2);
    const auto as_segments = run_forward(device, shape, in, segments);
    // The sequence's rows in order: the prompt, then the sample.
    AttentionInput<float> straight = in;
    const auto turn = [](std::vector<float>& values, std::int64_t cols) {
        std::rotate(values.begin(), values.begin() + 3001 * cols, values.end());
    };
    turn(straight.q, wide);
    turn(straight.k, shape.head_dim);
    turn(straight.v, shape.head_dim);
    auto expected = as_segments.out;
    turn(expected, wide);

    PagedCache cache(device, shape, 79);
    PagedCache::Sequence sequence;
    cache.grow(sequence, count);
    cache.write(sequence, straight, 0, count, 0);
    std::vector<PagedCache::Piece> pieces;
    std::int64_t done = 0;
    for (std::int64_t rows : odd_pieces(count, 5, 200)) {
        pieces.push_back({&sequence, done, rows, done});
        done += rows;
    }
    EXPECT_EQ(first_difference(cache.attend(straight, pieces), expected), "");
    EXPECT_EQ(first_difference(cache.attend(straight, {{&sequence, 0, count, 0}}), expected), "");
    for (std::int64_t row : {0, 63, 64, 2047, 2048, 2049, 4095, 4096, 4999}) {
        const auto alone = cache.attend(straight, {{&sequence, row, 1, row}});
        EXPECT_EQ(first_difference(alone, PagedCache::slice(expected, row, 1, wide)), "") << row;
        std::vector<std::int64_t> keys(static_cast<std::size_t>(row + 1));
        for (std::size_t j = 0; j < keys.size(); ++j) keys[j] = static_cast<std::int64_t>(j);
        const kernels::cpu::FlushDenormals flush;
        const auto loops = reference::attention_row(
            straight.q.data() + row * wide, straight.k.data(), straight.v.data(), shape, keys);
        EXPECT_EQ(first_difference(PagedCache::slice(alone, 0, 1, shape.head_dim), loops.out), "")
            << row;
    }
}

TEST_P(AttentionParity, GradientsDoNotDependOnOtherBundles) {
    const AttentionShape shape{4, 2, 32};
    const auto alone = group_of(70, {90, 20});
    auto both = segments_of({{100, 1}, {9, -1}, {90, 4}, {20, 4}, {70, -1}});
    const auto in = random_attention_input(shape, rows_of(both), 7);
    AttentionInput<float> part{180, {}, {}, {}, {}};
    part.q = PagedCache::slice(in.q, 109, 180, 128);
    part.k = PagedCache::slice(in.k, 109, 180, 64);
    part.v = PagedCache::slice(in.v, 109, 180, 64);
    part.dout = PagedCache::slice(in.dout, 109, 180, 128);
    const auto order = head_order_of(shape);
    const auto whole =
        run_backward(device, shape, in, run_forward(device, shape, in, both), both, order);
    const auto single =
        run_backward(device, shape, part, run_forward(device, shape, part, alone), alone, order);
    EXPECT_EQ(first_difference(single.dq, PagedCache::slice(whole.dq, 109, 180, 128)), "");
    EXPECT_EQ(first_difference(single.dk, PagedCache::slice(whole.dk, 109, 180, 64)), "");
    EXPECT_EQ(first_difference(single.dv, PagedCache::slice(whole.dv, 109, 180, 64)), "");
}

TEST_P(AttentionParity, AChainOfTurnsAttendsLikeOneSegment) {
    const AttentionShape shape{4, 2, 16};
    const auto chain = segments_of({{90, 1}, {0, 2}, {13, 3}, {64, 4}, {30, -1}});
    const auto in = random_attention_input(shape, rows_of(chain), 8);
    const auto found = run_forward(device, shape, in, chain).out;
    PagedCache cache(device, shape, 4);
    PagedCache::Sequence sequence;
    cache.grow(sequence, rows_of(chain));
    std::vector<PagedCache::Piece> pieces;
    for (const auto& turn : chain) {
        cache.write(sequence, in, turn.row_begin, turn.rows, turn.position);
        if (turn.rows > 0) pieces.push_back({&sequence, turn.row_begin, turn.rows, turn.position});
    }
    EXPECT_EQ(first_difference(found, cache.attend(in, pieces)), "");
}

INSTANTIATE_TEST_SUITE_P(Devices, AttentionParity, testing::ValuesIn(device_cases()), device_name);

}  // namespace
}  // namespace rankwise::test
