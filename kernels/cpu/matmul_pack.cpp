#include <algorithm>
#include <cstring>

#include "kernels/cpu/cpu_device.hpp"
#include "kernels/cpu/matmul_call.hpp"
#include "kernels/cpu/matmul_plan.hpp"
#include "kernels/cpu/past_caches.hpp"

namespace rankwise::kernels::cpu {
namespace {

struct StackedRow {
    const ConstMatrix* matrix;
    std::int64_t row;
};

/// Row `index` of the matrices stacked.
StackedRow stacked_row(std::span<const ConstMatrix> stacked, std::int64_t index) {
    for (const ConstMatrix& matrix : stacked) {
        if (index < matrix.rows) return {&matrix, index};
        index -= matrix.rows;
    }
    throw InternalError(fmt::format("pack: row {} beyond the stacked matrices", index));
}

const std::byte* begin_of(const StackedRow& row) {
    const ConstMatrix& matrix = *row.matrix;
    return matrix.handle + row.row * matrix.stride * size_of(matrix.dtype);
}

/// to = columns `range` of a row.
void copy_widened(const StackedRow& row, Range range, float* to) {
    const std::byte* begin = begin_of(row);
    if (row.matrix->dtype == DType::f32) {
        std::memcpy(to, begin + range.begin * 4, static_cast<std::size_t>(range.size()) * 4);
        return;
    }
    const auto* from = reinterpret_cast<const std::uint16_t*>(begin) + range.begin;
    for (std::int64_t i = 0; i < range.size(); ++i) to[i] = float_from_bf16(from[i]);
}

/// to = columns `range` of a row, rounded.
void copy_rounded(const Bf16PackKernels& kernels, const StackedRow& row, Range range,
                  std::uint16_t* to) {
    const std::byte* begin = begin_of(row);
    if (row.matrix->dtype == DType::f32) {
        kernels.round(reinterpret_cast<const float*>(begin) + range.begin, range.size(), to);
    } else {
        std::memcpy(to, begin + range.begin * 2, static_cast<std::size_t>(range.size()) * 2);
    }
}

/// Terms that a task spreads over all panels.
constexpr std::int64_t kTermsATask = 16;

/// One term of a panel: the first kPanel of `left` floats, zeros beyond the last.
void copy_panel(const float* from, std::int64_t left, float* to, bool past_caches) {
    constexpr std::size_t kBytes = kPanel * sizeof(float);
    static_assert(kBytes == kCacheLine);
    if (left < kPanel) {
        std::copy_n(from, left, to);
        std::fill(to + left, to + kPanel, 0.0F);
    } else if (past_caches) {
        copy_line_past(from, to);
    } else {
        std::memcpy(to, from, kBytes);  // of a size known here: no call
    }
}

/// Matrices that stand one under the other, on their way into panels.
class Packing {
  public:
    /// @param stacked  their handles are where they are read
    /// @param inputs  columns of each matrix
    /// @param runs  what the terms are, in their order; they and the matrices outlive this
    Packing(const PackSpec& spec, std::span<const ConstMatrix> stacked, std::int64_t inputs,
            std::span<const ElementRun> runs, Isa isa, float* to)
        : stacked_(stacked),
          columns_(spec.columns),
          inputs_(inputs),
          terms_(packed_terms(spec.dtype, spec.contraction)),
          pairs_(spec.dtype == DType::bf16),
          runs_(runs),
          kernels_(matmul_kernels(isa)),
          bf16_(bf16_pack_kernels(isa)),
          to_(to),
          // Its model is too large for them.
          past_caches_(panels() * kPanel * terms_ * std::int64_t{sizeof(float)} >= kPastCaches) {}

    [[nodiscard]] std::int64_t terms() const { return terms_; }
    [[nodiscard]] std::int64_t panels() const { return ceil_div(columns_, kPanel); }

    /// Where a row of the matrices is a term of every panel: terms `wanted` of all, rows read as
    /// they lie.
    void put_terms(Range wanted) const {
        const std::int64_t of_term = pairs_ ? 2 : 1;
        std::int64_t begin = 0;  // term of the run
        for (const ElementRun& run : runs_) {
            const std::int64_t end = begin + ceil_div(run.count, of_term);
            const Range part = intersect(wanted, {begin, end});
            for (std::int64_t term = part.begin; term < part.end; ++term) {
                const std::int64_t index = (term - begin) * of_term;
                if (pairs_) {
                    put_pair(run.first + index, index + 1 < run.count, term);
                } else {
                    put_row(run.first + index, term);
                }
            }
            begin = end;
        }
    }

    /// Where a row is a column: a panel of them, transposed.
    void put_panel(std::int64_t p) const {
        const PanelPlace place = place_of_panel(p, panels(), terms_, kernels_.panels_together);
        const std::int64_t first = p * kPanel;
        const std::int64_t count = std::min<std::int64_t>(kPanel, columns_ - first);
        if (pairs_) {
            transpose_pairs(first, count, to_ + place.begin, place.step);
        } else {
            transpose_rows(first, count, to_ + place.begin, place.step);
        }
    }

  private:
    /// Calls body(panel, where this term of it goes) for all panels.
    template <class Body>
    void each_panel(std::int64_t term, const Body& body) const {
        for (std::int64_t first = 0, width = 0; first < panels(); first += width) {
            width = group_width(panels() - first, kernels_.panels_together);
            float* to = to_ + (first * terms_ + term * width) * kPanel;
            for (std::int64_t p = first; p < first + width; ++p, to += kPanel) body(p, to);
        }
    }
    void put_row(std::int64_t index, std::int64_t term) const {
        const StackedRow row = stacked_row(stacked_, index);
        const float* from = nullptr;
        if (row.matrix->dtype == DType::f32) {
            from = reinterpret_cast<const float*>(begin_of(row));
        } else {
            float* widened = matmul_scratch(columns_);
            copy_widened(row, {0, columns_}, widened);
            from = widened;
        }
        each_panel(term, [&](std::int64_t p, float* to) {
            copy_panel(from + p * kPanel, columns_ - p * kPanel, to, past_caches_);
        });
    }
    /// Rows `index` and, unless the run ends with that, the next.
    void put_pair(std::int64_t index, bool whole, std::int64_t term) const {
        auto* first = reinterpret_cast<std::uint16_t*>(matmul_scratch(columns_ + 1));
        std::uint16_t* second = whole ? first + columns_ : nullptr;
        copy_rounded(bf16_, stacked_row(stacked_, index), {0, columns_}, first);
        if (whole) copy_rounded(bf16_, stacked_row(stacked_, index + 1), {0, columns_}, second);
        each_panel(term, [&](std::int64_t p, float* to) {
            const std::int64_t begin = p * kPanel;
            bf16_.pair(first + begin, whole ? second + begin : nullptr,
                       std::min<std::int64_t>(kPanel, columns_ - begin), to);
        });
    }
    /// Rows as words of pairs, run after run; then transposed like floats.
    void transpose_pairs(std::int64_t first, std::int64_t count, float* panel,
                         std::int64_t step) const {
        float* rows = matmul_scratch(kPanel * terms_);
        for (std::int64_t i = 0; i < count; ++i) {
            const StackedRow row = stacked_row(stacked_, first + i);
            auto* to_row = reinterpret_cast<std::uint16_t*>(rows + i * terms_);
            for (const ElementRun& run : runs_) {
                copy_rounded(bf16_, row, {run.first, run.first + run.count}, to_row);
                to_row += run.count;
                if (run.count % 2 != 0) *to_row++ = 0;
            }
        }
        kernels_.pack_transposed(rows, terms_, count, terms_, panel, step, past_caches_);
    }
    /// Rows of one fp32 matrix where they lie; others are brought together first.
    void transpose_rows(std::int64_t first, std::int64_t count, float* panel,
                        std::int64_t step) const {
        const StackedRow row = stacked_row(stacked_, first);
        const float* from = nullptr;
        std::int64_t stride = row.matrix->stride;
        if (row.matrix->dtype == DType::f32 && row.row + count <= row.matrix->rows) {
            from = reinterpret_cast<const float*>(begin_of(row));
        } else {
            float* rows = matmul_scratch(kPanel * inputs_);
            for (std::int64_t i = 0; i < count; ++i)
                copy_widened(stacked_row(stacked_, first + i), {0, inputs_}, rows + i * inputs_);
            from = rows;
            stride = inputs_;
        }
        for (const ElementRun& run : runs_) {
            kernels_.pack_transposed(from + run.first, stride, count, run.count, panel, step,
                                     past_caches_);
            panel += run.count * step;
        }
    }

    std::span<const ConstMatrix> stacked_;
    std::int64_t columns_, inputs_, terms_;
    bool pairs_;
    std::span<const ElementRun> runs_;
    const MatmulKernels& kernels_;
    const Bf16PackKernels& bf16_;
    float* to_;
    bool past_caches_;
};

}  // namespace

std::int64_t CpuDevice::packed_bytes(const PackSpec& spec) const {
    return ceil_div(spec.columns, kPanel) * kPanel * packed_terms(spec.dtype, spec.contraction) *
           std::int64_t{sizeof(float)};
}

void CpuDevice::pack(const PackSpec& spec, PackSide side, std::span<const ConstMatrix> stacked,
                     DeviceSpan<std::byte> to, Stream&) {
    require_multiplied("pack", "the packed operand", spec.dtype);
    std::int64_t stacked_rows = 0;
    for (const ConstMatrix& matrix : stacked) {
        ensure(matrix.dtype == DType::f32 || matrix.dtype == DType::bf16,
               "pack: a matrix has element type {}; F32 and BF16 are packed",
               rankwise::name_of(matrix.dtype));
        ensure(matrix.cols == stacked[0].cols, "pack: matrices of {} and {} columns are stacked",
               stacked[0].cols, matrix.cols);
        stacked_rows += matrix.rows;
    }
    const std::int64_t inputs = stacked.empty() ? 0 : stacked[0].cols;
    const std::int64_t columns = side == PackSide::outputs ? stacked_rows : inputs;
    const std::int64_t indices = side == PackSide::outputs ? inputs : stacked_rows;
    ensure(columns == spec.columns, "pack: the spec has {} columns, the matrices give {}",
           spec.columns, columns);
    ensure(to.size() == packed_bytes(spec), "pack: {} bytes given for a packed weight of {}",
           to.size(), packed_bytes(spec));
    ensure(reinterpret_cast<std::uintptr_t>(to.handle()) % kCacheLine == 0,
           "pack: a packed weight begins {} bytes behind a multiple of {}",
           reinterpret_cast<std::uintptr_t>(to.handle()) % kCacheLine, kCacheLine);
    thread_local std::vector<MatmulRun> plan;
    thread_local std::vector<ElementRun> elements;
    plan_elements(spec, plan, elements);
    for (const ElementRun& run : elements) {
        ensure(run.first >= 0 && run.first + run.count <= indices,
               "pack: the contraction reaches index {}, the matrices have {}",
               run.first + run.count, indices);
    }
    if (to.empty()) return;

    thread_local std::vector<ConstMatrix> readable;
    readable.assign(stacked.begin(), stacked.end());
    for (ConstMatrix& matrix : readable) matrix.handle = at(matrix.handle);
    const Packing packing(spec, readable, inputs, elements, isa_, reinterpret_cast<float*>(at(to)));
    if (side == PackSide::inputs) {
        team_->run(ceil_div(packing.terms(), kTermsATask), [&](std::int64_t task) {
            packing.put_terms({task * kTermsATask, (task + 1) * kTermsATask});
            written_past();  // before the task counts as done
        });
    } else {
        team_->run(packing.panels(), [&](std::int64_t p) {
            packing.put_panel(p);
            written_past();
        });
    }
}

}  // namespace rankwise::kernels::cpu
