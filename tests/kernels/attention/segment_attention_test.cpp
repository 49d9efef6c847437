#include <gtest/gtest.h>

#include "tests/support/attention_fixture.hpp"

namespace rankwise::test {
namespace {

class SegmentAttention : public OnEveryDevice {};

const AttentionShape kShapes[] = {{1, 1, 1},
                                  {2, 1, 8},
                                  {4, 2, 16},
                                  {5, 1, 20},
                                  {8, 4, 32},
                                  {3, 1, 80},
                                  {14, 2, 64},
                                  {2, 2, 128},
                                  {1, 1, 192},
                                  // Values of another size than keys.
                                  {4, 1, 28, 20},
                                  {2, 2, 8, 40},
                                  {3, 1, 5, 1},
                                  {16, 1, 80, 64},
                                  {1, 1, 2, 2, DType::bf16},
                                  {2, 1, 8, 8, DType::bf16},
                                  {5, 1, 20, 20, DType::bf16},
                                  {8, 4, 32, 32, DType::bf16},
                                  {2, 1, 64, 64, DType::bf16},
                                  {4, 1, 28, 18, DType::bf16},
                                  {2, 2, 8, 40, DType::bf16}};

/// What the loops give for one shape; computed once for all devices.
struct Expected {
    AttentionShape shape;
    AttentionInput<float> in;
    reference::Attention forward;
    reference::AttentionGradients gradients;
};

const std::vector<Expected>& expected_of_shapes() {
    static const std::vector<Expected> all = [] {
        std::vector<Expected> cases;
        const auto segments = varied_segments();
        for (const AttentionShape& shape : kShapes) {
            Expected c{shape, random_attention_input(shape, rows_of(segments), 1), {}, {}};
            c.forward = reference::attention(shape, c.in, segments);
            c.gradients = reference::attention_gradients(shape, c.in, c.forward, segments,
                                                         head_order_of(shape));
            cases.push_back(c);
        }
        return cases;
    }();
    return all;
}

TEST_P(SegmentAttention, EqualsTheLoopsInExactOrder) {
    for (const Expected& c : expected_of_shapes()) {
        const auto found = run_forward(device, c.shape, c.in, varied_segments());
        EXPECT_EQ(first_difference(found.out, c.forward.out), "") << c.shape.text();
        EXPECT_EQ(first_difference(found.maximum, c.forward.maximum), "") << c.shape.text();
        EXPECT_EQ(first_difference(found.denominator, c.forward.denominator), "") << c.shape.text();
    }
}

TEST_P(SegmentAttention, GradientsEqualTheLoopsInExactOrder) {
    for (const Expected& c : expected_of_shapes()) {
        const auto found = run_backward(device, c.shape, c.in, c.forward, varied_segments(),
                                        head_order_of(c.shape));
        EXPECT_EQ(first_difference(found.dq, c.gradients.dq), "") << c.shape.text();
        EXPECT_EQ(first_difference(found.dk, c.gradients.dk), "") << c.shape.text();
        EXPECT_EQ(first_difference(found.dv, c.gradients.dv), "") << c.shape.text();
    }
}

Expected expected_of(const AttentionShape& shape,
                     const std::vector<kernels::AttentionSegment>& segments) {
    Expected made{shape, random_attention_input(shape, rows_of(segments), 11), {}, {}};
    made.forward = reference::attention(shape, made.in, segments);
    made.gradients = reference::attention_gradients(shape, made.in, made.forward, segments,
                                                    head_order_of(shape));
    return made;
}

void expect_equal_to_loops(const DeviceUnderTest& device, const Expected& c,
                           const std::vector<kernels::AttentionSegment>& segments) {
    const auto forward = run_forward(device, c.shape, c.in, segments);
    EXPECT_EQ(first_difference(forward.out, c.forward.out), "");
    EXPECT_EQ(first_difference(forward.maximum, c.forward.maximum), "");
    EXPECT_EQ(first_difference(forward.denominator, c.forward.denominator), "");
    const auto found =
        run_backward(device, c.shape, c.in, c.forward, segments, head_order_of(c.shape));
    EXPECT_EQ(first_difference(found.dq, c.gradients.dq), "");
    EXPECT_EQ(first_difference(found.dk, c.gradients.dk), "");
    EXPECT_EQ(first_difference(found.dv, c.gradients.dv), "");
}

TEST_P(SegmentAttention, OfLongSegmentsEqualsTheLoopsInExactOrder) {
    // So many keys that several blocks of rows meet them together; a sample that begins and ends
    // inside a block, one after a long prompt, and one with too few rows for that.
    const auto segments = segments_of({{1500, 3}, {300, 3}, {2, 3}, {1030, -1}});
    static const Expected c = expected_of({2, 1, 8}, segments);
    expect_equal_to_loops(device, c, segments);
}

TEST_P(SegmentAttention, OfManyBundlesEqualsTheLoopsInExactOrder) {
    // Enough of them, and alike enough, for a task to have all of one; some without rows.
    std::vector<SegmentSketch> sketch;
    for (int bundle = 0; bundle < 24; ++bundle) {
        const auto first = static_cast<std::int32_t>(sketch.size());
        sketch.insert(sketch.end(), {{70, first + 2},
                                     {bundle % 5 == 0 ? 0 : 3, first + 2},
                                     {bundle % 3 == 0 ? 1 : 60, first + 3},
                                     {bundle % 7 == 0 ? 0 : 17, -1}});
    }
    const auto segments = segments_of(sketch);
    static const Expected several_heads = expected_of({6, 2, 16}, segments);
    static const Expected one_head = expected_of({1, 1, 12, 20}, segments);
    expect_equal_to_loops(device, several_heads, segments);
    expect_equal_to_loops(device, one_head, segments);
}

TEST_P(SegmentAttention, GradientsOfKeysAndValuesAreRoundedOnlyWhereTheirSumIsWhole) {
    for (const Expected& c : expected_of_shapes()) {
        const auto found = run_backward(device, c.shape, c.in, c.forward, varied_segments(),
                                        head_order_of(c.shape), 0, false);
        EXPECT_EQ(first_difference(rounded_to(c.shape.dtype, found.dk), c.gradients.dk), "")
            << c.shape.text();
        EXPECT_EQ(first_difference(rounded_to(c.shape.dtype, found.dv), c.gradients.dv), "")
            << c.shape.text();
        if (c.shape.dtype == DType::bf16) {
            EXPECT_NE(first_difference(found.dv, c.gradients.dv), "") << c.shape.text();
        }
    }
}

TEST_P(SegmentAttention, GradientsAddTheHeadsOfAKvHeadInTheTreesOrder) {
    struct Case {
        AttentionShape shape;
        std::vector<int> radices;
    };
    for (const Case& c : {Case{{8, 4, 8}, {2, 2, 2}}, Case{{8, 4, 8}, {2}}, Case{{6, 3, 8}, {3, 2}},
                          Case{{9, 3, 8}, {3, 3}}, Case{{14, 2, 8}, {2, 7}},
                          Case{{8, 1, 8}, {2, 2}}, Case{{6, 1, 8}, {2, 2}}, Case{{8, 2, 8}, {}},
                          Case{{7, 1, 8}, {3, 2}}, Case{{3, 1, 8}, {2, 2, 2}}}) {
        const auto segments = segments_of({{20, 1}, {3, -1}});
        const auto in = random_attention_input(c.shape, rows_of(segments), 9);
        const auto order = Contraction::of_leaves({c.radices}, c.shape.heads, 1);
        const auto forward = reference::attention(c.shape, in, segments);
        const auto expected = reference::attention_gradients(c.shape, in, forward, segments, order);
        const auto found = run_backward(device, c.shape, in, forward, segments, order);
        EXPECT_EQ(first_difference(found.dk, expected.dk), "") << c.shape.text();
        EXPECT_EQ(first_difference(found.dv, expected.dv), "") << c.shape.text();
    }
}

TEST_P(SegmentAttention, KeepsToItsColumnsWhenRowsAreFartherApart) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
        const AttentionShape shape{3, 1, 20, 20, dtype};
        const auto segments = segments_of({{70, 1}, {5, -1}});
        const auto in = random_attention_input(shape, rows_of(segments), 2);
        const auto order = head_order_of(shape);
        const auto dense = run_forward(device, shape, in, segments);
        const auto wide = run_forward(device, shape, in, segments, 7);
        EXPECT_EQ(first_difference(wide.out, dense.out), "");
        const auto gradients = run_backward(device, shape, in, dense, segments, order);
        const auto apart = run_backward(device, shape, in, dense, segments, order, 7);
        EXPECT_EQ(first_difference(apart.dq, gradients.dq), "");
        EXPECT_EQ(first_difference(apart.dk, gradients.dk), "");
        EXPECT_EQ(first_difference(apart.dv, gradients.dv), "");
    }
}

TEST_P(SegmentAttention, SignsOfZeroSurviveWhatARowDoesNotSeeAndWhatDoesNotExist) {
    // Products below the smallest normal number are flushed to 0 of their sign: sums of -0 arise,
    // which an added +0 (of a key behind the row, of a segment that gives nothing) would turn into
    // +0.
    const AttentionShape shape{2, 1, 16};
    const auto segments = segments_of({{40, 1}, {30, -1}});
    auto in = random_attention_input(shape, rows_of(segments), 3);
    for (std::size_t i = 0; i < in.v.size(); ++i) in.v[i] = i / 16 % 7 == 3 ? 1.2e-38F : -1.2e-38F;
    for (std::size_t i = 0; i < in.dout.size(); ++i) in.dout[i] = i / 32 < 40 ? -1.2e-38F : 0.0F;
    const auto expected = reference::attention(shape, in, segments);
    const auto minus_zeros = [](const std::vector<float>& x) {
        return std::count_if(x.begin(), x.end(), [](float y) { return y == 0 && std::signbit(y); });
    };
    ASSERT_GT(minus_zeros(expected.out), 0);
    const auto found = run_forward(device, shape, in, segments);
    EXPECT_EQ(first_difference(found.out, expected.out), "");
    const auto order = head_order_of(shape);
    const auto gradients = reference::attention_gradients(shape, in, expected, segments, order);
    ASSERT_GT(minus_zeros(gradients.dv), 0);
    const auto back = run_backward(device, shape, in, expected, segments, order);
    EXPECT_EQ(first_difference(back.dq, gradients.dq), "");
    EXPECT_EQ(first_difference(back.dk, gradients.dk), "");
    EXPECT_EQ(first_difference(back.dv, gradients.dv), "");
}

TEST_P(SegmentAttention, IsWithinRoundingOfDouble) {
    for (const AttentionShape& shape :
         {AttentionShape{4, 2, 32}, AttentionShape{2, 1, 128}, AttentionShape{4, 1, 48, 32},
          AttentionShape{4, 2, 32, 32, DType::bf16}}) {
        const auto segments = segments_of({{300, 1}, {30, -1}});
        const auto in = random_attention_input(shape, rows_of(segments), 4);
        const auto expected =
            reference::attention_in_double(shape, reference::in_double(in), keys_of_rows(segments));
        const auto found = run_forward(device, shape, in, segments);
        // A score is a sum of head_dim products below 9: its error e is at most head_dim units of
        // the last place of the sum of their sizes; an error e of every score moves the mean of
        // values below 1 by at most 2 e.
        const double e = static_cast<double>(shape.head_dim) * 6e-8 *
                         (9.0 * static_cast<double>(shape.head_dim)) *
                         static_cast<double>(shape.scale());
        // A mean of values below 1 is rounded to bf16 by 2^-9 at most.
        const double bound =
            2 * e + 400 * 6e-8 + (shape.dtype == DType::bf16 ? std::exp2(-9) : 0.0);
        for (std::size_t i = 0; i < expected.size(); ++i) {
            ASSERT_NEAR(static_cast<double>(found.out[i]), expected[i], bound) << i;
        }
    }
}

class SegmentGradients : public SegmentAttention {
  protected:
    /// @param relative  rounding of a result; @param absolute  of all that goes into it
    void differ_by(const AttentionShape& shape, double relative, double absolute);
};

void SegmentGradients::differ_by(const AttentionShape& shape, double relative, double absolute) {
    const auto segments = segments_of({{5, 2}, {7, 2}, {3, -1}, {1, -1}});
    auto in = random_attention_input(shape, rows_of(segments), 6);
    for (float& q : in.q) q /= 4;
    const auto keys = keys_of_rows(segments);
    const auto forward = run_forward(device, shape, in, segments);
    const auto found = run_backward(device, shape, in, forward, segments, head_order_of(shape));
    auto varied = reference::in_double(in);
    const auto loss = [&] {
        const auto out = reference::attention_in_double(shape, varied, keys);
        double sum = 0;
        for (std::size_t i = 0; i < out.size(); ++i) sum += out[i] * varied.dout[i];
        return sum;
    };
    const auto check = [&](std::vector<double>& input, const std::vector<float>& gradient) {
        for (std::size_t i = 0; i < input.size(); ++i) {
            const double step = 1e-5;
            const double before = input[i];
            input[i] = before + step;
            const double above = loss();
            input[i] = before - step;
            const double below = loss();
            input[i] = before;
            const double expected = (above - below) / (2 * step);
            ASSERT_NEAR(static_cast<double>(gradient[i]), expected,
                        absolute + relative * std::abs(expected))
                << i;
        }
    };
    check(varied.q, found.dq);
    check(varied.k, found.dk);
    check(varied.v, found.dv);
}

TEST_P(SegmentGradients, AreThoseOfDifferencesInDouble) {
    // Fourth-order terms are ~1e-10; fp32 sums of ~100 terms below 10 round by ~1e-5 at most.
    differ_by({4, 2, 8, 6}, 0.0, 2e-5);
}

TEST_P(SegmentGradients, OfBf16AreThoseOfDifferencesInDouble) {
    // An output below 1 is rounded by 2^-9 at most, so D = sum of 6 dout out, with dout below 1, by
    // 6 * 2^-9, and with it each ds by p times that. dq adds those of a row, whose p add up to 1,
    // times keys below 3; dk those of 16 rows and two heads at most, times queries below 0.75: both
    // times a scale of 0.343. Then the result is rounded.
    differ_by({4, 2, 8, 6, DType::bf16}, std::exp2(-9),
              2e-5 + 16 * 2 * 0.75 * 0.343 * 6 * std::exp2(-9));
}

TEST_P(SegmentAttention, NoRowsGiveNothing) {
    const AttentionShape shape{2, 1, 8};
    const AttentionInput<float> in;
    EXPECT_TRUE(run_forward(device, shape, in, {}).out.empty());
    EXPECT_TRUE(run_forward(device, shape, in, segments_of({{0, 1}, {0, -1}})).out.empty());
    EXPECT_TRUE(run_backward(device, shape, in, {}, {}, head_order_of(shape)).dq.empty());
}

INSTANTIATE_TEST_SUITE_P(Devices, SegmentAttention, testing::ValuesIn(device_cases()), device_name);
INSTANTIATE_TEST_SUITE_P(Devices, SegmentGradients, testing::ValuesIn(device_cases()), device_name);

}  // namespace
}  // namespace rankwise::test
