#include "src/stages/snapshot.hpp"

#include <algorithm>
#include <utility>

namespace rankwise::stages {

/// The values of one item. `live` may be read under the mutex alone, and while there is no copy.
struct Snapshot::Part {
    DeviceSpan<const std::byte> live;
    std::mutex mutex;
    std::int64_t read = 0;  ///< so many of the first bytes are not needed any more
    bool kept = false;      ///< `live` may change
    HostBuffer copy;        ///< what was not read by then, at the same offsets
};

Snapshot::Snapshot(kernels::Device& device, std::vector<HostBuffer> spare,
                   std::function<void()> moved)
    : device_(device), moved_(std::move(moved)), reading_(device.make_stream()) {
    for (HostBuffer& copy : spare) spare_.emplace(std::ssize(copy.bytes()), std::move(copy));
}

Snapshot::~Snapshot() = default;

Snapshot::Part& Snapshot::add_part(const std::string& model, const char* kind, ParameterId id,
                                   const Box& box, DeviceSpan<const float> values) {
    Part& part = parts_.emplace_back();
    part.live = cast_span<const std::byte>(values);
    io::ShardItem& item = items_.emplace_back();
    item.model = model;
    item.kind = kind;
    item.parameter = id;
    item.box = box;
    item.read = [this, &part](std::int64_t offset, std::span<std::byte> to) {
        if (abandoned_) throw InternalError("this save was given up");
        if (moved_) moved_();
        const std::lock_guard lock(part.mutex);
        if (part.kept) {
            const auto from = part.copy.bytes().subspan(static_cast<std::size_t>(offset));
            std::copy_n(from.begin(), to.size(), to.begin());
        } else {
            device_.download(part.live.subspan(offset, std::ssize(to)), to, *reading_);
        }
        part.read = offset + std::ssize(to);
    };
    return part;
}

void Snapshot::add(const std::string& model, const char* kind, ParameterId id, const Box& box,
                   DeviceSpan<const float> values) {
    (void)add_part(model, kind, id, box, values);
}

void Snapshot::add_copied(const std::string& model, const char* kind, ParameterId id,
                          const Box& box, DeviceSpan<const float> values, kernels::Stream& stream) {
    keep(add_part(model, kind, id, box, values), stream);
}

void Snapshot::keep(kernels::Stream& stream) {
    for (Part& part : parts_) keep(part, stream);
}

void Snapshot::keep(Part& part, kernels::Stream& stream) {
    const std::lock_guard lock(part.mutex);
    const std::int64_t left = part.live.size() - part.read;
    if (part.kept || left == 0) return;
    part.copy = room(part.live.size());
    device_.download(part.live.subspan(part.read, left),
                     part.copy.bytes().subspan(static_cast<std::size_t>(part.read),
                                               static_cast<std::size_t>(left)),
                     stream);
    part.kept = true;
    copied_bytes_ += left;
}

std::vector<HostBuffer> Snapshot::take_copies() {
    std::vector<HostBuffer> copies;
    for (auto& [size, copy] : std::exchange(spare_, {})) copies.push_back(std::move(copy));
    for (Part& part : parts_) {
        if (part.kept) copies.push_back(std::move(part.copy));
    }
    items_.clear();
    parts_.clear();
    return copies;
}

HostBuffer Snapshot::room(std::int64_t bytes) {
    const auto found = spare_.find(bytes);
    if (found == spare_.end()) return HostBuffer(bytes);
    return std::move(spare_.extract(found).mapped());
}

}  // namespace rankwise::stages
