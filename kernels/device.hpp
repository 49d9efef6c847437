// A device: memory, streams and the op families. The only way model code touches data.
#pragma once

#include <memory>
#include <string>

#include "kernels/attention.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/embedding.hpp"
#include "kernels/gating.hpp"
#include "kernels/limits.hpp"
#include "kernels/matmul.hpp"
#include "kernels/memory.hpp"
#include "kernels/norm.hpp"
#include "kernels/optimizer.hpp"
#include "kernels/rope.hpp"
#include "kernels/sample.hpp"
#include "kernels/softmax.hpp"
#include "src/base/function_ref.hpp"

namespace rankwise::kernels {

/// Index and per-row parameters of ops are host spans, read before the call returns; tensors are
/// device memory. Every op checks its sizes and throws InternalError naming the op and the sizes
/// that do not fit.
class Device : public Memory,
               public MatmulOps,
               public NormOps,
               public RopeOps,
               public AttentionOps,
               public ElementwiseOps,
               public EmbeddingOps,
               public GatingOps,
               public SoftmaxOps,
               public SampleOps,
               public OptimizerOps,
               public LimitOps {
  public:
    ~Device() override = default;
    /// For people: "cpu (avx512, 2 threads)".
    [[nodiscard]] virtual std::string description() const = 0;
    [[nodiscard]] virtual std::unique_ptr<Stream> make_stream() = 0;

    /// Several ops on rows that do not need each other: work(rows) for ranges that cover
    /// [0, count), each once, in any order and several at a time. Inside, ops are called that make
    /// rows of their results from the same rows of their arguments (products, norms, rope,
    /// activations, sums and copies of rows), and nothing is allocated. A device with caches takes
    /// few rows at a time, so that an op finds what the one before it gave, and its threads meet
    /// once for all of them; one that queues ops takes all rows. The same bits either way: a row's
    /// do not depend on others.
    virtual void over_rows(std::int64_t count, FunctionRef<void(Range rows)> work) {
        if (count > 0) work({0, count});
    }

    /// Threads that take part in side_by_side().
    [[nodiscard]] virtual int lanes() const { return 1; }
    /// work(i) for i in [0, count), each once, in any order, lanes() at a time: ops inside are one
    /// lane's, however large, and nothing is allocated. For work that goes on long by itself: lanes
    /// meet once, at its end.
    virtual void side_by_side(std::int64_t count, FunctionRef<void(std::int64_t index)> work) {
        for (std::int64_t i = 0; i < count; ++i) work(i);
    }
};

/// Instruction sets of the CPU device. `automatic`: the widest that this machine has.
/// `avx512_bf16`: AVX-512 with vdpbf16ps for products of bf16 elements.
enum class Isa { automatic, avx2, avx512, avx512_bf16 };

struct CpuOptions {
    Isa isa = Isa::automatic;
    int threads = 1;
    /// Device memory is mapped twice and the handles' mapping is never readable: host code that
    /// follows a handle faults.
    bool checked = false;
};

/// @throws EnvironmentError if the machine lacks the instruction set (at least AVX2, FMA, F16C, BMI
/// and BMI2), saying which it has, or refuses threads or the checked mapping.
[[nodiscard]] std::unique_ptr<Device> make_cpu_device(const CpuOptions& options);

/// The instruction sets of this machine that the CPU device can use, narrowest first; empty: none.
[[nodiscard]] std::vector<Isa> available_isas();
[[nodiscard]] const char* name_of(Isa isa);

}  // namespace rankwise::kernels
