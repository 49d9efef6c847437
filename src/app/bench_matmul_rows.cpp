// Rows of `rankwise bench`: matrix products.
#include <fmt/format.h>

#include "src/app/bench_rows.hpp"

namespace rankwise::app {
namespace {

using kernels::ConstMatrix;
using kernels::Matrix;
using kernels::PackSide;
using kernels::PackSpec;

double multiply_adds(std::int64_t rows, std::int64_t inputs, std::int64_t outputs) {
    return static_cast<double>(rows) * static_cast<double>(inputs) * static_cast<double>(outputs);
}

/// Weights [outputs, inputs] with their two packed copies, and what meets them. Of bf16 the masters
/// and their gradient are floats.
struct Layer {
    Layer(BenchContext& context, DType type, std::int64_t rows, std::int64_t inputs,
          std::int64_t outputs)
        : device(context.device()),
          stream(context.stream()),
          forward{type, outputs, Contraction::straight(inputs)},
          backward{type, inputs, Contraction::straight(outputs)},
          weights(context.random(outputs * inputs)),
          packed(device, device.packed_bytes(forward)),
          packed_back(device, device.packed_bytes(backward)),
          x(context.random(rows * inputs, type)),
          dy(context.random(rows * outputs, type)),
          y(device, rows * outputs * size_of(type)),
          dx(device, rows * inputs * size_of(type)),
          dw(context.zeros(outputs * inputs)),
          matrix_x(x.span().handle(), type, rows, inputs, inputs),
          matrix_dy(dy.span().handle(), type, rows, outputs, outputs),
          w(weights.span(), outputs, inputs) {
        pack();
    }
    void pack() {
        device.pack(forward, PackSide::outputs, {&w, 1}, packed.span(), stream);
        device.pack(backward, PackSide::inputs, {&w, 1}, packed_back.span(), stream);
    }
    void run_forward() {
        device.matmul({.x = matrix_x,
                       .w = {&forward, packed.span()},
                       .y = {y.span().handle(), matrix_x.dtype, matrix_x.rows, w.rows, w.rows}},
                      stream);
    }
    void run_backward() {
        device.matmul({.x = matrix_dy,
                       .w = {&backward, packed_back.span()},
                       .y = {dx.span().handle(), matrix_x.dtype, matrix_x.rows, w.cols, w.cols}},
                      stream);
    }
    void run_gradient() {
        device.weight_gradient({.dy = matrix_dy,
                                .x = matrix_x,
                                .dw = Matrix(dw.span(), w.rows, w.cols),
                                .output = kernels::Output::add},
                               stream);
    }

    kernels::Device& device;
    kernels::Stream& stream;
    PackSpec forward, backward;
    kernels::DeviceBuffer<float> weights;
    kernels::DeviceBuffer<std::byte> packed, packed_back;
    kernels::DeviceBuffer<std::byte> x, dy, y, dx;
    kernels::DeviceBuffer<float> dw;
    ConstMatrix matrix_x, matrix_dy, w;
};

BenchRow matmul_row(DType type, std::int64_t rows, std::int64_t inputs, std::int64_t outputs) {
    return {.name = fmt::format("matmul{}/{}x{}/{}", suffix_of(type), inputs, outputs, rows),
            .what = "y = x W^T of so many rows, packed weights of inputs x outputs, fixed order",
            .run = [=](BenchContext& context, Meter& meter) -> RowFacts {
                Layer layer(context, type, rows, inputs, outputs);
                context.expect_peak(type, meter);
                const BenchWork work{.flop = 2.0 * multiply_adds(rows, inputs, outputs)};
                meter.expect({work});
                while (meter.more()) meter.time([&] { layer.run_forward(); });
                return {.work = work};
            }};
}

BenchRow update_row(DType type, std::int64_t rows, std::int64_t inputs, std::int64_t outputs) {
    return {.name = fmt::format("matmul_update{}/{}x{}", suffix_of(type), inputs, outputs),
            .what = "forward, input gradient, weight gradient and both packings of one matrix",
            .run = [=](BenchContext& context, Meter& meter) -> RowFacts {
                Layer layer(context, type, rows, inputs, outputs);
                context.expect_peak(type, meter);
                const BenchWork work{.flop = 6.0 * multiply_adds(rows, inputs, outputs)};
                meter.expect({work});
                const Clock& clock = context.clock();
                while (meter.more()) {
                    meter.time([&] {
                        const double begin_s = clock.now_s();
                        layer.pack();
                        const double packed_s = clock.now_s();
                        layer.run_forward();
                        const double forward_s = clock.now_s();
                        layer.run_backward();
                        const double backward_s = clock.now_s();
                        layer.run_gradient();
                        meter.part("pack", packed_s - begin_s);
                        meter.part("y", forward_s - packed_s);
                        meter.part("dx", backward_s - forward_s);
                        meter.part("dw", clock.now_s() - backward_s);
                    });
                }
                return {.work = work};
            }};
}

}  // namespace

void append_matmul_rows(const BenchSizes& sizes, std::vector<BenchRow>& rows) {
    for (const DType type : {DType::f32, DType::bf16}) {
        for (const auto& [inputs, outputs] : sizes.matmuls) {
            for (const std::int64_t count : sizes.matmul_rows)
                rows.push_back(matmul_row(type, count, inputs, outputs));
        }
        for (const auto& [inputs, outputs] : sizes.matmuls)
            rows.push_back(update_row(type, sizes.update_rows, inputs, outputs));
    }
}

}  // namespace rankwise::app
