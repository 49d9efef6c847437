#include <algorithm>
#include <cstring>

#include "kernels/cpu/cpu_device.hpp"
#include "kernels/cpu/matmul_call.hpp"
#include "kernels/cpu/matmul_plan.hpp"

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

/// to = columns `range` of a row that begins at `row`.
void copy_widened(const std::byte* row, DType dtype, Range range, float* to) {
    if (dtype == DType::f32) {
        std::memcpy(to, row + range.begin * 4, static_cast<std::size_t>(range.size()) * 4);
        return;
    }
    const auto* from = reinterpret_cast<const std::uint16_t*>(row) + range.begin;
    for (std::int64_t i = 0; i < range.size(); ++i) to[i] = float_from_bf16(from[i]);
}

/// to = columns `range` of a row that begins at `row`, rounded.
void copy_rounded(const Bf16PackKernels& kernels, const std::byte* row, DType dtype, Range range,
                  std::uint16_t* to) {
    if (dtype == DType::f32) {
        kernels.round(reinterpret_cast<const float*>(row) + range.begin, range.size(), to);
    } else {
        std::memcpy(to, row + range.begin * 2, static_cast<std::size_t>(range.size()) * 2);
    }
}

/// Terms that a task spreads over all panels.
constexpr std::int64_t kTermsATask = 16;

/// Calls body(panel, word of the packed operand where this term of it begins) for all panels.
template <class Body>
void each_panel(std::int64_t panels, std::int64_t terms, std::int64_t together, std::int64_t term,
                const Body& body) {
    for (std::int64_t first = 0; first < panels; first += together) {
        const PanelPlace place = place_of_panel(first, panels, terms, together);
        const std::int64_t end = std::min(first + together, panels);
        for (std::int64_t p = first; p < end; ++p)  // side by side
            body(p, place.begin + term * place.step + (p - first) * kPanel);
    }
}

/// One term of a panel: the first kPanel of `left` floats, zeros beyond the last.
void copy_panel(const float* from, std::int64_t left, float* to) {
    if (left >= kPanel) {
        std::memcpy(to, from, kPanel * sizeof(float));  // of a size known here: no call
        return;
    }
    std::copy_n(from, left, to);
    std::fill(to + left, to + kPanel, 0.0F);
}

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
    const bool pairs = spec.dtype == DType::bf16;
    thread_local std::vector<MatmulRun> plan;
    thread_local std::vector<ElementRun> elements;
    plan_elements(spec, plan, elements);
    for (const ElementRun& run : elements) {
        ensure(run.first >= 0 && run.first + run.count <= indices,
               "pack: the contraction reaches index {}, the matrices have {}",
               run.first + run.count, indices);
    }
    if (to.empty()) return;

    const std::span<const ElementRun> runs = elements;
    const MatmulKernels& kernels = matmul_kernels(isa_);
    const Bf16PackKernels& bf16 = bf16_pack_kernels(isa_);
    const std::int64_t terms = packed_terms(spec.dtype, spec.contraction);
    auto* panels = reinterpret_cast<float*>(at(to));
    const auto copy_row = [&](const StackedRow& row, Range range, float* to_row) {
        const ConstMatrix& matrix = *row.matrix;
        copy_widened(at(matrix.handle) + row.row * matrix.stride * size_of(matrix.dtype),
                     matrix.dtype, range, to_row);
    };
    const auto round_row = [&](const StackedRow& row, Range range, std::uint16_t* to_row) {
        const ConstMatrix& matrix = *row.matrix;
        copy_rounded(bf16, at(matrix.handle) + row.row * matrix.stride * size_of(matrix.dtype),
                     matrix.dtype, range, to_row);
    };
    const std::int64_t count_of_panels = ceil_div(columns, kPanel);
    const std::int64_t together = kernels.panels_together;
    if (side == PackSide::inputs) {
        // A row of the matrices is a term of every panel: rows are read as they lie.
        const std::int64_t of_term = pairs ? 2 : 1;
        const auto put_row = [&](std::int64_t index, std::int64_t term) {
            const StackedRow row = stacked_row(stacked, index);
            const float* from = nullptr;
            if (row.matrix->dtype == DType::f32) {
                from = floats(*row.matrix) + row.row * row.matrix->stride;
            } else {
                float* widened = matmul_scratch(columns);
                copy_row(row, {0, columns}, widened);
                from = widened;
            }
            each_panel(count_of_panels, terms, together, term,
                       [&](std::int64_t p, std::int64_t to_word) {
                           const std::int64_t left = columns - p * kPanel;
                           copy_panel(from + p * kPanel, left, panels + to_word);
                       });
        };
        const auto put_pair = [&](std::int64_t index, bool whole, std::int64_t term) {
            auto* first = reinterpret_cast<std::uint16_t*>(matmul_scratch(columns + 1));
            std::uint16_t* second = whole ? first + columns : nullptr;
            round_row(stacked_row(stacked, index), {0, columns}, first);
            if (whole) round_row(stacked_row(stacked, index + 1), {0, columns}, second);
            each_panel(
                count_of_panels, terms, together, term, [&](std::int64_t p, std::int64_t to_word) {
                    const std::int64_t begin = p * kPanel;
                    bf16.pair(first + begin, whole ? second + begin : nullptr,
                              std::min<std::int64_t>(kPanel, columns - begin), panels + to_word);
                });
        };
        team_->run(ceil_div(terms, kTermsATask), [&](std::int64_t task) {
            const Range mine{task * kTermsATask, (task + 1) * kTermsATask};
            std::int64_t begin = 0;  // term of the run
            for (const ElementRun& run : runs) {
                const std::int64_t end = begin + ceil_div(run.count, of_term);
                const Range part = intersect(mine, {begin, end});
                for (std::int64_t term = part.begin; term < part.end; ++term) {
                    const std::int64_t index = (term - begin) * of_term;
                    if (pairs) {
                        put_pair(run.first + index, index + 1 < run.count, term);
                    } else {
                        put_row(run.first + index, term);
                    }
                }
                begin = end;
            }
        });
        return;
    }
    team_->run(count_of_panels, [&](std::int64_t p) {
        const PanelPlace place = place_of_panel(p, count_of_panels, terms, together);
        float* panel = panels + place.begin;
        const std::int64_t first = p * kPanel;
        const std::int64_t count = std::min<std::int64_t>(kPanel, columns - first);
        if (pairs) {
            // Rows as words of pairs, run after run; then transposed like floats.
            float* rows = matmul_scratch(kPanel * terms);
            for (std::int64_t i = 0; i < count; ++i) {
                const StackedRow row = stacked_row(stacked, first + i);
                auto* to_row = reinterpret_cast<std::uint16_t*>(rows + i * terms);
                for (const ElementRun& run : runs) {
                    round_row(row, {run.first, run.first + run.count}, to_row);
                    to_row += run.count;
                    if (run.count % 2 != 0) *to_row++ = 0;
                }
            }
            kernels.pack_transposed(rows, terms, count, terms, panel, place.step);
            return;
        }
        // Rows of one fp32 matrix are transposed where they lie; others are brought together first.
        const StackedRow row = stacked_row(stacked, first);
        const float* from = nullptr;
        std::int64_t stride = row.matrix->stride;
        if (row.matrix->dtype == DType::f32 && row.row + count <= row.matrix->rows) {
            from = floats(*row.matrix) + row.row * stride;
        } else {
            float* rows = matmul_scratch(kPanel * inputs);
            for (std::int64_t i = 0; i < count; ++i) {
                const StackedRow each = stacked_row(stacked, first + i);
                copy_row(each, {0, inputs}, rows + i * inputs);
            }
            from = rows;
            stride = inputs;
        }
        for (const ElementRun& run : runs) {
            kernels.pack_transposed(from + run.first, stride, count, run.count, panel, place.step);
            panel += run.count * place.step;
        }
    });
}

}  // namespace rankwise::kernels::cpu
