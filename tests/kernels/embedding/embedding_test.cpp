// Embedding look-up and gradient on every device.
#include "kernels/embedding.hpp"

#include <gtest/gtest.h>

#include <set>

#include "tests/support/devices.hpp"
#include "tests/support/op_test.hpp"
#include "tests/support/throws.hpp"

namespace rankwise::test {
namespace {

class EmbeddingTest : public OnEveryDevice {};
INSTANTIATE_TEST_SUITE_P(Devices, EmbeddingTest, testing::ValuesIn(device_cases()), device_name);

/// Few ids, some of them very often.
std::vector<std::int32_t> some_ids(std::int64_t count) {
    RandomSequence random(RandomStream(7, Purpose::data_generation));
    std::vector<std::int32_t> ids;
    for (std::int64_t t = 0; t < count; ++t) {
        ids.push_back(random.below(3) == 0 ? 11 : static_cast<std::int32_t>(random.below(29)));
    }
    return ids;
}

TEST_P(EmbeddingTest, RowsAreTheTablesRows) {
    for (const std::int64_t tokens : {0, 1, 700}) {
        const std::int64_t hidden = 37;
        const auto values = random_floats(29 * 40, 1);
        const auto table = device.put(values);
        const auto ids = some_ids(tokens);
        std::vector<float> expected(static_cast<std::size_t>(tokens * 38), -7.0F);
        const auto out = device.put(expected);
        for (std::size_t t = 0; t < ids.size(); ++t) {
            for (std::size_t c = 0; c < 37; ++c) {
                expected[t * 38 + c] = values[static_cast<std::size_t>(ids[t]) * 40 + c];
            }
        }
        device->embed({.table = matrix(table.span(), 29, hidden, 40),
                       .ids = ids,
                       .out = matrix(out.span(), tokens, hidden, 38)},
                      device.stream());
        EXPECT_EQ(device.get(out), expected);
    }
}

TEST_P(EmbeddingTest, AGradientRowAddsItsTokensAscendingFromZero) {
    for (const std::int64_t tokens : {0, 1, 300}) {
        for (const std::int64_t hidden : {5, 64, 150}) {
            const auto values = random_floats(tokens * (hidden + 3), 1);
            const auto dout = device.put(values);
            const auto ids = some_ids(tokens);
            const std::set<std::int32_t> distinct(ids.begin(), ids.end());
            const std::vector<std::int32_t> unique(distinct.begin(), distinct.end());
            const auto rows = static_cast<std::int64_t>(unique.size());
            std::vector<float> expected(static_cast<std::size_t>(rows * (hidden + 1)), -7.0F);
            const auto drows = device.put(expected);
            for (std::size_t u = 0; u < unique.size(); ++u) {
                for (std::int64_t c = 0; c < hidden; ++c) {
                    float sum = 0.0F;
                    for (std::size_t t = 0; t < ids.size(); ++t) {
                        if (ids[t] == unique[u]) {
                            sum += values[t * static_cast<std::size_t>(hidden + 3) +
                                          static_cast<std::size_t>(c)];
                        }
                    }
                    expected[u * static_cast<std::size_t>(hidden + 1) +
                             static_cast<std::size_t>(c)] = sum;
                }
            }
            device->embed_gradient({.dout = matrix(dout.span(), tokens, hidden, hidden + 3),
                                    .ids = ids,
                                    .unique = unique,
                                    .drows = matrix(drows.span(), rows, hidden, hidden + 1)},
                                   device.stream());
            EXPECT_EQ(device.get(drows), expected);
        }
    }
}

TEST_P(EmbeddingTest, WhatDoesNotFitIsRefusedByName) {
    const auto buffer = device.make<float>(64);
    const auto four = matrix(buffer.span(), 4, 8, 8);
    const auto two = matrix(buffer.span(), 2, 8, 8);
    auto& stream = device.stream();
    const std::vector<std::int32_t> beyond = {3, 4};
    EXPECT_THROW_WITH(device->embed({.table = four, .ids = beyond, .out = two}, stream),
                      InternalError, "id 4 of a vocabulary of 4");
    const std::vector<std::int32_t> before = {-1, 0};
    EXPECT_THROW_WITH(device->embed({.table = four, .ids = before, .out = two}, stream),
                      InternalError, "id -1");
    EXPECT_THROW_WITH(device->embed({.table = as_bf16(four), .ids = beyond, .out = two}, stream),
                      InternalError, "table is BF16");
    EXPECT_THROW_WITH(device->embed({.table = four, .ids = beyond, .out = four}, stream),
                      InternalError, "ids has 2 elements, expected 4");
    const std::vector<std::int32_t> ids = {5, 9, 5, 9};
    const std::vector<std::int32_t> wrong = {5, 8};
    EXPECT_THROW_WITH(
        device->embed_gradient({.dout = four, .ids = ids, .unique = wrong, .drows = two}, stream),
        InternalError, "id 9 of row 1 is not among the 2 distinct ids");
    const std::vector<std::int32_t> descending = {9, 5};
    EXPECT_THROW_WITH(device->embed_gradient(
                          {.dout = four, .ids = ids, .unique = descending, .drows = two}, stream),
                      InternalError, "do not ascend");
    EXPECT_THROW_WITH(
        device->embed_gradient({.dout = four, .ids = ids, .unique = wrong, .drows = four}, stream),
        InternalError, "drows is 4 x 8, expected 2 x 8");
}

}  // namespace
}  // namespace rankwise::test
