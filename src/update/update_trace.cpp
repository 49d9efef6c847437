#include "src/update/update_trace.hpp"

#include <fmt/format.h>

#include <utility>

namespace rankwise::update {
namespace {

template <class T>
UInt128 digest_of(std::span<const T> values) {
    return xxh3_128(values.data(), values.size_bytes());
}

}  // namespace

void UpdateTrace::begin_update() {
    ++update_;
    chunk_ = -1;
    seen_.clear();
}

void UpdateTrace::add(TraceRecord record, bool speaks, const std::function<UInt128()>& digest) {
    record.update = update_;
    auto& ops = seen_[{record.chunk, record.pass, record.layer}];
    const auto [at, is_new] = ops.emplace(record.op, std::nullopt);
    if (!speaks) return;
    record.digest = digest();
    if (is_new) {
        if (record.pass != TracePass::gradient) record.order = std::ssize(ops) - 1;
        at->second = records_.size();
        records_.push_back(std::move(record));
        return;
    }
    const TraceRecord& first = records_[*at->second];
    if (first.digest == record.digest) return;
    throw BadNumbers(fmt::format(
        "layer {}, {}, chunk {}: computed again for the backward pass it has other "
        "bits than before ({} and {}): a fault of the memory or of the program",
        record.layer, record.op, record.chunk, to_hex(first.digest), to_hex(record.digest)));
}

void UpdateTrace::layer(const model::Probed& value, model::Compute& compute) {
    const model::TensorPlace& place = weights_.part().place;
    add({.chunk = chunk_,
         .pass = value.backward ? TracePass::backward : TracePass::forward,
         .layer = value.layer,
         .op = std::string(value.op),
         .part = value.whole ? 0 : place.rank,
         .parts = value.whole ? 0 : place.degree},
        !value.whole || first_of_tensor(),
        [&] { return digest_of<std::byte>(compute.bytes_of(value.value)); });
}

void UpdateTrace::head(const model::Logprobs& values, std::span<const float> coefficient) {
    const auto value = [&](const char* op, std::span<const float> numbers) {
        add({.chunk = chunk_, .pass = TracePass::head, .op = op}, first_of_tensor(),
            [&] { return digest_of(numbers); });
    };
    value("log-probabilities", values.logprob);
    value("entropies", values.entropy);
    value("gradient of the loss", coefficient);
}

void UpdateTrace::gradients(const sums::GradientOwners& owners, model::Compute& compute) {
    for (const parallel::ShardPiece& piece : owners.owners().pieces(owners.data().rank())) {
        if (!weights_.counts(piece.parameter)) continue;
        const Parameter& parameter = weights_.table()[piece.parameter];
        const Box box = piece.box_in(weights_.part_box(piece.parameter));
        const std::vector<Range> units = weights_.digest_pieces(piece.parameter);
        add({.chunk = -1,
             .pass = TracePass::gradient,
             .layer = parameter.layer,
             .order = piece.parameter,
             .op = parameter.name},
            true, [&] {
                return compute.device.digest({.x = owners.total(piece),
                                              .name = parameter.name,
                                              .first_row = box.rows.begin,
                                              .first_column = box.cols.begin,
                                              .pieces = units},
                                             compute.stream);
            });
    }
}

}  // namespace rankwise::update
