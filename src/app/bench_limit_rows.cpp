// Rows of `rankwise bench`: the limits themselves.
#include <fmt/format.h>

#include "src/app/bench_rows.hpp"

namespace rankwise::app {
namespace {

using kernels::Arithmetic;

/// The peak of an instruction set with some threads, on a device of its own.
BenchRow peak_row(Arithmetic kind, kernels::Isa isa, std::int64_t threads) {
    const char* const number = kind == Arithmetic::bf16 ? "bf16" : "fp32";
    return {.name = fmt::format("limits/{}/{}/{}", number, kernels::name_of(isa), threads),
            .what = fmt::format("{} on registers alone, {} thread{}",
                                kind == Arithmetic::bf16 ? "vdpbf16ps" : "fused multiply-adds",
                                threads, threads == 1 ? "" : "s"),
            .run = [=](BenchContext& context, Meter& meter) -> RowFacts {
                const auto device = kernels::make_cpu_device(
                    {.isa = isa, .threads = narrow<int>(threads), .checked = false});
                constexpr std::int64_t kRounds = 1'000'000;
                std::int64_t flop = 0;
                while (meter.more()) {
                    meter.time([&] { flop = device->spin(kind, kRounds, context.stream()); });
                }
                return {.work = {.flop = static_cast<double>(flop)}};
            }};
}

BenchRow stream_row(int pattern, std::int64_t bytes) {
    return {.name = fmt::format("limits/stream/{}", pattern),
            .what = "memory that is only read, in one of several patterns",
            .run = [=](BenchContext& context, Meter& meter) -> RowFacts {
                if (pattern >= context.device().read_patterns()) return {};
                while (meter.more()) {
                    const double rate = context.limits().bytes_per_s(pattern);
                    meter.sample(static_cast<double>(bytes) / rate);
                }
                return {.work = {.bytes = static_cast<double>(bytes)}};
            }};
}

/// Rank 0 and the last send to each other at the same time; the others wait.
BenchRow link_row(std::int64_t bytes) {
    return {.name = "limits/link",
            .what = "rank 0 and the last rank send to each other at once",
            .run = [=](BenchContext& context, Meter& meter) -> RowFacts {
                parallel::Communicator& world = context.world();
                const int last = world.size() - 1;
                const auto size = static_cast<std::size_t>(bytes) / sizeof(float);
                std::vector<float> from(size, 1.0F);
                std::vector<float> to(size);
                while (meter.more()) {
                    meter.time([&] {
                        if (world.rank() == 0)
                            world.send_receive("bench:link", from, last, to, last);
                        if (world.rank() == last) world.send_receive("bench:link", from, 0, to, 0);
                        world.barrier("bench:link");
                    });
                }
                return {.work = {.bytes = static_cast<double>(bytes)}};
            }};
}

}  // namespace

void append_limit_rows(const BenchSizes& sizes, const BenchOptions& options, int ranks,
                       std::vector<BenchRow>& rows) {
    std::vector<std::int64_t> threads{1};
    if (options.device.threads > 1) threads.push_back(options.device.threads);
    for (const Arithmetic kind : {Arithmetic::fp32, Arithmetic::bf16}) {
        for (const kernels::Isa isa : kernels::available_isas()) {
            const auto device = kernels::make_cpu_device({.isa = isa, .threads = 1});
            if (device->spin(kind, 1, *device->make_stream()) == 0) continue;
            for (const std::int64_t count : threads) rows.push_back(peak_row(kind, isa, count));
        }
    }
    const auto device = options.device.make();
    for (int pattern = 0; pattern < device->read_patterns(); ++pattern)
        rows.push_back(stream_row(pattern, sizes.stream_bytes));
    if (ranks > 1) rows.push_back(link_row(sizes.link_bytes));
}

}  // namespace rankwise::app
