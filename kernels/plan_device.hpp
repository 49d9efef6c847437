// A device that computes nothing and counts memory.
#pragma once

#include "kernels/device.hpp"

namespace rankwise::kernels {

/// The program that runs on it allocates what it would allocate on `like`, so its memory is known
/// without a formula that could drift from the code. Addresses are of nothing, never followed; what
/// is downloaded is zeros; tokens go to all experts alike. Not safe for use by several
/// threads.
class PlanDevice final : public Device {
  public:
    /// @param like  whose packed layouts are taken; outlives this
    explicit PlanDevice(const Device& like) : like_(like) {}
    PlanDevice(const PlanDevice&) = delete;
    PlanDevice& operator=(const PlanDevice&) = delete;

    /// Most bytes ever in use at once.
    [[nodiscard]] std::int64_t peak_bytes() const { return peak_; }
    /// Whether an address is one of this device: of nothing.
    [[nodiscard]] static bool owns(const std::byte* address);

    [[nodiscard]] std::string description() const override;
    [[nodiscard]] std::unique_ptr<Stream> make_stream() override;
    [[nodiscard]] std::byte* allocate(std::int64_t bytes) override;
    void free(std::byte* handle, std::int64_t bytes) noexcept override;
    [[nodiscard]] std::int64_t footprint(std::int64_t bytes) const override {
        return like_.footprint(bytes);
    }
    [[nodiscard]] std::int64_t bytes_in_use() const override { return in_use_; }
    [[nodiscard]] std::int64_t allocations() const override { return allocations_; }
    void upload(std::span<const std::byte>, DeviceSpan<std::byte>, Stream&) override {}
    void download(DeviceSpan<const std::byte> from, std::span<std::byte> to,
                  Stream& stream) override;
    void copy(DeviceSpan<const std::byte>, DeviceSpan<std::byte>, Stream&) override {}
    void zero(DeviceSpan<std::byte>, Stream&) override {}
    void synchronize(Stream&) override {}
    [[nodiscard]] std::byte* wire_address(std::byte* handle) const override { return handle; }
    using Memory::download;
    using Memory::upload;

    [[nodiscard]] std::int64_t packed_bytes(const PackSpec& spec) const override;
    void pack(const PackSpec&, PackSide, std::span<const ConstMatrix>, DeviceSpan<std::byte>,
              Stream&) override {}
    void matmul(const MatmulArgs&, Stream&) override {}
    void weight_gradient(const WeightGradientArgs&, Stream&) override {}
    void bias_gradient(const BiasGradientArgs&, Stream&) override {}
    void rms_norm(const RmsNormArgs&, Stream&) override {}
    void rms_norm_backward(const RmsNormBackwardArgs&, Stream&) override {}
    void rms_norm_weight_gradient(const RmsNormWeightGradientArgs&, Stream&) override {}
    void rope(const RopeArgs&, Stream&) override {}
    void kv_write(const KvWriteArgs&, Stream&) override {}
    void kv_copy(const KvCopyArgs&, Stream&) override {}
    void paged_attention(const PagedAttentionArgs&, Stream&) override {}
    void segment_attention(const SegmentAttentionArgs&, Stream&) override {}
    void segment_attention_backward(const SegmentAttentionBackwardArgs&, Stream&) override {}
    void swiglu(const SwigluArgs&, Stream&) override {}
    void swiglu_backward(const SwigluBackwardArgs&, Stream&) override {}
    void add(const AddArgs&, Stream&) override {}
    void add_in_order(const AddInOrderArgs&, Stream&) override {}
    void round(const RoundArgs&, Stream&) override {}
    void fill(const FillArgs&, Stream&) override {}
    void gather_rows(const GatherRowsArgs&, Stream&) override {}
    void scatter_rows(const ScatterRowsArgs&, Stream&) override {}
    void embed(const EmbedArgs&, Stream&) override {}
    void embed_gradient(const EmbedGradientArgs&, Stream&) override {}
    void gating(const GatingArgs& args, Stream& stream) override;
    void gating_backward(const GatingBackwardArgs&, Stream&) override {}
    void combine_rows(const CombineRowsArgs&, Stream&) override {}
    void combine_rows_backward(const CombineRowsBackwardArgs&, Stream&) override {}
    void vocabulary_statistics(const VocabularyStatisticsArgs&, Stream&) override {}
    void merge_statistics(const MergeStatisticsArgs&, Stream&) override {}
    void logprob_gradient(const LogprobGradientArgs&, Stream&) override {}
    void sample(const SampleArgs&, Stream&) override {}
    void filtered_probabilities(const FilteredProbabilitiesArgs&, Stream&) override {}
    void adamw(const AdamwArgs&, Stream&) override {}
    void squared_row_sums(const SquaredRowSumsArgs&, Stream&) override {}
    [[nodiscard]] UInt128 digest(const DigestArgs&, Stream&) override { return {}; }
    [[nodiscard]] std::int64_t spin(Arithmetic, std::int64_t, Stream&) override { return 0; }
    [[nodiscard]] int read_patterns() const override { return 0; }
    [[nodiscard]] float read(DeviceSpan<const float>, int, Stream&) override { return 0.0F; }

  private:
    const Device& like_;
    std::uintptr_t next_ = 0;
    std::int64_t in_use_ = 0;
    std::int64_t allocations_ = 0;
    std::int64_t peak_ = 0;
};

}  // namespace rankwise::kernels
