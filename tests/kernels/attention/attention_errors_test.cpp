#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/paged_sequences.hpp"

namespace rankwise::test {
namespace {

using kernels::AttentionSegment;
using kernels::Matrix;
using testing::HasSubstr;

/// Calls that fit, which the tests then spoil. Nothing is computed: sizes are checked first.
class AttentionErrors : public testing::Test {
  protected:
    static constexpr std::int64_t kRows = 6;

    Matrix wide() { return {memory_.span(), kRows, 16}; }
    Matrix narrow() { return {memory_.span().subspan(0, kRows * 8), kRows, 8}; }
    DeviceSpan<float> statistics() { return memory_.span().subspan(0, kRows * 4); }

    kernels::SegmentAttentionArgs forward() {
        return {.q = wide(),
                .k = narrow(),
                .v = narrow(),
                .heads = 4,
                .kv_heads = 2,
                .segments = segments_,
                .scale = 1.0F,
                .out = wide(),
                .maximum = statistics(),
                .denominator = statistics()};
    }
    kernels::SegmentAttentionBackwardArgs backward() {
        return {.q = wide(),
                .k = narrow(),
                .v = narrow(),
                .out = wide(),
                .dout = wide(),
                .maximum = statistics(),
                .denominator = statistics(),
                .heads = 4,
                .kv_heads = 2,
                .head_order = Contraction::straight(4),
                .segments = segments_,
                .scale = 1.0F,
                .dq = wide(),
                .dk = narrow(),
                .dv = narrow()};
    }
    kernels::PagedAttentionArgs paged() {
        return {.q = wide(),
                .heads = 4,
                .pages = pages_,
                .runs = runs_,
                .page_table = table_,
                .scale = 1.0F,
                .out = wide()};
    }
    kernels::KvWriteArgs write() {
        return {.k = narrow(), .v = narrow(), .slots = slots_, .pages = pages_};
    }

    template <class Args>
    void expect_error(void (kernels::AttentionOps::*op)(const Args&, kernels::Stream&),
                      const Args& args, const std::string& message) {
        try {
            ((*device_).*op)(args, device_.stream());
            ADD_FAILURE() << "accepted; expected an error with: " << message;
        } catch (const InternalError& error) {
            EXPECT_THAT(error.what(), HasSubstr(message));
        }
    }
    void expect_error(const kernels::SegmentAttentionArgs& args, const std::string& message) {
        expect_error(&kernels::AttentionOps::segment_attention, args, message);
    }
    void expect_error(const kernels::SegmentAttentionBackwardArgs& args,
                      const std::string& message) {
        expect_error(&kernels::AttentionOps::segment_attention_backward, args, message);
    }
    void expect_error(const kernels::PagedAttentionArgs& args, const std::string& message) {
        expect_error(&kernels::AttentionOps::paged_attention, args, message);
    }
    void expect_error(const kernels::KvWriteArgs& args, const std::string& message) {
        expect_error(&kernels::AttentionOps::kv_write, args, message);
    }
    void expect_error(const kernels::KvCopyArgs& args, const std::string& message) {
        expect_error(&kernels::AttentionOps::kv_copy, args, message);
    }

    DeviceUnderTest device_{device_cases().front()};
    kernels::DeviceBuffer<float> memory_ =
        device_.put(std::vector<float>(static_cast<std::size_t>(kRows * 16), 1.0F));
    kernels::DeviceBuffer<float> cache_ =
        device_.put(std::vector<float>(std::size_t{2} * 2 * 2 * 4 * 64, 0.0F));
    kernels::KvPages pages_{
        reinterpret_cast<std::byte*>(cache_.span().handle()), DType::f32, 2, 2, 4, 4};
    std::vector<AttentionSegment> segments_ = segments_of({{4, 1}, {2, -1}});
    std::vector<kernels::PagedRun> runs_{{0, 4, 0, 0}, {4, 2, 62, 1}};
    std::vector<std::int32_t> table_{0, 1};
    std::vector<std::int64_t> slots_{0, 1, 2, 64, 65, 127};
};

TEST_F(AttentionErrors, CallsThatFitAreAccepted) {
    device_->segment_attention(forward(), device_.stream());
    device_->segment_attention_backward(backward(), device_.stream());
    device_->paged_attention(paged(), device_.stream());
    device_->kv_write(write(), device_.stream());
}

TEST_F(AttentionErrors, ShapesAreNamedWhenTheyDoNotFit) {
    auto args = forward();
    args.k.rows = 5;
    expect_error(args, "segment_attention: k is 5 x 8 (stride 8), expected 6 x 8");
    args = forward();
    args.v.cols = 4;
    expect_error(args, "v is 6 x 4");
    args = forward();
    args.out.stride = 8;
    expect_error(args, "out is 6 x 16 (stride 8)");
    args = forward();
    args.kv_heads = 3;
    expect_error(args, "4 query heads over 3 KV heads");
    args = forward();
    args.heads = 0;
    expect_error(args, "0 query heads over 2 KV heads");
    args = forward();
    args.heads = 6;
    expect_error(args, "q has 16 columns, which are not 6 heads of size 2");
    args = forward();
    args.denominator = {};
    expect_error(args, "24 maxima and 0 denominators, expected 24 or none");

    auto back = backward();
    back.dk.rows = 3;
    expect_error(back, "segment_attention_backward: dk is 3 x 8");
    back = backward();
    back.dq.cols = 8;
    expect_error(back, "dq is 6 x 8");
    back = backward();
    back.maximum = {};
    expect_error(back, "0 maxima and 24 denominators, expected 24");
    back = backward();
    back.head_order = Contraction::straight(3);
    expect_error(back, "an order of 3 heads, expected 4");
    back = backward();
    back.head_order.leaves = {{Range{0, 2}, Range{1, 3}}};
    expect_error(back, "head 1 is 2 times in the order of heads, expected once");
    back.head_order.leaves = {{Range{0, 4}}, {}};
    expect_error(back, "has 2 leaves, its tree 1");
}

TEST_F(AttentionErrors, TypesThatAreNotOneOfTwoOrNotAlikeAreRefused) {
    auto args = forward();
    args.q.dtype = DType::f64;
    expect_error(args, "q is F64; this device computes in F32 and BF16");
    args.q.dtype = DType::bf16;
    expect_error(args, "k is F32, expected BF16");
    auto back = backward();
    back.dout.dtype = DType::f64;
    expect_error(back, "dout is F64, expected F32");
    back = backward();
    back.dk.dtype = DType::bf16;
    expect_error(back, "dk is BF16, expected F32");
    for (Matrix* matrix : {&back.dq, &back.dk}) matrix->dtype = DType::bf16;
    for (kernels::ConstMatrix* matrix : {&back.q, &back.k, &back.v, &back.out, &back.dout})
        matrix->dtype = DType::bf16;
    expect_error(back, "dk is BF16, dv F32");
    auto cached = paged();
    cached.pages.dtype = DType::f64;
    expect_error(cached, "pages of F64; this device keeps F32 and BF16");
    cached.pages.dtype = DType::bf16;
    expect_error(cached, "q is F32, expected BF16");
    auto written = write();
    written.v.dtype = DType::bf16;
    expect_error(written, "kv_write: v is BF16, expected F32");
}

TEST_F(AttentionErrors, HeadsOfBf16ThatMakeNoPairsAreRefused) {
    auto args = forward();
    args.q.cols = args.k.cols = args.v.cols = args.out.cols = 4;
    args.kv_heads = 4;
    args.q.dtype = DType::bf16;
    expect_error(args, "keys of size 1 and values of size 1, of which BF16 elements make no pairs");
    auto written = write();
    written.pages.dtype = DType::bf16;
    written.pages.head_dim = 3;
    expect_error(written, "kv_write: keys of size 3, of which BF16 elements make no pairs");
}

TEST_F(AttentionErrors, SegmentsMustCoverTheRowsInPostOrder) {
    segments_[1].row_begin = 3;
    expect_error(forward(), "segment 1 has rows [3, 3 + 2), expected from 4 on");
    segments_ = segments_of({{4, 1}, {1, -1}});
    expect_error(forward(), "the segments have 5 rows, the matrices 6");
    segments_ = segments_of({{4, -1}, {2, -1}});
    segments_[1].position = 3;
    expect_error(forward(), "segment 1 has no parent and begins at position 3, not 0");
    segments_ = segments_of({{4, 1}, {2, -1}});
    segments_[0].position = 3;
    expect_error(forward(), "segment 0 begins at position 3, but its parent 1 ends at 2");
    segments_ = segments_of({{4, -1}, {2, -1}});
    segments_[1] = {4, 2, 4, 0};
    expect_error(forward(), "segment 1 has parent 0; segments stand in post-order");
    segments_ = segments_of({{2, 2}, {2, -1}, {2, -1}});
    expect_error(backward(), "segment 0 has parent 2; segments stand in post-order");
}

TEST_F(AttentionErrors, RunsMustCoverTheRowsAndHaveTheirPages) {
    runs_[1].row_begin = 3;
    expect_error(paged(), "row 4 is in no run, or row 3 in two");
    runs_ = {{0, 4, 0, 0}};
    expect_error(paged(), "the runs cover 4 rows of 6");
    runs_ = {{0, 4, 0, 0}, {4, 2, 63, 1}};
    expect_error(paged(), "a run has pages [1, 3) of a table of 2");
    runs_ = {{0, 4, 0, 0}, {4, 2, -1, 1}};
    expect_error(paged(), "a run of 2 rows from row 4 on at position -1");
    runs_ = {{0, 4, 0, 0}, {4, 2, 62, 1}};
    runs_[1].shared = 1;
    expect_error(paged(), "a run at position 62 shares 1 positions with one at 0");
    runs_[1].shared = -1;
    expect_error(paged(), "a run at position 62 shares -1 positions with one at 0");
    runs_ = {{0, 4, 0, 0, 1}, {4, 2, 62, 1}};
    expect_error(paged(), "a run at position 0 shares 1 positions with one at 0");
    runs_[0].shared = 0;
    table_[1] = 2;
    expect_error(paged(), "paged_attention: page 2 of 2");
}

TEST_F(AttentionErrors, SlotsAndPagesMustExist) {
    slots_[2] = 128;
    expect_error(write(), "kv_write: page 2 of 2");
    slots_[2] = -1;
    expect_error(write(), "kv_write: page -1 of 2");
    slots_.pop_back();
    slots_[2] = 2;
    expect_error(write(), "kv_write: k is 6 x 8 (stride 8), expected 5 x 8");
    pages_.head_dim = 0;
    expect_error(write(), "kv_write: 2 pages of 2 KV heads of size 0 with values of size 4");
    pages_.head_dim = 4;
    const std::vector<std::int32_t> one{0};
    const std::vector<std::int32_t> two{0, 1};
    const std::vector<std::int32_t> beyond{2};
    expect_error(kernels::KvCopyArgs{one, two, pages_}, "kv_copy: 1 pages onto 2");
    expect_error(kernels::KvCopyArgs{one, beyond, pages_}, "kv_copy: page 2 of 2");
    expect_error(kernels::KvCopyArgs{beyond, one, pages_}, "kv_copy: page 2 of 2");
}

}  // namespace
}  // namespace rankwise::test
