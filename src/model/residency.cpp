#include "src/model/residency.hpp"

#include <fmt/format.h>

namespace rankwise::model {

OffDevice::~OffDevice() {
    if (on_host() || size_ == 0) return;
    try {
        residence_.files->remove_tree(residence_.file);
    } catch (const EnvironmentError&) {
        // The next run replaces it; nobody else reads it.
    }
}

void OffDevice::put(std::vector<float> values) {
    size_ = values.size();
    if (on_host()) {
        values_ = std::move(values);
        return;
    }
    const auto bytes = std::as_bytes(std::span(values));
    checksum_ = xxh3_128(bytes.data(), bytes.size());
    residence_.files->create_directories(residence_.file.parent_path());
    const auto file = residence_.files->open(residence_.file, io::OpenMode::create);
    file->write_at(0, bytes);  // not synced: a crash needs none of it
}

std::vector<float> OffDevice::get() const {
    if (on_host() || size_ == 0) return values_;
    std::vector<float> values(size_);
    const auto bytes = std::as_writable_bytes(std::span(values));
    const auto file = residence_.files->open(residence_.file, io::OpenMode::read);
    const std::int64_t there = file->read_at(0, bytes);
    if (there != static_cast<std::int64_t>(bytes.size()) ||
        xxh3_128(bytes.data(), bytes.size()) != checksum_) {
        throw CorruptFile(fmt::format(
            "{}: weights that this run had put there are no longer what they were ({} of {} bytes "
            "were read): the disk is failing, or another run uses this folder; the same command "
            "goes on from the last checkpoint",
            residence_.file.string(), there, bytes.size()));
    }
    return values;
}

}  // namespace rankwise::model
