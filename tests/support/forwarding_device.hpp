// A device that passes everything on to another: what tests watch, slow down or damage derives from
// it.
#pragma once

#include "kernels/device.hpp"

namespace rankwise::test {

class ForwardingDevice : public kernels::Device {
  protected:
    using S = kernels::Stream;

  public:
    /// @param own  computes; outlives this
    explicit ForwardingDevice(kernels::Device& own) : own_(own) {}

    [[nodiscard]] std::string description() const override { return own_.description(); }
    [[nodiscard]] std::unique_ptr<kernels::Stream> make_stream() override {
        return own_.make_stream();
    }
    [[nodiscard]] std::byte* allocate(std::int64_t bytes) override { return own_.allocate(bytes); }
    void free(std::byte* handle, std::int64_t bytes) noexcept override { own_.free(handle, bytes); }
    [[nodiscard]] std::int64_t bytes_in_use() const override { return own_.bytes_in_use(); }
    [[nodiscard]] std::int64_t allocations() const override { return own_.allocations(); }
    void upload(std::span<const std::byte> from, DeviceSpan<std::byte> to, S& s) override {
        own_.upload(from, to, s);
    }
    void download(DeviceSpan<const std::byte> from, std::span<std::byte> to, S& s) override {
        own_.download(from, to, s);
    }
    void copy(DeviceSpan<const std::byte> from, DeviceSpan<std::byte> to, S& s) override {
        own_.copy(from, to, s);
    }
    void zero(DeviceSpan<std::byte> to, S& s) override { own_.zero(to, s); }
    void synchronize(S& s) override { own_.synchronize(s); }
    [[nodiscard]] std::byte* wire_address(std::byte* handle) const override {
        return own_.wire_address(handle);
    }
    using Memory::download;
    using Memory::upload;

    [[nodiscard]] std::int64_t packed_bytes(const kernels::PackSpec& spec) const override {
        return own_.packed_bytes(spec);
    }
    void pack(const kernels::PackSpec& spec, kernels::PackSide side,
              std::span<const kernels::ConstMatrix> stacked, DeviceSpan<std::byte> to,
              S& s) override {
        own_.pack(spec, side, stacked, to, s);
    }
    void segment_attention(const kernels::SegmentAttentionArgs& a, S& s) override {
        own_.segment_attention(a, s);
    }
    void segment_attention_backward(const kernels::SegmentAttentionBackwardArgs& a, S& s) override {
        own_.segment_attention_backward(a, s);
    }
    void weight_gradient(const kernels::WeightGradientArgs& a, S& s) override {
        own_.weight_gradient(a, s);
    }
    void matmul(const kernels::MatmulArgs& a, S& s) override { own_.matmul(a, s); }
    void bias_gradient(const kernels::BiasGradientArgs& a, S& s) override {
        own_.bias_gradient(a, s);
    }
    void rms_norm(const kernels::RmsNormArgs& a, S& s) override { own_.rms_norm(a, s); }
    void rms_norm_backward(const kernels::RmsNormBackwardArgs& a, S& s) override {
        own_.rms_norm_backward(a, s);
    }
    void rms_norm_weight_gradient(const kernels::RmsNormWeightGradientArgs& a, S& s) override {
        own_.rms_norm_weight_gradient(a, s);
    }
    void rope(const kernels::RopeArgs& a, S& s) override { own_.rope(a, s); }
    void kv_write(const kernels::KvWriteArgs& a, S& s) override { own_.kv_write(a, s); }
    void kv_copy(const kernels::KvCopyArgs& a, S& s) override { own_.kv_copy(a, s); }
    void paged_attention(const kernels::PagedAttentionArgs& a, S& s) override {
        own_.paged_attention(a, s);
    }
    void swiglu(const kernels::SwigluArgs& a, S& s) override { own_.swiglu(a, s); }
    void swiglu_backward(const kernels::SwigluBackwardArgs& a, S& s) override {
        own_.swiglu_backward(a, s);
    }
    void add(const kernels::AddArgs& a, S& s) override { own_.add(a, s); }
    void add_in_order(const kernels::AddInOrderArgs& a, S& s) override { own_.add_in_order(a, s); }
    void fill(const kernels::FillArgs& a, S& s) override { own_.fill(a, s); }
    void gating(const kernels::GatingArgs& a, S& s) override { own_.gating(a, s); }
    void gating_backward(const kernels::GatingBackwardArgs& a, S& s) override {
        own_.gating_backward(a, s);
    }
    void combine_rows(const kernels::CombineRowsArgs& a, S& s) override { own_.combine_rows(a, s); }
    void combine_rows_backward(const kernels::CombineRowsBackwardArgs& a, S& s) override {
        own_.combine_rows_backward(a, s);
    }
    void round(const kernels::RoundArgs& a, S& s) override { own_.round(a, s); }
    void gather_rows(const kernels::GatherRowsArgs& a, S& s) override { own_.gather_rows(a, s); }
    void scatter_rows(const kernels::ScatterRowsArgs& a, S& s) override { own_.scatter_rows(a, s); }
    void embed(const kernels::EmbedArgs& a, S& s) override { own_.embed(a, s); }
    void embed_gradient(const kernels::EmbedGradientArgs& a, S& s) override {
        own_.embed_gradient(a, s);
    }
    void vocabulary_statistics(const kernels::VocabularyStatisticsArgs& a, S& s) override {
        own_.vocabulary_statistics(a, s);
    }
    void merge_statistics(const kernels::MergeStatisticsArgs& a, S& s) override {
        own_.merge_statistics(a, s);
    }
    void logprob_gradient(const kernels::LogprobGradientArgs& a, S& s) override {
        own_.logprob_gradient(a, s);
    }
    void sample(const kernels::SampleArgs& a, S& s) override { own_.sample(a, s); }
    void filtered_probabilities(const kernels::FilteredProbabilitiesArgs& a, S& s) override {
        own_.filtered_probabilities(a, s);
    }
    void adamw(const kernels::AdamwArgs& a, S& s) override { own_.adamw(a, s); }
    void squared_row_sums(const kernels::SquaredRowSumsArgs& a, S& s) override {
        own_.squared_row_sums(a, s);
    }
    [[nodiscard]] UInt128 digest(const kernels::DigestArgs& a, S& s) override {
        return own_.digest(a, s);
    }
    [[nodiscard]] std::int64_t spin(kernels::Arithmetic kind, std::int64_t rounds, S& s) override {
        return own_.spin(kind, rounds, s);
    }
    [[nodiscard]] int read_patterns() const override { return own_.read_patterns(); }
    [[nodiscard]] float read(DeviceSpan<const float> from, int pattern, S& s) override {
        return own_.read(from, pattern, s);
    }

  private:
    kernels::Device& own_;
};

}  // namespace rankwise::test
