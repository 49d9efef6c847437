#include "io/checkpoint_reader.hpp"

#include <algorithm>
#include <set>

#include "io/checkpoint.hpp"
#include "io/hdf5_file.hpp"

namespace rankwise::io {
namespace {

constexpr std::int64_t kBufferBytes = std::int64_t{8} << 20U;
/// Files that are read ahead, so many blocks at a time: of more, memory would be held for each.
constexpr std::int64_t kReadAhead = 4;
constexpr std::int64_t kAheadBlocks = 2;

std::string list_of_saved(const Manifest& manifest) {
    std::set<std::string> saved;
    for (const ShardEntry& entry : manifest.files) {
        for (const ShardContent& content : entry.contents)
            saved.insert(content.model + "/" + content.kind);
    }
    return fmt::format("{}", fmt::join(saved, ", "));
}

/// Rows of a saved box, whole: `bytes` of its rows `rows`.
struct SavedRows {
    Box saved;
    Range rows;
    std::span<const std::byte> bytes;
};

/// Gives `take` what of these rows lies in `part`, at its place in `box`: a row at a time, or
/// gathered in `gathered` where that is one piece of the box.
void take_rows(const SavedRows& from, const Box& part, const Box& box, std::int64_t element,
               std::vector<std::byte>& gathered, const CheckpointReader::Take& take) {
    const std::int64_t size = part.cols.size() * element;
    const auto place = [&](std::int64_t row) {
        return ((row - box.rows.begin) * box.cols.size() + part.cols.begin - box.cols.begin) *
               element;
    };
    const auto row_of = [&](std::int64_t row) {
        const std::int64_t at = (row - from.rows.begin) * from.saved.cols.size() + part.cols.begin -
                                from.saved.cols.begin;
        return from.bytes.subspan(static_cast<std::size_t>(at * element),
                                  static_cast<std::size_t>(size));
    };
    if (part.cols != box.cols) {
        for (std::int64_t row = from.rows.begin; row < from.rows.end; ++row)
            take(place(row), row_of(row));
        return;
    }
    gathered.resize(static_cast<std::size_t>(from.rows.size() * size));
    auto to = gathered.begin();
    for (std::int64_t row = from.rows.begin; row < from.rows.end; ++row)
        to = std::ranges::copy(row_of(row), to).out;
    take(place(from.rows.begin), gathered);
}

}  // namespace

CheckpointReader::CheckpointReader(FileSystem& fs, Path path, bool alone)
    : fs_(fs), path_(std::move(path)), alone_(alone), manifest_([&] {
          try {
              return read_manifest(fs, path_);
          } catch (const CorruptFile& problem) {
              throw CorruptFile(fmt::format("{}; {}", problem.what(), way_out(fs, path_)));
          }
      }()) {
    shards_.resize(manifest_.files.size());
}

void CheckpointReader::corrupt(const std::string& file, const std::string& what) const {
    throw CorruptFile(
        fmt::format("{}: {}; {}", (path_ / file).string(), what, way_out(fs_, path_)));
}

bool CheckpointReader::has(const std::string& model, const std::string& kind) const {
    return std::any_of(
        manifest_.files.begin(), manifest_.files.end(), [&](const ShardEntry& entry) {
            return std::any_of(
                entry.contents.begin(), entry.contents.end(),
                [&](const ShardContent& c) { return c.model == model && c.kind == kind; });
        });
}

void CheckpointReader::require_same_model(const std::string& model,
                                          const ParameterTable& table) const {
    const auto saved = std::find_if(manifest_.models.begin(), manifest_.models.end(),
                                    [&](const SavedModel& m) { return m.name == model; });
    if (saved == manifest_.models.end()) {
        std::vector<std::string> names;
        for (const SavedModel& m : manifest_.models) names.push_back(m.name);
        throw BadInput(
            fmt::format("{}: no model '{}' is in this checkpoint, which holds: {}; check the "
                        "recipe's models",
                        path_.string(), model, fmt::join(names, ", ")));
    }
    const auto& parameters = saved->parameters;
    const auto count = std::max(parameters.size(), table.rows().size());
    for (std::size_t i = 0; i < count; ++i) {
        const std::string there =
            i < parameters.size()
                ? fmt::format("{} {}", parameters[i].name, to_string(parameters[i].shape))
                : "no more parameters";
        const std::string here =
            i < table.rows().size()
                ? fmt::format("{} {}", table.rows()[i].name, to_string(table.rows()[i].shape))
                : "no more parameters";
        require(there == here,
                "{}: '{}' is another model: parameter {} is {} in the checkpoint and {} in the "
                "recipe's "
                "model; resume with the recipe that wrote it",
                path_.string(), model, i, there, here);
    }
}

const std::vector<CheckpointReader::Place>& CheckpointReader::places(const std::string& model,
                                                                     const std::string& kind) {
    const auto [slot, fresh] = places_.try_emplace({model, kind});
    auto& found = slot->second;
    if (!fresh) return found;
    for (std::size_t f = 0; f < manifest_.files.size(); ++f) {
        const ShardEntry& entry = manifest_.files[f];
        for (std::size_t c = 0; c < entry.contents.size(); ++c) {
            const ShardContent& content = entry.contents[c];
            if (content.model != model || content.kind != kind) continue;
            const auto& boxes = entry.box_lists[static_cast<std::size_t>(content.boxes)];
            for (std::size_t b = 0; b < boxes.size(); ++b) {
                found.push_back({boxes[b].parameter, narrow<std::int32_t>(f),
                                 narrow<std::int32_t>(c), narrow<std::int32_t>(b)});
            }
        }
    }
    std::stable_sort(found.begin(), found.end(),
                     [](const Place& a, const Place& b) { return a.parameter < b.parameter; });
    return found;
}

void CheckpointReader::refuse_anothers(const ShardEntry& entry) const {
    // A whole shard of another checkpoint is a mix-up of files, not damage: say so.
    std::string owner;
    try {
        owner = Hdf5File::open(fs_, path_ / entry.file).text_attribute("/", "checkpoint");
    } catch (const CorruptFile&) {
        owner.clear();
    }
    if (!owner.empty() && owner != to_hex(manifest_.id)) {
        corrupt(entry.file,
                fmt::format("the file belongs to another checkpoint (expected id {}, found {})",
                            to_hex(manifest_.id), owner));
    }
}

void CheckpointReader::finish(const std::function<void()>& moved) {
    for (std::size_t i = 0; i < shards_.size(); ++i) finish(static_cast<std::int64_t>(i), moved);
}

void CheckpointReader::finish(std::int64_t index, const std::function<void()>& moved) {
    Shard& shard = shards_[static_cast<std::size_t>(index)];
    if (!shard.file || shard.verified) return;
    const ShardEntry& entry = manifest_.files[static_cast<std::size_t>(index)];
    const UInt128 found = shard.file->finish(moved);
    if (found == entry.checksum) {
        shard.verified = true;
        return;
    }
    refuse_anothers(entry);
    corrupt(entry.file, fmt::format("checksum differs (expected {}, found {})",
                                    to_hex(entry.checksum), to_hex(found)));
}

VerifiedFile& CheckpointReader::open(std::int64_t index) {
    Shard& shard = shards_[static_cast<std::size_t>(index)];
    if (shard.file) return *shard.file;
    const ShardEntry& entry = manifest_.files[static_cast<std::size_t>(index)];
    const Path path = path_ / entry.file;
    if (!fs_.exists(path)) corrupt(entry.file, "the file is missing");
    auto file = std::make_unique<VerifiedFile>(
        fs_.open(path, OpenMode::read), files_opened() < kReadAhead ? kAheadBlocks : 1, alone_);
    if (const std::int64_t size = file->size(); size != entry.bytes) {
        refuse_anothers(entry);
        corrupt(entry.file, fmt::format("{} bytes were written, {} are there", entry.bytes, size));
    }
    for (const ShardContent& content : entry.contents) {
        shard.offsets.push_back(
            box_offsets(entry.box_lists[static_cast<std::size_t>(content.boxes)]));
    }
    shard.file = std::move(file);
    return *shard.file;
}

std::int64_t CheckpointReader::files_opened() const {
    return std::count_if(shards_.begin(), shards_.end(),
                         [](const Shard& s) { return s.file != nullptr; });
}

void CheckpointReader::read(const std::string& model, const std::string& kind,
                            ParameterId parameter, const Box& box, DType dtype,
                            std::span<std::byte> bytes) {
    ensure(static_cast<std::int64_t>(bytes.size()) == box.size() * size_of(dtype),
           "{} bytes to hold box {} of {}", bytes.size(), to_string(box), name_of(dtype));
    visit(model, kind, parameter, box, dtype,
          [&](std::int64_t first, std::span<const std::byte> piece) {
              std::ranges::copy(piece, bytes.begin() + first);
          });
}

void CheckpointReader::visit(const std::string& model, const std::string& kind,
                             ParameterId parameter, const Box& box, DType dtype, const Take& take) {
    const std::int64_t element = size_of(dtype);
    if (box.empty()) return;
    const auto& all = places(model, kind);
    const auto [begin, end] =
        std::equal_range(all.begin(), all.end(), Place{parameter, 0, 0, 0},
                         [](const Place& a, const Place& b) { return a.parameter < b.parameter; });
    std::int64_t copied = 0;
    std::vector<std::byte> buffer;
    std::vector<std::byte> gathered;
    for (auto place = begin; place != end; ++place) {
        const ShardEntry& entry = manifest_.files[static_cast<std::size_t>(place->file)];
        const ShardContent& content = entry.contents[static_cast<std::size_t>(place->content)];
        const Box& source = entry
                                .box_lists[static_cast<std::size_t>(content.boxes)]
                                          [static_cast<std::size_t>(place->box)]
                                .box;
        const Box part = intersect(source, box);
        if (part.empty()) continue;
        require(content.dtype == dtype, "{}: {}/{}, parameter {} was saved as {}, not {}",
                path_.string(), model, kind, parameter, name_of(content.dtype), name_of(dtype));
        VerifiedFile& file = open(place->file);
        const std::int64_t offset =
            shards_[static_cast<std::size_t>(place->file)].offsets[static_cast<std::size_t>(
                place->content)][static_cast<std::size_t>(place->box)];
        const std::int64_t width = source.cols.size();
        const auto visit_rows = [&](const Range& rows, const VerifiedFile::Take& take_piece) {
            const std::int64_t first = offset + (rows.begin - source.rows.begin) * width;
            const std::int64_t size = rows.size() * width * element;
            if (file.visit(content.data + first * element, size, take_piece) != size)
                corrupt(entry.file, "the file ends before the data that the manifest lists");
        };
        if (part.cols == source.cols && part.cols == box.cols) {  // contiguous here and there
            std::int64_t at = (part.rows.begin - box.rows.begin) * width * element;
            visit_rows(part.rows, [&](std::span<const std::byte> piece) {
                take(at, piece);
                at += std::ssize(piece);
            });
        } else {
            const std::int64_t block = std::max<std::int64_t>(1, kBufferBytes / (width * element));
            for (std::int64_t row = part.rows.begin; row < part.rows.end; row += block) {
                const Range rows = intersect(part.rows, Range{row, row + block});
                buffer.clear();
                visit_rows(rows, [&](std::span<const std::byte> piece) {
                    buffer.insert(buffer.end(), piece.begin(), piece.end());
                });
                take_rows({source, rows, buffer}, part, box, element, gathered, take);
            }
        }
        copied += part.size();
    }
    require(copied == box.size(),
            "{}: box {} of {}/{}, parameter {} is not in this checkpoint ({} of {} elements are), "
            "which "
            "holds: {}; check the recipe's models",
            path_.string(), to_string(box), model, kind, parameter, copied, box.size(),
            list_of_saved(manifest_));
}

}  // namespace rankwise::io
