// What every communicator must do, whatever carries the bytes; run over threads, MPI and a single
// rank.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "parallel/communicator.hpp"

namespace rankwise::parallel::cases {

struct Case {
    const char* name;
    void (*run)(Communicator&);
};

/// A value that tells rank, peer and position apart.
inline std::int64_t value(int from, int to, std::int64_t i) {
    return from * 10'000 + to * 100 + i;
}

inline void broadcasts_from_every_root(Communicator& comm) {
    for (int root = 0; root < comm.size(); ++root) {
        std::vector<double> data(257, comm.rank() == root ? 0.5 + root : -1.0);
        comm.broadcast("test", data, root);
        EXPECT_EQ(data, std::vector<double>(257, 0.5 + root));
    }
}

inline void all_gathers_in_rank_order(Communicator& comm) {
    const std::array<std::int32_t, 3> mine{comm.rank(), comm.rank() * 7, -1};
    std::vector<std::int32_t> all(3 * static_cast<std::size_t>(comm.size()));
    comm.all_gather("test", mine, all);
    for (int r = 0; r < comm.size(); ++r) {
        const auto at = 3 * static_cast<std::size_t>(r);
        EXPECT_EQ(all[at], r);
        EXPECT_EQ(all[at + 1], r * 7);
        EXPECT_EQ(all[at + 2], -1);
    }
}

/// Rank r brings r elements, so rank 0 brings none.
inline void all_gathers_blocks_of_different_sizes(Communicator& comm) {
    std::vector<std::int64_t> mine;
    for (int i = 0; i < comm.rank(); ++i) mine.push_back(value(comm.rank(), 0, i));
    const auto all = comm.all_gather_v("test", mine);
    std::vector<std::int64_t> expected;
    for (int r = 0; r < comm.size(); ++r) {
        EXPECT_EQ(all.counts[static_cast<std::size_t>(r)], r);
        for (int i = 0; i < r; ++i) expected.push_back(value(r, 0, i));
    }
    EXPECT_EQ(all.values, expected);
}

/// Blocks that are in place already, of one size and of different ones.
inline void all_gathers_in_place(Communicator& comm) {
    for (const bool equal : {true, false}) {
        std::vector<std::int64_t> counts;
        std::vector<std::int64_t> expected;
        for (int r = 0; r < comm.size(); ++r) {
            counts.push_back(equal ? 5 : r);
            for (int i = 0; i < counts.back(); ++i) expected.push_back(value(r, 0, i));
        }
        std::vector<std::int64_t> all(expected.size(), -1);
        std::int64_t before = 0;
        for (int r = 0; r < comm.rank(); ++r) before += counts[static_cast<std::size_t>(r)];
        const auto mine = std::span(all).subspan(
            static_cast<std::size_t>(before),
            static_cast<std::size_t>(counts[static_cast<std::size_t>(comm.rank())]));
        std::copy_n(expected.begin() + before, mine.size(), mine.begin());
        comm.all_gather_v("test", mine, all, counts);
        EXPECT_EQ(all, expected);
    }
}

inline void gathers_on_every_root(Communicator& comm) {
    for (int root = 0; root < comm.size(); ++root) {
        const std::vector<std::int64_t> mine(static_cast<std::size_t>(comm.rank() % 3),
                                             comm.rank());
        const auto all = comm.gather_v("test", mine, root);
        if (comm.rank() != root) {
            EXPECT_TRUE(all.values.empty());
            EXPECT_TRUE(all.counts.empty());
            continue;
        }
        std::vector<std::int64_t> expected;
        for (int r = 0; r < comm.size(); ++r) {
            expected.insert(expected.end(), static_cast<std::size_t>(r % 3), r);
        }
        EXPECT_EQ(all.values, expected);
    }
}

inline void exchanges_equal_blocks(Communicator& comm) {
    std::vector<std::int64_t> send;
    std::vector<std::int64_t> expected;
    for (int r = 0; r < comm.size(); ++r) {
        for (int i = 0; i < 5; ++i) {
            send.push_back(value(comm.rank(), r, i));
            expected.push_back(value(r, comm.rank(), i));
        }
    }
    std::vector<std::int64_t> recv(send.size());
    comm.all_to_all("test", send, recv);
    EXPECT_EQ(recv, expected);
}

/// From rank a to rank b: (a + 2 b) % 4 elements, none for some.
struct UnequalBlocks {
    std::vector<std::int64_t> send, send_counts, recv, recv_counts, expected;
    explicit UnequalBlocks(const Communicator& comm) {
        for (int r = 0; r < comm.size(); ++r) {
            send_counts.push_back((comm.rank() + 2 * r) % 4);
            recv_counts.push_back((r + 2 * comm.rank()) % 4);
            for (int i = 0; i < send_counts.back(); ++i) send.push_back(value(comm.rank(), r, i));
            for (int i = 0; i < recv_counts.back(); ++i) {
                expected.push_back(value(r, comm.rank(), i));
            }
        }
        recv.resize(expected.size());
    }
};

inline void exchanges_blocks_of_different_sizes(Communicator& comm) {
    UnequalBlocks blocks(comm);
    comm.all_to_all_v("test", blocks.send, blocks.send_counts, blocks.recv, blocks.recv_counts);
    EXPECT_EQ(blocks.recv, blocks.expected);
}

inline void sends_in_order_around_a_ring(Communicator& comm) {
    const int next = (comm.rank() + 1) % comm.size();
    const int previous = (comm.rank() + comm.size() - 1) % comm.size();
    for (std::int64_t i = 0; i < 10; ++i) {
        const std::vector<std::int64_t> data(static_cast<std::size_t>(i), comm.rank() * 100 + i);
        std::vector<std::int64_t> received(data.size());
        comm.send_receive("test", data, next, received, previous);
        EXPECT_EQ(received, std::vector<std::int64_t>(data.size(), previous * 100 + i));
    }
}

inline void sends_between_pairs(Communicator& comm) {
    const int pair = comm.rank() % 2 == 0 ? comm.rank() + 1 : comm.rank() - 1;
    if (pair >= comm.size()) return;
    std::int64_t number = 100 + comm.rank();
    if (comm.rank() % 2 == 0) {
        comm.send("test", std::span(&number, 1), pair);
        comm.receive("test", std::span(&number, 1), pair);
        EXPECT_EQ(number, 2 * (100 + comm.rank()));
    } else {
        comm.receive("test", std::span(&number, 1), pair);
        number *= 2;
        comm.send("test", std::span(&number, 1), pair);
    }
}

/// What is sent first on one channel may be received last.
inline void keeps_channels_apart(Communicator& comm) {
    const int pair = comm.rank() % 2 == 0 ? comm.rank() + 1 : comm.rank() - 1;
    if (pair >= comm.size()) return;
    std::vector<std::int64_t> sent;
    std::vector<Request> requests;
    for (std::int64_t i = 0; i < 6; ++i) sent.push_back(100 * comm.rank() + i);
    for (std::size_t i = 0; i < sent.size(); ++i) {
        requests.push_back(comm.start_send("test", std::span(sent).subspan(i, 1), pair,
                                           {static_cast<int>(i) % 3}));
    }
    for (const std::int64_t i : {2, 5, 0, 1, 4, 3}) {
        std::int64_t got = 0;
        comm.start_receive("test", std::span(&got, 1), pair, {static_cast<int>(i) % 3}).wait();
        EXPECT_EQ(got, 100 * pair + i);
    }
}

inline void sends_to_itself(Communicator& comm) {
    const std::int64_t sent = 42;
    std::int64_t got = 0;
    auto receiving = comm.start_receive("test", std::span(&got, 1), comm.rank());
    auto sending = comm.start_send("test", std::span(&sent, 1), comm.rank());
    sending.wait();
    receiving.wait();
    EXPECT_EQ(got, 42);
    comm.send_receive("test", std::span(&sent, 1), comm.rank(), std::span(&got, 1), comm.rank());
}

/// Requests are waited for in another order than they were started in, with blocking calls between.
inline void completes_requests_in_any_order(Communicator& comm) {
    const std::int64_t first = comm.rank();
    const std::int64_t second = 1000 + comm.rank();
    std::vector<std::int64_t> firsts(static_cast<std::size_t>(comm.size()));
    std::vector<std::int64_t> seconds(firsts.size());
    UnequalBlocks blocks(comm);
    auto a = comm.start_all_gather("test:a", std::span(&first, 1), firsts);
    auto b = comm.start_all_to_all_v("test:b", blocks.send, blocks.send_counts, blocks.recv,
                                     blocks.recv_counts);
    auto c = comm.start_all_gather("test:c", std::span(&second, 1), seconds);
    comm.barrier("test");
    c.wait();
    EXPECT_TRUE(c.done());
    while (!b.test()) {
    }
    a.wait();
    a.wait();  // again: nothing left to wait for
    EXPECT_EQ(blocks.recv, blocks.expected);
    for (int r = 0; r < comm.size(); ++r) {
        EXPECT_EQ(firsts[static_cast<std::size_t>(r)], r);
        EXPECT_EQ(seconds[static_cast<std::size_t>(r)], 1000 + r);
    }
}

/// Even ranks send before they enter an exchange, odd ranks enter it before they receive.
inline void keeps_messages_and_collectives_apart(Communicator& comm) {
    const bool even = comm.rank() % 2 == 0;
    const int pair = even ? comm.rank() + 1 : comm.rank() - 1;
    const std::vector<std::int64_t> blocks(static_cast<std::size_t>(comm.size()), comm.rank());
    std::vector<std::int64_t> recv(blocks.size());
    const std::vector<std::int64_t> counts(blocks.size(), 1);
    std::int64_t number = even ? 1000 + comm.rank() : 0;
    Request message;
    if (even && pair < comm.size()) message = comm.start_send("x", std::span(&number, 1), pair);
    auto exchange = comm.start_all_to_all_v("test", blocks, counts, recv, counts);
    if (!even) message = comm.start_receive("x", std::span(&number, 1), pair);
    exchange.wait();
    message.wait();
    for (int r = 0; r < comm.size(); ++r) EXPECT_EQ(recv[static_cast<std::size_t>(r)], r);
    EXPECT_EQ(number, 1000 + (even ? comm.rank() : pair));
}

inline void moves_nothing(Communicator& comm) {
    std::vector<float> none;
    const std::vector<std::int64_t> zeros(static_cast<std::size_t>(comm.size()));
    comm.broadcast("test", none, 0);
    comm.all_gather("test", none, none);
    comm.all_to_all("test", none, none);
    comm.all_to_all_v("test", none, zeros, none, zeros);
    comm.all_gather_v("test", none, none, zeros);
    comm.gather_v("test", none, none, zeros, 0);
    std::vector<std::int64_t> no_numbers;
    comm.all_reduce_sum("test", no_numbers);
    comm.send_receive("test", none, comm.rank(), none, comm.rank());
    EXPECT_TRUE(comm.all_gather_v("test", none).values.empty());
}

inline void reduces_integers(Communicator& comm) {
    const std::int64_t n = comm.size();
    std::vector<std::int64_t> values{comm.rank(), -comm.rank(), std::int64_t{1} << 62};
    auto low = values;
    auto high = values;
    comm.all_reduce_sum("test", values);
    comm.all_reduce_min("test", low);
    comm.all_reduce_max("test", high);
    EXPECT_EQ(values[0], n * (n - 1) / 2);
    EXPECT_EQ(values[1], -n * (n - 1) / 2);
    EXPECT_EQ(values[2],
              static_cast<std::int64_t>((std::uint64_t{1} << 62) * static_cast<std::uint64_t>(n)));
    EXPECT_EQ(low, (std::vector<std::int64_t>{0, -(n - 1), std::int64_t{1} << 62}));
    EXPECT_EQ(high, (std::vector<std::int64_t>{n - 1, 0, std::int64_t{1} << 62}));
}

inline void reduces_128_bit_integers(Communicator& comm) {
    const auto n = static_cast<std::uint64_t>(comm.size());
    const auto rank = static_cast<std::uint64_t>(comm.rank());
    const UInt128 mine{~std::uint64_t{0} - rank, rank};
    UInt128 expected;
    for (std::uint64_t r = 0; r < n; ++r) expected += UInt128{~std::uint64_t{0} - r, r};
    EXPECT_EQ(comm.all_reduce_sum("test", mine), expected);
    EXPECT_EQ(comm.all_reduce_min("test", mine), (UInt128{~std::uint64_t{0}, 0}));
    EXPECT_EQ(comm.all_reduce_max("test", mine), (UInt128{~std::uint64_t{0} - (n - 1), n - 1}));
    // All bits set plus one is zero: modulo 2^128.
    std::vector<UInt128> wrap(
        300, comm.rank() == 0 ? UInt128{~std::uint64_t{0}, ~std::uint64_t{0}} : UInt128{});
    comm.all_reduce_sum("test", wrap);
    EXPECT_EQ(wrap.back() + UInt128({1, 0}), UInt128{});
}

inline void finds_largest_and_smallest_double(Communicator& comm) {
    const double mine = comm.rank() % 2 == 0 ? comm.rank() + 0.25 : -(comm.rank() + 0.25);
    double low = mine;
    double high = mine;
    for (int r = 0; r < comm.size(); ++r) {
        const double theirs = r % 2 == 0 ? r + 0.25 : -(r + 0.25);
        low = std::min(low, theirs);
        high = std::max(high, theirs);
    }
    EXPECT_EQ(comm.all_reduce_min("test", mine), low);
    EXPECT_EQ(comm.all_reduce_max("test", mine), high);

    const double infinity = std::numeric_limits<double>::infinity();
    const double tiny = std::numeric_limits<double>::denorm_min();
    const bool last = comm.rank() == comm.size() - 1;
    EXPECT_EQ(comm.all_reduce_max("test", last ? infinity : 0.0), infinity);
    EXPECT_EQ(comm.all_reduce_min("test", last ? -tiny : tiny), -tiny);
    EXPECT_TRUE(std::signbit(comm.all_reduce_min("test", last ? -0.0 : 0.0)));
    // A number that is none is never lost among those that are.
    EXPECT_TRUE(std::isnan(comm.all_reduce_max("test", last ? std::nan("") : infinity)));
    EXPECT_TRUE(std::isnan(comm.all_reduce_min("test", last ? std::nan("") : -infinity)));
}

/// Odd and even ranks, in descending order; then each half once more.
inline void splits_by_color_and_key(Communicator& comm) {
    const auto half = comm.split(comm.rank() % 2, -comm.rank(), "half");
    ASSERT_NE(half, nullptr);
    EXPECT_EQ(half->name(), "half");
    std::vector<std::int64_t> expected;
    for (int r = comm.size() - 1; r >= 0; --r) {
        if (r % 2 == comm.rank() % 2) expected.push_back(r);
    }
    const std::int64_t mine = comm.rank();
    EXPECT_EQ(half->all_gather_v("test", std::span(&mine, 1)).values, expected);

    const auto single = half->split(half->rank(), 0, "single");
    EXPECT_EQ(single->size(), 1);
    const auto first = comm.split(comm.rank() == 0 ? 0 : -1, 0, "first");
    EXPECT_EQ(first != nullptr, comm.rank() == 0);

    // Traffic on one communicator never meets that on another.
    const auto twin = comm.split(0, comm.rank(), "twin");
    std::vector<std::int64_t> here(static_cast<std::size_t>(comm.size()));
    std::vector<std::int64_t> there(here.size());
    const std::int64_t other = 1000 + mine;
    auto request = comm.start_all_gather("test", std::span(&mine, 1), here);
    twin->all_gather("test", std::span(&other, 1), there);
    request.wait();
    EXPECT_EQ(here.back(), comm.size() - 1);
    EXPECT_EQ(there.back(), 1000 + comm.size() - 1);
}

/// Long enough to be cut where messages are short.
inline void moves_long_data(Communicator& comm) {
    constexpr std::size_t kLength = 5'003;
    const auto n = static_cast<std::size_t>(comm.size());
    const auto content = [](int from, std::size_t i) {
        return static_cast<std::int64_t>(i * 31 + static_cast<std::size_t>(from));
    };
    const auto filled = [&](int from) {
        std::vector<std::int64_t> data(kLength);
        for (std::size_t i = 0; i < kLength; ++i) data[i] = content(from, i);
        return data;
    };
    const auto mine = filled(comm.rank());
    std::vector<std::int64_t> expected;
    for (int r = 0; r < comm.size(); ++r) {
        const auto theirs = filled(r);
        expected.insert(expected.end(), theirs.begin(), theirs.end());
    }
    std::vector<std::int64_t> all(n * kLength);
    comm.all_gather("test", mine, all);
    EXPECT_EQ(all, expected);
    std::fill(all.begin(), all.end(), -1);
    comm.start_all_gather("test", mine, all).wait();
    EXPECT_EQ(all, expected);
    EXPECT_EQ(comm.all_gather_v("test", mine).values, expected);

    std::vector<std::int64_t> copies;
    for (std::size_t r = 0; r < n; ++r) copies.insert(copies.end(), mine.begin(), mine.end());
    std::fill(all.begin(), all.end(), -1);
    comm.all_to_all("test", copies, all);
    EXPECT_EQ(all, expected);

    auto data = mine;
    comm.broadcast("test", data, comm.size() - 1);
    EXPECT_EQ(data, filled(comm.size() - 1));
    const int next = (comm.rank() + 1) % comm.size();
    const int previous = (comm.rank() + comm.size() - 1) % comm.size();
    comm.send_receive("test", mine, next, data, previous);
    EXPECT_EQ(data, filled(previous));
    comm.all_reduce_max("test", data);
    EXPECT_EQ(data, filled(comm.size() - 1));
}

inline constexpr Case kAll[] = {
    {"broadcasts_from_every_root", broadcasts_from_every_root},
    {"all_gathers_in_rank_order", all_gathers_in_rank_order},
    {"all_gathers_blocks_of_different_sizes", all_gathers_blocks_of_different_sizes},
    {"all_gathers_in_place", all_gathers_in_place},
    {"gathers_on_every_root", gathers_on_every_root},
    {"exchanges_equal_blocks", exchanges_equal_blocks},
    {"exchanges_blocks_of_different_sizes", exchanges_blocks_of_different_sizes},
    {"sends_in_order_around_a_ring", sends_in_order_around_a_ring},
    {"sends_between_pairs", sends_between_pairs},
    {"sends_to_itself", sends_to_itself},
    {"keeps_channels_apart", keeps_channels_apart},
    {"completes_requests_in_any_order", completes_requests_in_any_order},
    {"keeps_messages_and_collectives_apart", keeps_messages_and_collectives_apart},
    {"moves_nothing", moves_nothing},
    {"reduces_integers", reduces_integers},
    {"reduces_128_bit_integers", reduces_128_bit_integers},
    {"finds_largest_and_smallest_double", finds_largest_and_smallest_double},
    {"splits_by_color_and_key", splits_by_color_and_key},
    {"moves_long_data", moves_long_data},
};

}  // namespace rankwise::parallel::cases
