#include "io/manifest.hpp"

#include <algorithm>
#include <charconv>
#include <optional>
#include <set>
#include <tuple>

#include "io/hdf5_file.hpp"

namespace rankwise::io {
namespace {

constexpr const char* kFileName = "manifest.h5";
constexpr std::int64_t kHeaderBytes = 512;  // HDF5's "user block", which its readers skip
constexpr std::string_view kMagic = "rankwise manifest\nformat ";
constexpr std::string_view kHashLabel =
    "\nxxh3-128 of what follows these 512 bytes, seeded with the format: ";

/// The format is the seed, so that a flipped bit in its digits is damage and not a "newer format".
UInt128 body_hash(std::span<const std::byte> file, std::int64_t format) {
    const auto body = file.subspan(static_cast<std::size_t>(kHeaderBytes));
    return xxh3_128(body.data(), body.size(), static_cast<std::uint64_t>(format));
}

std::string header_of(std::span<const std::byte> file) {
    std::string header = fmt::format("{}{}{}{}\n", kMagic, kCheckpointFormat, kHashLabel,
                                     to_hex(body_hash(file, kCheckpointFormat)));
    header.resize(static_cast<std::size_t>(kHeaderBytes), ' ');
    return header;
}

struct Header {
    std::int64_t format = 0;
    UInt128 hash;
};

std::optional<Header> parse_header(std::string_view text) {
    Header header;
    if (!text.starts_with(kMagic)) return std::nullopt;
    text.remove_prefix(kMagic.size());
    const auto [end, error] =
        std::from_chars(text.data(), text.data() + text.size(), header.format);
    if (error != std::errc()) return std::nullopt;
    text.remove_prefix(static_cast<std::size_t>(end - text.data()));
    if (!text.starts_with(kHashLabel)) return std::nullopt;
    const auto hash = uint128_from_hex(text.substr(kHashLabel.size(), 32));
    if (!hash) return std::nullopt;
    header.hash = *hash;
    text.remove_prefix(kHashLabel.size() + 32);
    if (text[0] != '\n' || text.find_first_not_of(' ', 1) != std::string_view::npos)
        return std::nullopt;
    return header;
}

/// All boxes of one model and kind must make each parameter they touch, whole and once.
void ensure_whole(const SavedModel& model, const std::string& kind, std::vector<ShardBox> boxes) {
    const auto key = [](const ShardBox& b) {
        return std::tuple(b.parameter, b.box.rows.begin, b.box.cols.begin);
    };
    std::sort(boxes.begin(), boxes.end(),
              [&](const ShardBox& a, const ShardBox& b) { return key(a) < key(b); });
    for (std::size_t begin = 0; begin < boxes.size();) {
        const ParameterId id = boxes[begin].parameter;
        ensure(id >= 0 && id < static_cast<std::int64_t>(model.parameters.size()),
               "{}/{}: parameter {} is not in the model's table", model.name, kind, id);
        const SavedParameter& parameter = model.parameters[static_cast<std::size_t>(id)];
        std::int64_t elements = 0;
        std::size_t end = begin;
        for (; end < boxes.size() && boxes[end].parameter == id; ++end) {
            const Box& box = boxes[end].box;
            ensure(intersect(box, Box::whole(parameter.shape)) == box, "{}/{}: box {} leaves {} {}",
                   model.name, kind, to_string(box), parameter.name, to_string(parameter.shape));
            elements += box.size();
            for (std::size_t next = end + 1; next < boxes.size() && boxes[next].parameter == id &&
                                             boxes[next].box.rows.begin < box.rows.end;
                 ++next) {
                ensure(intersect(box, boxes[next].box).empty(),
                       "{}/{}: {} is saved twice in {} and {}", model.name, kind, parameter.name,
                       to_string(box), to_string(boxes[next].box));
            }
        }
        ensure(elements == parameter.shape.size(), "{}/{}: {} of the {} elements of {} are saved",
               model.name, kind, elements, parameter.shape.size(), parameter.name);
        begin = end;
    }
}

void ensure_whole(const Manifest& manifest) {
    std::map<std::pair<std::string, std::string>, std::vector<ShardBox>> all;
    for (const ShardEntry& entry : manifest.files) {
        for (const ShardContent& content : entry.contents) {
            const auto& list = entry.box_lists.at(static_cast<std::size_t>(content.boxes));
            auto& boxes = all[{content.model, content.kind}];
            boxes.insert(boxes.end(), list.begin(), list.end());
        }
    }
    for (auto& [key, boxes] : all) {
        const std::string& name = key.first;
        const auto model = std::ranges::find(manifest.models, name, &SavedModel::name);
        ensure(model != manifest.models.end(), "a shard holds model {}, which the manifest lacks",
               name);
        ensure_whole(*model, key.second, std::move(boxes));
    }
}

/// The seed's 64 bits, as HDF5's readers best show them.
std::int64_t signed_bits(std::uint64_t value) {
    return static_cast<std::int64_t>(value);
}

void write_state(Hdf5File& file, const RunState& state) {
    file.set_attribute("/", "stage", state.stage);
    file.set_attribute("/", "step", state.step);
    file.set_attribute("/", "seed", signed_bits(state.seed));
    file.set_attribute("/", "policy_version", state.policy_version);
    file.set_attribute("/", "numerics_version", state.numerics_version);
    file.set_attribute("/", "digest/options", to_hex(state.options_digest));
    file.write_strings("options", std::vector<std::string>{state.options});
    std::vector<std::string> axes, int_names, float_names, text_names, texts;
    std::vector<std::int64_t> ranks, ints;
    std::vector<double> floats;
    for (const auto& [axis, count] : state.mesh) {
        axes.push_back(axis);
        ranks.push_back(count);
    }
    for (const auto& [name, value] : state.values) {
        if (const auto* number = std::get_if<std::int64_t>(&value)) {
            int_names.push_back(name);
            ints.push_back(*number);
        } else if (const auto* real = std::get_if<double>(&value)) {
            float_names.push_back(name);
            floats.push_back(*real);
        } else {
            text_names.push_back(name);
            texts.push_back(std::get<std::string>(value));
        }
    }
    file.write_strings("mesh/axis", axes);
    file.write("mesh/ranks", ranks);
    file.write_strings("state/int_name", int_names);
    file.write("state/int_value", ints);
    file.write_strings("state/float_name", float_names);
    file.write("state/float_value", floats);
    file.write_strings("state/text_name", text_names);
    file.write_strings("state/text_value", texts);
}

[[noreturn]] void contradicts(Hdf5File& file, std::string_view what) {
    throw CorruptFile(
        fmt::format("{}: {} contradicts itself; the file was not written by this program",
                    file.path().string(), what));
}

template <class Value, class Map>
void fill(Hdf5File& file, const std::vector<std::string>& names, const std::vector<Value>& values,
          Map& map) {
    if (names.size() != values.size()) contradicts(file, "a list of names and values");
    for (std::size_t i = 0; i < names.size(); ++i) map.emplace(names[i], values[i]);
}

UInt128 hex_attribute(Hdf5File& file, const std::string& name) {
    const auto value = uint128_from_hex(file.text_attribute("/", name));
    if (!value) contradicts(file, name);
    return *value;
}

RunState read_state(Hdf5File& file) {
    RunState state;
    state.stage = file.text_attribute("/", "stage");
    state.step = file.int_attribute("/", "step");
    state.seed = static_cast<std::uint64_t>(file.int_attribute("/", "seed"));
    state.policy_version = file.int_attribute("/", "policy_version");
    state.numerics_version = file.int_attribute("/", "numerics_version");
    state.options_digest = hex_attribute(file, "digest/options");
    const auto options = file.read_strings("options");
    if (options.size() != 1) contradicts(file, "options");
    state.options = options[0];
    fill(file, file.read_strings("mesh/axis"), file.read<std::int64_t>("mesh/ranks"), state.mesh);
    fill(file, file.read_strings("state/int_name"), file.read<std::int64_t>("state/int_value"),
         state.values);
    fill(file, file.read_strings("state/float_name"), file.read<double>("state/float_value"),
         state.values);
    fill(file, file.read_strings("state/text_name"), file.read_strings("state/text_value"),
         state.values);
    return state;
}

void write_models(Hdf5File& file, const std::vector<SavedModel>& models) {
    std::vector<std::string> names;
    for (const SavedModel& model : models) {
        names.push_back(model.name);
        std::vector<std::string> parameters;
        std::vector<std::int64_t> rows, columns;
        std::vector<std::uint8_t> vectors;
        for (const SavedParameter& parameter : model.parameters) {
            parameters.push_back(parameter.name);
            rows.push_back(parameter.shape.rows);
            columns.push_back(parameter.shape.cols);
            vectors.push_back(parameter.shape.vector ? 1 : 0);
        }
        const std::string group = "models/" + model.name;
        file.write_strings(group + "/name", parameters);
        file.write(group + "/rows", rows);
        file.write(group + "/columns", columns);
        file.write(group + "/vector", vectors);
    }
    file.write_strings("model_names", names);
}

std::vector<SavedModel> read_models(Hdf5File& file) {
    std::vector<SavedModel> models;
    for (const std::string& name : file.read_strings("model_names")) {
        const std::string group = "models/" + name;
        const auto parameters = file.read_strings(group + "/name");
        const auto rows = file.read<std::int64_t>(group + "/rows");
        const auto columns = file.read<std::int64_t>(group + "/columns");
        const auto vectors = file.read<std::uint8_t>(group + "/vector");
        const std::size_t count = parameters.size();
        if (rows.size() != count || columns.size() != count || vectors.size() != count) {
            contradicts(file, group);
        }
        SavedModel model{name, {}};
        for (std::size_t i = 0; i < count; ++i) {
            model.parameters.push_back({parameters[i], {rows[i], columns[i], vectors[i] != 0}});
        }
        models.push_back(std::move(model));
    }
    return models;
}

void write_files(Hdf5File& file, const std::vector<ShardEntry>& entries) {
    std::vector<std::string> names, checksums;
    std::vector<std::int64_t> bytes, sizes;
    std::vector<std::uint8_t> encoded;
    for (const ShardEntry& entry : entries) {
        names.push_back(entry.file);
        checksums.push_back(to_hex(entry.checksum));
        bytes.push_back(entry.bytes);
        const auto code = encode(entry);
        sizes.push_back(static_cast<std::int64_t>(code.size()));
        for (const std::byte byte : code) encoded.push_back(std::to_integer<std::uint8_t>(byte));
    }
    file.write_strings("files/name", names);  // for people; `entries` has it all
    file.write_strings("files/checksum", checksums);
    file.write("files/bytes", bytes);
    file.write("files/entry_size", sizes);
    file.write("files/entries", encoded);
}

std::vector<ShardEntry> read_files(Hdf5File& file) {
    const auto sizes = file.read<std::int64_t>("files/entry_size");
    const auto encoded = file.read<std::uint8_t>("files/entries");
    std::span<const std::byte> rest = std::as_bytes(std::span(encoded));
    std::vector<ShardEntry> entries;
    for (const std::int64_t size : sizes) {
        if (size < 0 || static_cast<std::size_t>(size) > rest.size()) contradicts(file, "files");
        entries.push_back(decode_shard_entry(rest.first(static_cast<std::size_t>(size)),
                                             file.path().string() + ": files"));
        rest = rest.subspan(static_cast<std::size_t>(size));
    }
    return entries;
}

}  // namespace

SavedModel saved_model(const std::string& name, const ParameterTable& table) {
    SavedModel model{name, {}};
    for (const Parameter& parameter : table.rows()) {
        model.parameters.push_back({parameter.name, parameter.shape});
    }
    return model;
}

UInt128 checkpoint_id(const RunState& state) {
    std::string text = fmt::format("{} {} {} {} {}", to_hex(state.options_digest), state.seed,
                                   state.numerics_version, state.step, state.stage);
    for (const auto& [axis, ranks] : state.mesh) text += fmt::format(" {}={}", axis, ranks);
    return xxh3_128(text.data(), text.size());
}

void write_manifest(FileSystem& fs, const Path& directory, const Manifest& manifest) {
    ensure_whole(manifest);
    const Path path = directory / kFileName;
    Hdf5File file = Hdf5File::create(fs, path, kHeaderBytes);
    file.set_attribute("/", "format", kCheckpointFormat);
    file.set_attribute("/", "checkpoint", to_hex(manifest.id));
    write_state(file, manifest.state);
    write_models(file, manifest.models);
    write_files(file, manifest.files);
    file.close();
    const auto raw = fs.open(path, OpenMode::update);
    std::vector<std::byte> bytes(static_cast<std::size_t>(raw->size()));
    raw->read_at(0, bytes);
    raw->write_at(0, bytes_of(header_of(bytes)));
    raw->sync();
}

Manifest read_manifest(FileSystem& fs, const Path& directory) {
    const Path path = directory / kFileName;
    if (!fs.exists(path)) {
        throw CorruptFile(fmt::format(
            "{}: there is no manifest, so the checkpoint was never finished", path.string()));
    }
    std::vector<std::byte> bytes = read_file(fs, path);
    std::optional<Header> header;
    if (bytes.size() >= static_cast<std::size_t>(kHeaderBytes)) {
        header = parse_header(
            {reinterpret_cast<const char*>(bytes.data()), static_cast<std::size_t>(kHeaderBytes)});
    }
    if (!header) {
        throw CorruptFile(fmt::format(
            "{}: the first {} bytes are not the header of a manifest; the file is damaged",
            path.string(), kHeaderBytes));
    }
    const UInt128 found = body_hash(bytes, header->format);
    if (found != header->hash) {
        throw CorruptFile(fmt::format("{}: checksum differs (expected {}, found {})", path.string(),
                                      to_hex(header->hash), to_hex(found)));
    }
    require(header->format >= kCheckpointFormat,
            "{}: format {} is older than this program reads ({}); let the program that wrote it "
            "export the model (rankwise export), and start from that folder",
            path.string(), header->format, kCheckpointFormat);
    require(
        header->format <= kCheckpointFormat,
        "{}: format {} is newer than this program reads ({}); use the program that wrote it, or "
        "name an older checkpoint with --resume.step",
        path.string(), header->format, kCheckpointFormat);
    Hdf5File file = Hdf5File::open_bytes(std::move(bytes), path);
    Manifest manifest;
    manifest.id = hex_attribute(file, "checkpoint");
    manifest.state = read_state(file);
    manifest.models = read_models(file);
    manifest.files = read_files(file);
    return manifest;
}

UInt128 manifest_digest(FileSystem& fs, const Path& directory) {
    const std::vector<std::byte> bytes = read_file(fs, directory / kFileName);
    return xxh3_128(bytes.data(), bytes.size());
}

}  // namespace rankwise::io
