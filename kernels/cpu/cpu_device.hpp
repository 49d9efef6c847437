// The CPU device. One .cpp a family checks sizes, splits outputs over the thread team and calls the
// row kernels of the chosen instruction set (kernels/cpu/isa).
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>

#include "kernels/cpu/checked_heap.hpp"
#include "kernels/cpu/thread_team.hpp"
#include "kernels/device.hpp"

namespace rankwise::kernels::cpu {

class CpuDevice final : public Device {
  public:
    CpuDevice(Isa isa, int threads, bool checked);
    ~CpuDevice() override;

    [[nodiscard]] std::string description() const override;
    [[nodiscard]] std::unique_ptr<Stream> make_stream() override;

    // Memory (memory.cpp)
    [[nodiscard]] std::byte* allocate(std::int64_t bytes) override;
    void free(std::byte* handle, std::int64_t bytes) noexcept override;
    [[nodiscard]] std::int64_t footprint(std::int64_t bytes) const override;
    [[nodiscard]] std::int64_t bytes_in_use() const override;
    [[nodiscard]] std::int64_t allocations() const override {
        return allocations_.load(std::memory_order_relaxed);
    }
    void upload(std::span<const std::byte> from, DeviceSpan<std::byte> to, Stream& stream) override;
    void download(DeviceSpan<const std::byte> from, std::span<std::byte> to,
                  Stream& stream) override;
    void copy(DeviceSpan<const std::byte> from, DeviceSpan<std::byte> to, Stream& stream) override;
    void zero(DeviceSpan<std::byte> to, Stream& stream) override;
    void synchronize(Stream& stream) override;
    [[nodiscard]] std::byte* wire_address(std::byte* handle) const override;
    using Memory::download;
    using Memory::upload;

    // matmul.cpp, matmul_pack.cpp, matmul_gradient.cpp
    [[nodiscard]] std::int64_t packed_bytes(const PackSpec& spec) const override;
    void pack(const PackSpec& spec, PackSide side, std::span<const ConstMatrix> stacked,
              DeviceSpan<std::byte> to, Stream& stream) override;
    void matmul(const MatmulArgs& args, Stream& stream) override;
    void weight_gradient(const WeightGradientArgs& args, Stream& stream) override;
    void bias_gradient(const BiasGradientArgs& args, Stream& stream) override;
    // norm.cpp
    void rms_norm(const RmsNormArgs& args, Stream& stream) override;
    void rms_norm_backward(const RmsNormBackwardArgs& args, Stream& stream) override;
    void rms_norm_weight_gradient(const RmsNormWeightGradientArgs& args, Stream& stream) override;
    // rope.cpp
    void rope(const RopeArgs& args, Stream& stream) override;
    // attention.cpp, attention_backward.cpp
    void kv_write(const KvWriteArgs& args, Stream& stream) override;
    void kv_copy(const KvCopyArgs& args, Stream& stream) override;
    void paged_attention(const PagedAttentionArgs& args, Stream& stream) override;
    void segment_attention(const SegmentAttentionArgs& args, Stream& stream) override;
    void segment_attention_backward(const SegmentAttentionBackwardArgs& args,
                                    Stream& stream) override;
    // elementwise.cpp
    void swiglu(const SwigluArgs& args, Stream& stream) override;
    void swiglu_backward(const SwigluBackwardArgs& args, Stream& stream) override;
    void add(const AddArgs& args, Stream& stream) override;
    void add_in_order(const AddInOrderArgs& args, Stream& stream) override;
    void round(const RoundArgs& args, Stream& stream) override;
    void fill(const FillArgs& args, Stream& stream) override;
    void gather_rows(const GatherRowsArgs& args, Stream& stream) override;
    void scatter_rows(const ScatterRowsArgs& args, Stream& stream) override;
    // embedding.cpp
    void embed(const EmbedArgs& args, Stream& stream) override;
    void embed_gradient(const EmbedGradientArgs& args, Stream& stream) override;
    // gating.cpp
    void gating(const GatingArgs& args, Stream& stream) override;
    void gating_backward(const GatingBackwardArgs& args, Stream& stream) override;
    void combine_rows(const CombineRowsArgs& args, Stream& stream) override;
    void combine_rows_backward(const CombineRowsBackwardArgs& args, Stream& stream) override;
    // softmax.cpp
    void vocabulary_statistics(const VocabularyStatisticsArgs& args, Stream& stream) override;
    void merge_statistics(const MergeStatisticsArgs& args, Stream& stream) override;
    void logprob_gradient(const LogprobGradientArgs& args, Stream& stream) override;
    // sample.cpp
    void sample(const SampleArgs& args, Stream& stream) override;
    void filtered_probabilities(const FilteredProbabilitiesArgs& args, Stream& stream) override;
    // optimizer.cpp
    void adamw(const AdamwArgs& args, Stream& stream) override;
    void squared_row_sums(const SquaredRowSumsArgs& args, Stream& stream) override;
    [[nodiscard]] UInt128 digest(const DigestArgs& args, Stream& stream) override;
    // limits.cpp
    [[nodiscard]] std::int64_t spin(Arithmetic kind, std::int64_t rounds, Stream& stream) override;
    [[nodiscard]] int read_patterns() const override;
    [[nodiscard]] float read(DeviceSpan<const float> from, int pattern, Stream& stream) override;

    [[nodiscard]] int lanes() const override { return team_->threads(); }

    // over_rows.cpp
    void over_rows(std::int64_t count, FunctionRef<void(Range)> work) override;
    void side_by_side(std::int64_t count, FunctionRef<void(std::int64_t)> work) override;

  private:
    /// Where this process reads and writes the memory behind a handle: the same address, or
    /// (checked) the other mapping.
    template <class T>
    [[nodiscard]] T* at(T* handle) const {
        // As integers: the handle of an empty matrix may be no address at all, and is followed by
        // nobody. NOLINTNEXTLINE(performance-no-int-to-ptr)
        return reinterpret_cast<T*>(reinterpret_cast<std::uintptr_t>(handle) +
                                    static_cast<std::uintptr_t>(shift_));
    }
    template <class T>
    [[nodiscard]] T* at(DeviceSpan<T> span) const {
        return at(span.handle());
    }
    [[nodiscard]] float* floats(const Matrix& matrix) const {
        return reinterpret_cast<float*>(at(matrix.handle));
    }
    [[nodiscard]] const float* floats(const ConstMatrix& matrix) const {
        return reinterpret_cast<const float*>(at(matrix.handle));
    }
    /// Elements of a matrix: of floats or, as std::uint16_t, of bf16.
    template <class Element>
    [[nodiscard]] Element* elements(const Matrix& matrix) const {
        return reinterpret_cast<Element*>(at(matrix.handle));
    }
    template <class Element>
    [[nodiscard]] const Element* elements(const ConstMatrix& matrix) const {
        return reinterpret_cast<const Element*>(at(matrix.handle));
    }
    [[nodiscard]] std::uint16_t* bf16s(const Matrix& matrix) const {
        return reinterpret_cast<std::uint16_t*>(at(matrix.handle));
    }
    [[nodiscard]] const std::uint16_t* bf16s(const ConstMatrix& matrix) const {
        return reinterpret_cast<const std::uint16_t*>(at(matrix.handle));
    }

    Isa isa_;
    std::unique_ptr<ThreadTeam> team_;
    std::ptrdiff_t shift_ = 0;  // checked: from the handles' mapping to the readable one
    std::atomic<std::int64_t> in_use_{0};
    std::atomic<std::int64_t> allocations_{0};
    std::unique_ptr<CheckedHeap> checked_;  // null: plain memory
};

}  // namespace rankwise::kernels::cpu
