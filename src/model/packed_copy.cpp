#include "src/model/packed_copy.hpp"

namespace rankwise::model {

using kernels::ConstMatrix;

namespace {

constexpr std::int64_t kLine = 64;  // bytes of a cache line

}  // namespace

std::int64_t bytes_taken(const std::function<void(const Take&)>& make) {
    std::int64_t all = 0;
    make([&](std::int64_t bytes) {
        all += round_up(bytes, kLine);
        return DeviceSpan<std::byte>(nullptr, bytes);
    });
    return all;
}

Take pieces_of(DeviceSpan<std::byte> memory) {
    return [memory, at = std::int64_t{0}](std::int64_t bytes) mutable {
        const std::int64_t begin = at;
        at += round_up(bytes, kLine);
        return memory.subspan(begin, bytes);
    };
}

std::vector<ConstMatrix> stacked(const ParameterRows& rows,
                                 std::initializer_list<ParameterId> ids) {
    std::vector<ConstMatrix> all;
    for (const ParameterId id : ids) {
        const std::span<const ConstMatrix> some = rows(id);
        all.insert(all.end(), some.begin(), some.end());
    }
    return all;
}

std::vector<ConstMatrix> rows_within(const ParameterRows& rows, ParameterId id, Range range) {
    std::vector<ConstMatrix> all;
    std::int64_t first = 0;
    for (const ConstMatrix& piece : rows(id)) {
        const Range here = intersect(range, {first, first + piece.rows});
        if (!here.empty()) all.push_back(piece.row_range({here.begin - first, here.end - first}));
        first += piece.rows;
    }
    return all;
}

DeviceSpan<const float> vector_of(const ParameterRows& rows, ParameterId id) {
    if (id < 0) return {};
    const std::span<const ConstMatrix> some = rows(id);
    ensure(some.size() == 1, "a vector in {} pieces", some.size());
    return {reinterpret_cast<const float*>(some[0].handle), some[0].cols};
}

}  // namespace rankwise::model
