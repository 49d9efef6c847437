#include <gtest/gtest.h>

#include <mutex>
#include <thread>
#include <vector>

#include "tests/support/devices.hpp"

namespace rankwise::test {
namespace {

class OverRows : public OnEveryDevice {};
INSTANTIATE_TEST_SUITE_P(Devices, OverRows, testing::ValuesIn(device_cases()), device_name);

std::vector<float> some_floats(std::int64_t count, int seed) {
    std::vector<float> values;
    for (std::int64_t i = 0; i < count; ++i)
        values.push_back(static_cast<float>((i * 37 + seed) % 101) / 64.0F - 0.75F);
    return values;
}

TEST_P(OverRows, EachRowIsInOneRange) {
    for (const std::int64_t rows : {0, 1, 7, 24, 287, 288, 1000, 2048}) {
        std::mutex mutex;
        std::vector<int> seen(static_cast<std::size_t>(rows), 0);
        device->over_rows(rows, [&](Range some) {
            const std::lock_guard lock(mutex);
            EXPECT_FALSE(some.empty());
            for (std::int64_t row = some.begin; row < some.end; ++row)
                ++seen[static_cast<std::size_t>(row)];
        });
        EXPECT_EQ(seen, std::vector<int>(static_cast<std::size_t>(rows), 1)) << rows;
    }
}

TEST_P(OverRows, OpsOnRowsGiveTheBitsThatTheyGiveOnAllRows) {
    constexpr std::int64_t kRows = 700;
    constexpr std::int64_t kColumns = 40;
    const auto x = device.put(some_floats(kRows * kColumns, 1));
    const auto weight = device.put(some_floats(kColumns * kColumns, 2));
    const auto scale = device.put(some_floats(kColumns, 3));
    const kernels::PackSpec spec{.columns = kColumns,
                                 .contraction = {.tree = {}, .leaves = {{{0, kColumns}}}}};
    const auto packed = device.make<std::byte>(device->packed_bytes(spec));
    const kernels::ConstMatrix w(kernels::Matrix(weight.span(), kColumns, kColumns));
    device->pack(spec, kernels::PackSide::outputs, std::span(&w, 1), packed.span(),
                 device.stream());

    const auto passed_through = [&](bool by_rows) {
        const auto between = device.make<float>(kRows * kColumns);
        const auto result = device.make<float>(kRows * kColumns);
        const kernels::Matrix in(x.span(), kRows, kColumns);
        const kernels::Matrix normed(between.span(), kRows, kColumns);
        const kernels::Matrix out(result.span(), kRows, kColumns);
        const auto ops = [&](Range rows) {
            device->rms_norm({.x = in.row_range(rows),
                              .weight = scale.span(),
                              .eps = 1e-5F,
                              .y = normed.row_range(rows)},
                             device.stream());
            device->matmul({.x = normed.row_range(rows),
                            .w = {&spec, packed.span()},
                            .y = out.row_range(rows)},
                           device.stream());
        };
        if (by_rows) {
            device->over_rows(kRows, ops);
        } else {
            ops({0, kRows});
        }
        return device.get(result);
    };
    EXPECT_EQ(passed_through(true), passed_through(false));
}

}  // namespace
}  // namespace rankwise::test
