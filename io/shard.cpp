#include "io/shard.hpp"

#include <algorithm>
#include <map>
#include <tuple>

#include "io/byte_stream.hpp"
#include "io/hdf5_file.hpp"
#include "io/manifest.hpp"
#include "src/base/checked.hpp"

namespace rankwise::io {
namespace {

void require_part_name(const std::string& name, std::string_view what) {
    ensure(!name.empty() && name.find('/') == std::string::npos && name != ".",
           "'{}' cannot be the {} of something saved: it must not be empty or have a '/'", name,
           what);
}

auto order_of(const ShardItem& item) {
    return std::tuple(item.parameter, item.box.rows.begin, item.box.cols.begin);
}

/// Of an item that is not in memory: so much of it at a time, which stays in the caches (a device
/// may bring pieces of a MiB past them).
constexpr std::int64_t kPieceBytes = std::int64_t{1} << 19;

using ContentKey = std::tuple<std::string, std::string, DType>;

/// Items by flat dataset, each in the order of its table.
std::map<ContentKey, std::vector<const ShardItem*>> sorted(std::span<const ShardItem> items) {
    std::map<ContentKey, std::vector<const ShardItem*>> contents;
    for (const ShardItem& item : items) {
        require_part_name(item.model, "model");
        require_part_name(item.kind, "kind");
        ensure(item.read || static_cast<std::int64_t>(item.bytes.size()) ==
                                item.box.size() * size_of(item.dtype),
               "{}/{}, parameter {}: {} bytes for box {} of {}", item.model, item.kind,
               item.parameter, item.bytes.size(), to_string(item.box), name_of(item.dtype));
        if (!item.box.empty()) contents[{item.model, item.kind, item.dtype}].push_back(&item);
    }
    for (auto& [key, group] : contents) {
        std::stable_sort(group.begin(), group.end(), [](const ShardItem* a, const ShardItem* b) {
            return order_of(*a) < order_of(*b);
        });
    }
    return contents;
}

/// Index of `boxes` in the entry's lists; a list that is there is used again.
std::int64_t add_boxes(ShardEntry& entry, std::vector<ShardBox> boxes) {
    const auto found = std::find(entry.box_lists.begin(), entry.box_lists.end(), boxes);
    const std::int64_t index = found - entry.box_lists.begin();
    if (found == entry.box_lists.end()) entry.box_lists.push_back(std::move(boxes));
    return index;
}

struct BoxTable {
    std::vector<std::int64_t> parameter, row_begin, row_end, column_begin, column_end, offset;
};

BoxTable table_of(std::span<const ShardBox> boxes) {
    BoxTable table;
    for (const ShardBox& entry : boxes) {
        table.parameter.push_back(entry.parameter);
        table.row_begin.push_back(entry.box.rows.begin);
        table.row_end.push_back(entry.box.rows.end);
        table.column_begin.push_back(entry.box.cols.begin);
        table.column_end.push_back(entry.box.cols.end);
    }
    table.offset = box_offsets(boxes);
    table.offset.pop_back();
    return table;
}

void write_table(Hdf5File& file, const std::string& group, const BoxTable& table) {
    file.write(group + "/parameter", table.parameter);
    file.write(group + "/row_begin", table.row_begin);
    file.write(group + "/row_end", table.row_end);
    file.write(group + "/column_begin", table.column_begin);
    file.write(group + "/column_end", table.column_end);
    file.write(group + "/offset", table.offset);
}

/// Elements of an item that is read in pieces, from `offset` of a dataset on.
void write_in_pieces(Hdf5File& file, const std::string& data, std::int64_t offset,
                     const ShardItem& item, std::vector<std::byte>& piece) {
    const std::int64_t element = size_of(item.dtype);
    const std::int64_t at_once = kPieceBytes / element;
    piece.resize(static_cast<std::size_t>(kPieceBytes));
    for (std::int64_t at = 0; at < item.box.size(); at += at_once) {
        const std::int64_t count = std::min(at_once, item.box.size() - at);
        const auto some = std::span(piece).first(static_cast<std::size_t>(count * element));
        item.read(at * element, some);
        file.write_part(data, offset + at, stored_as(item.dtype), some);
    }
}

}  // namespace

Element stored_as(DType dtype) {
    switch (dtype) {
        case DType::f32:
            return Element::f32;
        case DType::f64:
            return Element::f64;
        case DType::i32:
            return Element::i32;
        case DType::i64:
            return Element::i64;
        case DType::bf16:
        case DType::f16:
            return Element::u16;
        case DType::f8_e4m3:
        case DType::u8:
            return Element::u8;
    }
    return Element::u8;
}

std::string group_of(const ShardContent& content) {
    return fmt::format("{}/{}/{}", content.model, content.kind, name_of(content.dtype));
}

std::vector<std::int64_t> box_offsets(std::span<const ShardBox> boxes) {
    std::vector<std::int64_t> offsets{0};
    for (const ShardBox& entry : boxes) offsets.push_back(offsets.back() + entry.box.size());
    return offsets;
}

std::string shard_name(std::int64_t index) {
    return fmt::format("shard_{:05}.h5", index);
}

ShardEntry write_shard(FileSystem& fs, const Path& directory, UInt128 checkpoint_id,
                       std::int64_t index, std::span<const ShardItem> items) {
    ShardEntry entry;
    entry.file = shard_name(index);
    const auto contents = sorted(items);
    std::vector<std::byte> piece;
    Hdf5File file = Hdf5File::create(fs, directory / entry.file);
    file.set_attribute("/", "format", kCheckpointFormat);
    file.set_attribute("/", "checkpoint", to_hex(checkpoint_id));
    for (const auto& [key, group_items] : contents) {
        const auto& [model, kind, dtype] = key;
        std::vector<ShardBox> boxes;
        for (const ShardItem* item : group_items) boxes.push_back({item->parameter, item->box});
        const auto offsets = box_offsets(boxes);
        const ShardContent content{model, kind, dtype};
        const std::string group = group_of(content);
        const std::string data = group + "/data";
        file.create_dataset(data, stored_as(dtype), offsets.back());
        for (std::size_t i = 0; i < group_items.size(); ++i) {
            if (group_items[i]->read) {
                write_in_pieces(file, data, offsets[i], *group_items[i], piece);
            } else {
                file.write_part(data, offsets[i], stored_as(dtype), group_items[i]->bytes);
            }
        }
        file.set_attribute(data, "dtype", std::string(name_of(dtype)));
        write_table(file, group, table_of(boxes));
        entry.contents.push_back(content);
        entry.contents.back().boxes = add_boxes(entry, std::move(boxes));
        entry.contents.back().data = file.data_offset(data);
    }
    const auto written = file.close();
    entry.bytes = written.bytes;
    entry.checksum = written.checksum;
    return entry;
}

std::vector<std::byte> encode(const ShardEntry& entry) {
    ByteWriter out;
    out.put(entry.file);
    out.put_size(entry.bytes);
    out.put(entry.checksum);
    out.put(entry.box_lists.size());
    for (const auto& boxes : entry.box_lists) {
        out.put(boxes.size());
        ParameterId last = 0;
        for (const ShardBox& one : boxes) {
            out.put_size(one.parameter - last);
            last = one.parameter;
            out.put_size(one.box.rows.begin);
            out.put_size(one.box.rows.size());
            out.put_size(one.box.cols.begin);
            out.put_size(one.box.cols.size());
        }
    }
    out.put(entry.contents.size());
    for (const ShardContent& content : entry.contents) {
        out.put(content.model);
        out.put(content.kind);
        out.put(std::string(name_of(content.dtype)));
        out.put_size(content.boxes);
        out.put_size(content.data);
    }
    return out.take();
}

ShardEntry decode_shard_entry(std::span<const std::byte> bytes, const std::string& where) {
    ByteReader in(bytes, where);
    ShardEntry entry;
    entry.file = in.get_text();
    entry.bytes = in.get_size();
    entry.checksum = in.get_uint128();
    entry.box_lists.resize(in.get_count());
    const auto range = [&] {
        const std::int64_t begin = in.get_size();
        const std::int64_t size = in.get_size();
        if (size > INT64_MAX - begin) in.fail("a range is too large");
        return Range{begin, begin + size};
    };
    for (auto& boxes : entry.box_lists) {
        const std::size_t count = in.get_count();
        std::int64_t parameter = 0;
        for (std::size_t i = 0; i < count; ++i) {
            const std::int64_t step = in.get_size();
            if (step > INT32_MAX - parameter) in.fail("a parameter's number is too large");
            parameter += step;
            const Range rows = range();
            const Range cols = range();
            boxes.push_back({static_cast<ParameterId>(parameter), {rows, cols}});
        }
    }
    entry.contents.resize(in.get_count());
    for (ShardContent& content : entry.contents) {
        content.model = in.get_text();
        content.kind = in.get_text();
        const std::string dtype = in.get_text();
        try {
            content.dtype = dtype_from_name(dtype);
        } catch (const BadInput& problem) {
            in.fail(problem.what());
        }
        content.boxes = in.get_size();
        content.data = in.get_size();
        if (content.boxes >= static_cast<std::int64_t>(entry.box_lists.size())) {
            in.fail("a list of boxes is missing");
        }
    }
    in.expect_end();
    return entry;
}

}  // namespace rankwise::io
