#include "io/safetensors_writer.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "io/safetensors_names.hpp"
#include "src/base/checked.hpp"

namespace rankwise::io {
namespace {

using nlohmann::json;

constexpr std::int64_t kAlignment = 8;  // of the data, so that mapped tensors are aligned

std::int64_t bytes_of_tensor(const SafetensorsWriter::Tensor& tensor) {
    return tensor.shape.size() * size_of(tensor.dtype);
}

std::string file_name(std::int64_t index, std::int64_t count) {
    return count == 1 ? kSingleFile
                      : fmt::format("model-{:05}-of-{:05}.safetensors", index + 1, count);
}

Path temporary(const Path& path) {
    Path with_suffix = path;
    with_suffix += ".tmp";
    return with_suffix;
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(FileSystem& fs, Path folder, std::vector<Tensor> tensors,
                                     std::int64_t max_file_bytes)
    : fs_(fs), folder_(std::move(folder)) {
    ensure(!tensors.empty(), "{}: there is no tensor to write", folder_.string());
    std::int64_t used = 0;
    std::int64_t file = 0;
    for (Tensor& tensor : tensors) {
        const std::int64_t bytes = bytes_of_tensor(tensor);
        if (used > 0 && used + bytes > max_file_bytes) {
            ++file;
            used = 0;
        }
        const bool fresh = places_.emplace(tensor.name, tensors_.size()).second;
        ensure(fresh, "{}: tensor {} is to be written twice", folder_.string(), tensor.name);
        const auto rows = static_cast<std::size_t>(tensor.shape.rows);
        tensors_.push_back({std::move(tensor), file, used, std::vector<bool>(rows)});
        used += bytes;
    }
    fs_.create_directories(folder_);
    for (std::int64_t i = 0; i <= file; ++i) {
        const std::string name = file_name(i, file + 1);
        files_.push_back({name, fs_.open(temporary(folder_ / name), OpenMode::create), 0});
        write_header(i);
    }
}

SafetensorsWriter::~SafetensorsWriter() {
    if (finished_) return;
    for (const Output& output : files_) {
        try {
            fs_.remove_tree(temporary(folder_ / output.name));
        } catch (const EnvironmentError&) {  // the first error is on its way already
            continue;
        }
    }
}

void SafetensorsWriter::write_header(std::int64_t file) {
    json header;
    header["__metadata__"] = {{"format", "pt"}};
    for (const Placed& placed : tensors_) {
        if (placed.file != file) continue;
        const Shape shape = placed.tensor.shape;
        header[placed.tensor.name] = {
            {"dtype", name_of(placed.tensor.dtype)},
            {"shape",
             shape.vector ? json::array({shape.cols}) : json::array({shape.rows, shape.cols})},
            {"data_offsets", {placed.offset, placed.offset + bytes_of_tensor(placed.tensor)}}};
    }
    std::string text = header.dump();
    text.resize(
        static_cast<std::size_t>(round_up(static_cast<std::int64_t>(text.size()), kAlignment)),
        ' ');
    std::string length;
    for (unsigned shift = 0; shift < 64; shift += 8) {
        length += static_cast<char>(static_cast<std::uint64_t>(text.size()) >> shift & 0xFFU);
    }
    const std::string head = length + text;
    const auto head_bytes = static_cast<std::int64_t>(head.size());
    Output& output = files_[static_cast<std::size_t>(file)];
    output.file->write_at(0, bytes_of(head));
    for (Placed& placed : tensors_) {
        if (placed.file != file) continue;
        output.data_bytes += bytes_of_tensor(placed.tensor);
        placed.offset += head_bytes;
    }
    output.file->truncate(head_bytes + output.data_bytes);
}

SafetensorsWriter::Placed& SafetensorsWriter::placed(std::string_view name) {
    const auto found = places_.find(name);
    ensure(found != places_.end(), "{}: tensor {} was not announced", folder_.string(), name);
    return tensors_[found->second];
}

void SafetensorsWriter::write_rows(std::string_view name, std::int64_t row,
                                   std::span<const float> values) {
    const DType dtype = placed(name).tensor.dtype;
    if (dtype == DType::f32) {
        write_rows_raw(name, row, std::as_bytes(values));
        return;
    }
    ensure(dtype == DType::bf16, "{}: floats cannot be written as {}", name, name_of(dtype));
    std::vector<std::uint16_t> bits(values.size());
    std::transform(values.begin(), values.end(), bits.begin(), bf16_from_float);
    write_rows_raw(name, row, std::as_bytes(std::span(bits)));
}

void SafetensorsWriter::write_rows_raw(std::string_view name, std::int64_t row,
                                       std::span<const std::byte> bytes) {
    Placed& tensor = placed(name);
    const Shape shape = tensor.tensor.shape;
    const std::int64_t row_bytes = shape.cols * size_of(tensor.tensor.dtype);
    const std::int64_t rows =
        row_bytes == 0 ? 0 : div_exact(static_cast<std::int64_t>(bytes.size()), row_bytes);
    ensure(row >= 0 && row + rows <= shape.rows, "{}: rows {} to {} leave {}", name, row,
           row + rows, to_string(shape));
    for (std::int64_t r = row; r < row + rows; ++r) {
        auto&& written = tensor.written[static_cast<std::size_t>(r)];
        ensure(!written, "{}: row {} is written twice", name, r);
        written = true;
    }
    files_[static_cast<std::size_t>(tensor.file)].file->write_at(tensor.offset + row * row_bytes,
                                                                 bytes);
}

void SafetensorsWriter::finish() {
    for (const Placed& placed : tensors_) {
        const auto missing = std::find(placed.written.begin(), placed.written.end(), false);
        ensure(missing == placed.written.end() || placed.tensor.shape.cols == 0,
               "{}: row {} was never written", placed.tensor.name,
               missing - placed.written.begin());
    }
    for (Output& output : files_) {
        output.file->sync();
        output.file.reset();
    }
    for (const Output& output : files_) {
        fs_.rename(temporary(folder_ / output.name), folder_ / output.name);
    }
    if (files_.size() > 1) {
        json map;
        std::int64_t total = 0;
        for (const Placed& placed : tensors_) {
            map[placed.tensor.name] = files_[static_cast<std::size_t>(placed.file)].name;
        }
        for (const Output& output : files_) total += output.data_bytes;
        const json index{{"metadata", {{"total_size", total}}}, {"weight_map", map}};
        replace_file(fs_, folder_ / kIndexFile, bytes_of(index.dump(2) + "\n"));
    }
    fs_.remove_tree(folder_ / (files_.size() > 1 ? kSingleFile : kIndexFile));
    fs_.sync_directory(folder_);
    finished_ = true;
}

}  // namespace rankwise::io
