// Prints which share of this machine's register-only peak the matmul family reaches, one thread,
// per instruction set. matmul_speed [quick]: best of several runs each; the peak is measured again
// beside every figure.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <vector>

#include "kernels/device.hpp"
#include "tests/kernels/matmul/peak.hpp"
#include "tests/kernels/matmul/values.hpp"

namespace rankwise::test {
namespace {

using namespace kernels;

/// Processor seconds of this thread: what other programs take does not count.
double now_s() {
    timespec time{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

double seconds_of(const auto& work) {
    const double start = now_s();
    work();
    return now_s() - start;
}

class Bench {
  public:
    Bench(Isa isa, int runs)
        : isa_(isa),
          runs_(runs),
          device_(make_cpu_device({.isa = isa, .threads = 1, .checked = false})) {}

    void shape(std::int64_t inputs, std::int64_t outputs, const ReductionTree& tree) {
        const PackSpec spec{DType::f32, outputs, Contraction::of_leaves(tree, inputs)};
        const PackSpec back{DType::f32, inputs, Contraction::straight(outputs)};
        const auto w = put(random_values(outputs * inputs, 1));
        DeviceBuffer<std::byte> packed(*device_, device_->packed_bytes(spec));
        DeviceBuffer<std::byte> packed_back(*device_, device_->packed_bytes(back));
        const ConstMatrix matrix(w.span(), outputs, inputs);
        const auto pack = [&] {
            device_->pack(spec, PackSide::outputs, {&matrix, 1}, packed.span(), stream_);
            device_->pack(back, PackSide::inputs, {&matrix, 1}, packed_back.span(), stream_);
        };
        pack();
        constexpr std::int64_t kMost = 2048;
        const auto x = put(random_values(kMost * inputs, 2));
        const auto dy = put(random_values(kMost * outputs, 3));
        const DeviceBuffer<float> y(*device_, kMost * outputs);
        const DeviceBuffer<float> dx(*device_, kMost * inputs);
        const auto dw = put(random_values(outputs * inputs, 4));
        const auto forward = [&](std::int64_t rows) {
            device_->matmul({ConstMatrix(x.span(), kMost, inputs).row_range({0, rows}),
                             {&spec, packed.span()},
                             Matrix(y.span(), kMost, outputs).row_range({0, rows}),
                             {},
                             Output::store},
                            stream_);
        };
        const auto backward = [&] {
            device_->matmul({{dy.span(), kMost, outputs},
                             {&back, packed_back.span()},
                             {dx.span(), kMost, inputs},
                             {},
                             Output::store},
                            stream_);
        };
        const auto gradient = [&] {
            device_->weight_gradient({{dy.span(), kMost, outputs},
                                      {x.span(), kMost, inputs},
                                      {dw.span(), outputs, inputs},
                                      Output::add},
                                     stream_);
        };
        const std::int64_t each = inputs * outputs;
        fmt::print("{:6} {:5} x {:5} leaves {:2} |", name_of(isa_), inputs, outputs, tree.leaves());
        for (std::int64_t rows : {1, 2, 4, 8, 16, 32, 64, 512}) {
            fmt::print(" {:.2f}", share(rows * each, [&] { forward(rows); }));
            if (rows == 1) fmt::print(" ({:3.0f} GB/s)", 2.0 * rate_ / 1e9);
        }
        fmt::print(" | 2048 rows: {:.2f}", share(kMost * each, [&] { forward(kMost); }));
        fmt::print(" dx {:.2f}", share(kMost * each, backward));
        fmt::print(" dw {:.2f}", share(kMost * each, gradient));
        fmt::print(" all {:.2f}\n", share(3 * kMost * each, [&] {
                       pack();
                       forward(kMost);
                       backward();
                       gradient();
                   }));
        std::fflush(stdout);
    }

  private:
    DeviceBuffer<float> put(const std::vector<float>& values) {
        DeviceBuffer<float> buffer(*device_, static_cast<std::int64_t>(values.size()));
        device_->upload(std::span<const float>(values), buffer.span(), stream_);
        return buffer;
    }

    /// Multiply-adds a second of `work` over those of registers alone, best of each.
    double share(std::int64_t multiply_adds, const auto& work) {
        const std::int64_t repeats = std::max<std::int64_t>(1, 20'000'000 / multiply_adds);
        double best = 0.0;
        double peak = 0.0;
        work();
        for (int run = 0; run < runs_; ++run) {
            std::int64_t spun = 0;
            const double spin_s = seconds_of(
                [&] { spun = isa_ == Isa::avx512 ? spin_avx512(30'000) : spin_avx2(30'000); });
            peak = std::max(peak, static_cast<double>(spun) / spin_s);
            const double work_s = seconds_of([&] {
                for (std::int64_t i = 0; i < repeats; ++i) work();
            });
            best = std::max(best, static_cast<double>(multiply_adds * repeats) / work_s);
        }
        rate_ = 2.0 * best;
        return best / peak;
    }

    Isa isa_;
    int runs_;
    std::unique_ptr<Device> device_;
    Stream stream_;
    double rate_ = 0.0;  // floating-point operations a second of the last share()
};

}  // namespace
}  // namespace rankwise::test

int main(int argc, char** argv) {
    using namespace rankwise;
    const bool quick = argc > 1 && std::strcmp(argv[1], "quick") == 0;
    for (kernels::Isa isa : kernels::available_isas()) {
        test::Bench bench(isa, quick ? 5 : 15);
        for (auto [inputs, outputs] : {std::pair{128, 256},
                                       {128, 128},
                                       {128, 768},
                                       {128, 384},
                                       {384, 128},
                                       {256, 256},
                                       {576, 576},
                                       {576, 1536},
                                       {1536, 576},
                                       {2048, 2048}}) {
            if (quick && inputs > 1000) continue;
            if (argc > 2 && inputs != std::atoi(argv[2])) continue;
            bench.shape(inputs, outputs, {});
        }
        bench.shape(128, 128, {{2, 2, 2}});
        bench.shape(384, 128, {{2, 2, 2}});
        if (!quick) bench.shape(1536, 576, {{3, 3}});
    }
}
