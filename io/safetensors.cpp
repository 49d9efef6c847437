#include "io/safetensors.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "io/descriptor.hpp"
#include "io/safetensors_names.hpp"

namespace rankwise::io {
namespace {

using nlohmann::json;

constexpr std::uint64_t kMaxHeader = 100'000'000;  // what the format's own library accepts

std::uint64_t little_endian(std::span<const std::byte> bytes) {
    std::uint64_t value = 0;
    for (std::size_t i = bytes.size(); i-- > 0;)
        value = value << 8U | std::to_integer<std::uint64_t>(bytes[i]);
    return value;
}

/// Parses an object and refuses a key that occurs twice in it, which the parser itself would let
/// pass.
json parse_object(std::string_view text, const std::string& where) {
    std::set<std::string> keys;
    std::string repeated;
    const auto watch = [&](int depth, json::parse_event_t event, json& parsed) {
        if (event == json::parse_event_t::key && depth == 1 &&
            !keys.insert(parsed.get<std::string>()).second) {
            repeated = parsed.get<std::string>();
        }
        return true;
    };
    json object;
    try {
        object = json::parse(text.begin(), text.end(), watch);
    } catch (const json::exception& problem) {
        throw BadInput(fmt::format("{}: no JSON: {}; the file is damaged, fetch it again", where,
                                   problem.what()));
    }
    require(repeated.empty(), "{}: '{}' occurs twice; the file is damaged", where, repeated);
    require(object.is_object(), "{}: expected a JSON object, found {}", where, object.type_name());
    return object;
}

/// The entry of one tensor, without its bytes' range.
struct Description {
    SafetensorsEntry entry;
    std::uint64_t begin = 0;
    std::uint64_t end = 0;
};

Description describe(const json& value, const std::string& where) {
    const auto number = [&](const json& n, std::string_view what) {
        require(n.is_number_unsigned() &&
                    n.get<std::uint64_t>() <=
                        static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()),
                "{}: {} must be a whole number from 0, found {}", where, what, n.dump());
        return n.get<std::uint64_t>();
    };
    require(value.is_object() && value.contains("dtype") && value.contains("shape") &&
                value.contains("data_offsets"),
            "{}: expected dtype, shape and data_offsets; the file is damaged", where);
    Description d;
    const json& dtype = value["dtype"];
    require(dtype.is_string(), "{}: dtype must be text, found {}", where, dtype.dump());
    try {
        d.entry.dtype = dtype_from_name(dtype.get<std::string>());
    } catch (const BadInput& problem) {
        throw BadInput(fmt::format("{}: {}", where, problem.what()));
    }
    const json& shape = value["shape"];
    require(shape.is_array(), "{}: shape must be a list, found {}", where, shape.dump());
    std::int64_t elements = 1;
    for (const json& size : shape) {
        const auto n = static_cast<std::int64_t>(number(size, "a size in shape"));
        require(n == 0 || elements <= std::numeric_limits<std::int64_t>::max() / 8 / n,
                "{}: shape {} is too large", where, shape.dump());
        elements *= n;
        d.entry.shape.push_back(n);
    }
    const json& offsets = value["data_offsets"];
    require(offsets.is_array() && offsets.size() == 2,
            "{}: data_offsets must be two numbers, found {}", where, offsets.dump());
    d.begin = number(offsets[0], "data_offsets");
    d.end = number(offsets[1], "data_offsets");
    const std::int64_t expected = elements * size_of(d.entry.dtype);
    require(d.begin <= d.end && d.end - d.begin == static_cast<std::uint64_t>(expected),
            "{}: shape {} of {} takes {} bytes, data_offsets {} give another number", where,
            shape.dump(), name_of(d.entry.dtype), expected, offsets.dump());
    return d;
}

/// Whether `a` and `b` share a long beginning or end: good enough to point at a misspelling.
std::size_t likeness(std::string_view a, std::string_view b) {
    const std::size_t most = std::min(a.size(), b.size());
    std::size_t front = 0;
    while (front < most && a[front] == b[front]) ++front;
    std::size_t back = 0;
    while (back < most - front && a[a.size() - 1 - back] == b[b.size() - 1 - back]) ++back;
    return front + back;
}

}  // namespace

/// A whole file, mapped for reading.
class MappedFile {
  public:
    explicit MappedFile(const Path& path) {
        const Descriptor descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
        if (!descriptor) throw file_error("open", path, errno);
        struct stat status {};
        if (::fstat(descriptor.get(), &status) != 0) throw file_error("examine", path, errno);
        size_ = static_cast<std::size_t>(status.st_size);
        if (size_ == 0) return;
        data_ = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, descriptor.get(), 0);
        if (data_ == MAP_FAILED) throw file_error("map", path, errno);
    }
    MappedFile(const MappedFile&) = delete;
    MappedFile& operator=(const MappedFile&) = delete;
    ~MappedFile() {
        if (size_ != 0) ::munmap(data_, size_);
    }
    [[nodiscard]] std::span<const std::byte> bytes() const {
        return {static_cast<const std::byte*>(data_), size_};
    }

  private:
    void* data_ = nullptr;
    std::size_t size_ = 0;
};

Shape shape_of(std::span<const std::int64_t> shape, const std::string& where) {
    require(shape.size() <= 2, "{}: the tensor has {} dimensions ([{}]), at most two can be used",
            where, shape.size(), fmt::join(shape, ", "));
    if (shape.size() == 2) return Shape::matrix(shape[0], shape[1]);
    return Shape::of_vector(shape.empty() ? 1 : shape[0]);
}

SafetensorsFolder::~SafetensorsFolder() = default;
SafetensorsFolder::SafetensorsFolder(SafetensorsFolder&&) noexcept = default;
SafetensorsFolder& SafetensorsFolder::operator=(SafetensorsFolder&&) noexcept = default;

SafetensorsFolder::SafetensorsFolder(const Path& path, Fp8Blocks blocks)
    : path_(path), blocks_(blocks) {
    std::error_code ignored;
    const Path index = path / kIndexFile;
    if (!std::filesystem::is_directory(path, ignored)) {
        require(std::filesystem::exists(path, ignored),
                "{}: there is no such folder or file; check the path in the recipe", path.string());
        add_file(path);
    } else if (std::filesystem::exists(index, ignored)) {
        const MappedFile file(index);
        const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()),
                                    file.bytes().size());
        const json parsed = parse_object(text, index.string());
        const auto map = parsed.find("weight_map");
        require(map != parsed.end() && map->is_object() && !map->empty(),
                "{}: there is no 'weight_map'; the file is damaged, fetch it again",
                index.string());
        std::set<std::string> names;
        for (const auto& [tensor, shard] : map->items()) {
            require(shard.is_string() &&
                        Path(shard.get<std::string>()).filename() == shard.get<std::string>(),
                    "{}: tensor {}: expected the name of a file in the folder, found {}",
                    index.string(), tensor, shard.dump());
            names.insert(shard.get<std::string>());
        }
        for (const std::string& name : names) {
            require(std::filesystem::exists(path / name, ignored),
                    "{}: the file is missing, which {} names; fetch it again",
                    (path / name).string(), kIndexFile);
            add_file(path / name);
        }
        for (const auto& [tensor, shard] : map->items()) {
            const auto found = tensors_.find(tensor);
            const std::string file_path = (path / shard.get<std::string>()).string();
            require(found != tensors_.end() && found->second.file == file_path,
                    "{}: tensor {} is not in it, though {} says so; fetch the folder again",
                    file_path, tensor, kIndexFile);
        }
    } else {
        require(std::filesystem::exists(path / kSingleFile, ignored),
                "{}: there is neither {} nor {}; expected a model folder as Hugging Face has them",
                path.string(), kSingleFile, kIndexFile);
        add_file(path / kSingleFile);
    }
    for (const auto& [name, entry] : tensors_) names_.push_back(name);
    std::sort(names_.begin(), names_.end());
}

void SafetensorsFolder::add_file(const Path& path) {
    const std::string where = path.string();
    files_.push_back(std::make_unique<MappedFile>(path));
    const auto bytes = files_.back()->bytes();
    require(bytes.size() >= 8,
            "{}: {} bytes are no safetensors file, which has a header; fetch it again", where,
            bytes.size());
    const std::uint64_t header = little_endian(bytes.first(8));
    require(header <= kMaxHeader,
            "{}: the header claims {} bytes, {} are the most; is it safetensors?", where, header,
            kMaxHeader);
    require(header <= bytes.size() - 8,
            "{}: the header claims {} bytes, {} follow: the file is cut short, fetch it again",
            where, header, bytes.size() - 8);
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + 8,
                                static_cast<std::size_t>(header));
    const auto data = bytes.subspan(8 + static_cast<std::size_t>(header));

    struct Taken {
        std::uint64_t begin, end;
        std::string name;
    };
    std::vector<Taken> taken;
    const json parsed = parse_object(text, where + ": header");
    for (const auto& [name, value] : parsed.items()) {
        if (name == "__metadata__") continue;
        const std::string tensor = fmt::format("{}: tensor {}", where, name);
        Description d = describe(value, tensor);
        require(
            d.end <= data.size(),
            "{}: its bytes end at {}, the file's data at {}: the file is cut short, fetch it again",
            tensor, d.end, data.size());
        d.entry.file = where;
        d.entry.bytes = data.subspan(static_cast<std::size_t>(d.begin),
                                     static_cast<std::size_t>(d.end - d.begin));
        if (d.begin < d.end) taken.push_back({d.begin, d.end, name});
        const auto [slot, fresh] = tensors_.try_emplace(name, std::move(d.entry));
        require(fresh, "{}: it is in {} as well", tensor, slot->second.file);
    }
    std::sort(taken.begin(), taken.end(),
              [](const Taken& a, const Taken& b) { return a.begin < b.begin; });
    for (std::size_t i = 1; i < taken.size(); ++i) {
        require(taken[i - 1].end <= taken[i].begin,
                "{}: tensors {} and {} overlap; the file is damaged, fetch it again", where,
                taken[i - 1].name, taken[i].name);
    }
}

bool SafetensorsFolder::has(std::string_view name) const {
    return tensors_.contains(std::string(name));
}

const SafetensorsEntry& SafetensorsFolder::at(std::string_view name) const {
    const auto found = tensors_.find(std::string(name));
    if (found != tensors_.end()) return found->second;
    const auto nearest = std::max_element(names_.begin(), names_.end(),
                                          [&](const std::string& a, const std::string& b) {
                                              return likeness(a, name) < likeness(b, name);
                                          });
    throw BadInput(fmt::format(
        "{}: tensor {} is missing{}; is this the model that config.json describes?", path_.string(),
        name, nearest == names_.end() ? "" : fmt::format(" (the nearest name is {})", *nearest)));
}

void SafetensorsFolder::require_shape(std::string_view name, Shape shape) const {
    const SafetensorsEntry& entry = at(name);
    const std::string where = fmt::format("{}: tensor {}", entry.file, name);
    const Shape found = shape_of(entry.shape, where);
    require(found == shape, "{}: expected shape {}, found {}; does config.json fit the weights?",
            where, to_string(shape), to_string(found));
}

void SafetensorsFolder::read_raw(std::string_view name, const Box& box,
                                 std::span<std::byte> bytes) const {
    const SafetensorsEntry& entry = at(name);
    const std::string where = fmt::format("{}: tensor {}", entry.file, name);
    const Shape shape = shape_of(entry.shape, where);
    const std::int64_t element = size_of(entry.dtype);
    require(box.empty() || intersect(box, Box::whole(shape)) == box,
            "{}: box {} leaves the tensor's {}", where, to_string(box), to_string(shape));
    ensure(static_cast<std::int64_t>(bytes.size()) == box.size() * element,
           "{} bytes to hold box {} of {}", bytes.size(), to_string(box), name_of(entry.dtype));
    const auto width = static_cast<std::size_t>(box.cols.size() * element);
    for (std::int64_t row = box.rows.begin; !box.empty() && row < box.rows.end; ++row) {
        const std::int64_t from = (row * shape.cols + box.cols.begin) * element;
        const std::int64_t to = (row - box.rows.begin) * box.cols.size() * element;
        std::memcpy(bytes.data() + to, entry.bytes.data() + from, width);
    }
}

std::string scales_of(std::string_view name) {
    return fmt::format("{}_scale_inv", name);
}

void SafetensorsFolder::read_fp8(std::string_view name, const Box& box,
                                 std::span<float> values) const {
    const SafetensorsEntry& entry = at(name);
    const std::string scale_name = scales_of(name);
    const std::string where = fmt::format("{}: tensor {}", entry.file, name);
    require(has(scale_name), "{}: F8_E4M3 values without {}, by which they are to be multiplied",
            where, scale_name);
    require(at(scale_name).dtype == DType::f32, "{}: {} is {}, expected F32", where, scale_name,
            name_of(at(scale_name).dtype));
    const Shape shape = shape_of(entry.shape, where);
    require_shape(scale_name, Shape::matrix(ceil_div(shape.rows, blocks_.rows),
                                            ceil_div(shape.cols, blocks_.cols)));
    const Range columns{box.cols.begin / blocks_.cols, ceil_div(box.cols.end, blocks_.cols)};
    std::vector<float> scales(static_cast<std::size_t>(columns.size()));
    std::vector<std::byte> bits(static_cast<std::size_t>(box.cols.size()));
    auto out = values.begin();
    for (std::int64_t row = box.rows.begin; row < box.rows.end; ++row) {
        read_raw(name, {{row, row + 1}, box.cols}, bits);
        const std::int64_t block = row / blocks_.rows;
        read_raw(scale_name, {{block, block + 1}, columns},
                 std::as_writable_bytes(std::span(scales)));
        for (std::int64_t col = box.cols.begin; col < box.cols.end; ++col, ++out) {
            const auto value = bits[static_cast<std::size_t>(col - box.cols.begin)];
            *out = float_from_e4m3(std::to_integer<std::uint8_t>(value)) *
                   scales[static_cast<std::size_t>(col / blocks_.cols - columns.begin)];
        }
    }
}

void SafetensorsFolder::read(std::string_view name, const Box& box, std::span<float> values) const {
    const SafetensorsEntry& entry = at(name);
    const std::string where = fmt::format("{}: tensor {}", entry.file, name);
    if (entry.dtype == DType::f32) {
        read_raw(name, box, std::as_writable_bytes(values));
        return;
    }
    if (entry.dtype == DType::f8_e4m3) {
        read_fp8(name, box, values);
        return;
    }
    require(entry.dtype == DType::bf16 || entry.dtype == DType::f16,
            "{}: element type {} cannot be read as weights; expected F32, BF16, F16 or F8_E4M3",
            where, name_of(entry.dtype));
    std::vector<std::uint16_t> row_bits(static_cast<std::size_t>(box.cols.size()));
    auto out = values.begin();
    for (std::int64_t row = box.rows.begin; row < box.rows.end; ++row) {
        read_raw(name, {{row, row + 1}, box.cols}, std::as_writable_bytes(std::span(row_bits)));
        const auto widen = entry.dtype == DType::bf16 ? float_from_bf16 : float_from_f16;
        out = std::transform(row_bits.begin(), row_bits.end(), out, widen);
    }
}

}  // namespace rankwise::io
