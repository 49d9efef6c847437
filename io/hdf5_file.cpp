#include "io/hdf5_file.hpp"

#include <hdf5.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <mutex>

#include "io/checksum.hpp"
#include "io/hdf5_driver.hpp"
#include "src/base/unique_handle.hpp"

namespace rankwise::io {
namespace {

template <auto Close>
using Handle = UniqueHandle<hid_t, Close, hid_t{-1}>;
using FileHandle = Handle<H5Fclose>;
using DatasetHandle = Handle<H5Dclose>;
using SpaceHandle = Handle<H5Sclose>;
using TypeHandle = Handle<H5Tclose>;
using ListHandle = Handle<H5Pclose>;
using ObjectHandle = Handle<H5Oclose>;
using GroupHandle = Handle<H5Gclose>;
using AttributeHandle = Handle<H5Aclose>;

constexpr std::int64_t kChunkBytes = std::int64_t{256} << 10U;
constexpr unsigned kDeflateLevel = 1;
constexpr std::size_t kMaxAttribute =
    64'000;  // HDF5 keeps attributes in an object's header, below 64 KiB

/// HDF5 keeps global state and is built without locks.
std::recursive_mutex& library_mutex() {
    static std::recursive_mutex mutex;
    return mutex;
}

/// Held around HDF5 calls; HDF5's own printing of errors is off.
class Library {
  public:
    Library() : lock_(library_mutex()) {
        H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
        H5Eclear2(H5E_DEFAULT);
    }

  private:
    std::lock_guard<std::recursive_mutex> lock_;
};

herr_t add_description(unsigned /*n*/, const H5E_error2_t* error, void* data) {
    auto& text = *static_cast<std::string*>(data);
    if (error->desc != nullptr && text.size() < 400) {
        if (!text.empty()) text += ": ";
        text += error->desc;
    }
    return 0;
}

/// HDF5's error stack, outermost first: "unable to open dataset: object 'x' doesn't exist".
std::string library_error() {
    std::string text;
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_DOWNWARD, add_description, &text);
    H5Eclear2(H5E_DEFAULT);
    return text.empty() ? "no reason given" : text;
}

hid_t file_type(Element element) {
    switch (element) {
        case Element::f32:
            return H5T_IEEE_F32LE;
        case Element::f64:
            return H5T_IEEE_F64LE;
        case Element::i32:
            return H5T_STD_I32LE;
        case Element::i64:
            return H5T_STD_I64LE;
        case Element::u8:
            return H5T_STD_U8LE;
        case Element::u16:
            return H5T_STD_U16LE;
        case Element::u64:
            return H5T_STD_U64LE;
    }
    return H5T_STD_U8LE;
}

hid_t memory_type(Element element) {
    switch (element) {
        case Element::f32:
            return H5T_NATIVE_FLOAT;
        case Element::f64:
            return H5T_NATIVE_DOUBLE;
        case Element::i32:
            return H5T_NATIVE_INT32;
        case Element::i64:
            return H5T_NATIVE_INT64;
        case Element::u8:
            return H5T_NATIVE_UINT8;
        case Element::u16:
            return H5T_NATIVE_UINT16;
        case Element::u64:
            return H5T_NATIVE_UINT64;
    }
    return H5T_NATIVE_UINT8;
}

/// A file in memory, for reading what has been verified.
class MemoryFile final : public File {
  public:
    explicit MemoryFile(std::vector<std::byte> bytes) : bytes_(std::move(bytes)) {}
    std::int64_t read_at(std::int64_t offset, std::span<std::byte> bytes) override {
        const Range range = intersect(
            Range{0, size()}, Range{offset, offset + static_cast<std::int64_t>(bytes.size())});
        if (range.empty()) return 0;
        std::memcpy(bytes.data(), bytes_.data() + range.begin,
                    static_cast<std::size_t>(range.size()));
        return range.size();
    }
    void write_at(std::int64_t /*offset*/, std::span<const std::byte> /*bytes*/) override {
        throw InternalError("a file in memory is only for reading");
    }
    void truncate(std::int64_t /*size*/) override {
        throw InternalError("a file in memory is only for reading");
    }
    std::int64_t size() override { return static_cast<std::int64_t>(bytes_.size()); }
    void sync() override {}

  private:
    std::vector<std::byte> bytes_;
};

hsize_t extent(std::int64_t size) {
    return static_cast<hsize_t>(size);
}

}  // namespace

std::int64_t size_of(Element element) {
    switch (element) {
        case Element::u8:
            return 1;
        case Element::u16:
            return 2;
        case Element::f32:
        case Element::i32:
            return 4;
        case Element::f64:
        case Element::i64:
        case Element::u64:
            return 8;
    }
    return 1;
}

struct Hdf5File::State {
    Path path;
    std::unique_ptr<File> file;
    FileChecksum checksum;
    DriverTarget target;
    FileHandle id;
    bool writing = false;

    State(Path where, std::unique_ptr<File> opened, bool for_writing)
        : path(std::move(where)), file(std::move(opened)), writing(for_writing) {
        target.file = file.get();
        if (writing) target.checksum = &checksum;
    }
    State(const State&) = delete;
    State& operator=(const State&) = delete;
    ~State() {
        const Library library;
        id.reset();
    }

    /// An error of the file system comes before what HDF5 made of it.
    void rethrow() {
        if (target.error) std::rethrow_exception(target.error);
    }
    [[noreturn]] void fail(std::string_view object, std::string_view action) {
        rethrow();
        throw CorruptFile(
            fmt::format("{}: cannot {} {}: HDF5 says: {}; the file is damaged or not one "
                        "of this program's",
                        path.string(), action, object, library_error()));
    }
    template <class H>
    H checked(hid_t value, std::string_view object, std::string_view action) {
        H handle(value < 0 ? hid_t{-1} : value);
        if (!handle || target.error) fail(object, action);
        return handle;
    }
    void checked(herr_t status, std::string_view object, std::string_view action) {
        if (status < 0 || target.error) fail(object, action);
    }

    DatasetHandle dataset(std::string_view name) {
        return checked<DatasetHandle>(H5Dopen2(id.get(), std::string(name).c_str(), H5P_DEFAULT),
                                      name, "open the dataset");
    }
    SpaceHandle line(std::int64_t size) {
        const hsize_t n = extent(size);
        return checked<SpaceHandle>(H5Screate_simple(1, &n, nullptr), "a dataspace", "make");
    }
    std::int64_t points(const DatasetHandle& set, std::string_view name) {
        const auto space =
            checked<SpaceHandle>(H5Dget_space(set.get()), name, "examine the dataset");
        return static_cast<std::int64_t>(H5Sget_simple_extent_npoints(space.get()));
    }

    /// Makes a dataset; groups on the way are made, no time is stamped.
    DatasetHandle create(std::string_view name, hid_t type, const SpaceHandle& space,
                         ListHandle layout) {
        checked(H5Pset_obj_track_times(layout.get(), 0), name, "prepare");
        const auto links = checked<ListHandle>(H5Pcreate(H5P_LINK_CREATE), name, "prepare");
        checked(H5Pset_create_intermediate_group(links.get(), 1), name, "prepare");
        checked(H5Pset_char_encoding(links.get(), H5T_CSET_UTF8), name, "prepare");
        return checked<DatasetHandle>(
            H5Dcreate2(id.get(), std::string(name).c_str(), type, space.get(), links.get(),
                       layout.get(), H5P_DEFAULT),
            name, "make the dataset");
    }
    ListHandle flat_layout(std::string_view name) {
        auto layout = checked<ListHandle>(H5Pcreate(H5P_DATASET_CREATE), name, "prepare");
        checked(H5Pset_alloc_time(layout.get(), H5D_ALLOC_TIME_EARLY), name, "prepare");
        checked(H5Pset_fill_time(layout.get(), H5D_FILL_TIME_NEVER), name, "prepare");
        return layout;
    }
    ListHandle deflated_layout(std::string_view name, std::int64_t size, std::int64_t element_bytes,
                               bool shuffled) {
        auto layout = checked<ListHandle>(H5Pcreate(H5P_DATASET_CREATE), name, "prepare");
        if (size == 0) return layout;  // chunks cannot be larger than the dataset
        const hsize_t chunk =
            extent(std::clamp<std::int64_t>(kChunkBytes / element_bytes, 1, size));
        checked(H5Pset_chunk(layout.get(), 1, &chunk), name, "prepare");
        if (shuffled) checked(H5Pset_shuffle(layout.get()), name, "prepare");
        checked(H5Pset_deflate(layout.get(), kDeflateLevel), name, "prepare");
        return layout;
    }

    /// Selects [offset, offset + count) of a dataset, whole as it is in the file.
    SpaceHandle selection(const DatasetHandle& set, std::string_view name, std::int64_t offset,
                          std::int64_t count) {
        auto space = checked<SpaceHandle>(H5Dget_space(set.get()), name, "examine the dataset");
        const std::int64_t size = H5Sget_simple_extent_npoints(space.get());
        if (H5Sget_simple_extent_ndims(space.get()) != 1 || offset < 0 || offset + count > size) {
            throw CorruptFile(
                fmt::format("{}: dataset {} has {} elements, elements {} to {} were asked for; the "
                            "file is damaged "
                            "or not one of this program's",
                            path.string(), name, size, offset, offset + count));
        }
        const hsize_t start = extent(offset);
        const hsize_t n = extent(count);
        checked(H5Sselect_hyperslab(space.get(), H5S_SELECT_SET, &start, nullptr, &n, nullptr),
                name, "select in");
        return space;
    }
    void require_element(const DatasetHandle& set, std::string_view name, Element element) {
        const auto type = checked<TypeHandle>(H5Dget_type(set.get()), name, "examine the dataset");
        if (H5Tequal(type.get(), file_type(element)) > 0) return;
        throw CorruptFile(
            fmt::format("{}: dataset {} has another element type than expected; the file is "
                        "damaged or not one of "
                        "this program's",
                        path.string(), name));
    }

    bool has(std::string_view name) {
        std::string prefix;
        for (std::size_t at = 0; at <= name.size();) {
            const std::size_t slash = std::min(name.find('/', at), name.size());
            prefix = std::string(name.substr(0, slash));
            if (!prefix.empty()) {
                const htri_t found = H5Lexists(id.get(), prefix.c_str(), H5P_DEFAULT);
                if (found < 0) fail(name, "look for");
                if (found == 0) return false;
            }
            at = slash + 1;
        }
        return true;
    }

    ObjectHandle object(std::string_view name, bool make) {
        if (make && name != "/" && !has(name)) {
            const auto links = checked<ListHandle>(H5Pcreate(H5P_LINK_CREATE), name, "prepare");
            checked(H5Pset_create_intermediate_group(links.get(), 1), name, "prepare");
            const auto made =
                checked<GroupHandle>(H5Gcreate2(id.get(), std::string(name).c_str(), links.get(),
                                                H5P_DEFAULT, H5P_DEFAULT),
                                     name, "make the group");
        }
        return checked<ObjectHandle>(H5Oopen(id.get(), std::string(name).c_str(), H5P_DEFAULT),
                                     name, "open");
    }
    void write_attribute(std::string_view where, const std::string& name, hid_t type, hid_t memory,
                         const void* value) {
        const auto owner = object(where, true);
        const auto scalar =
            checked<SpaceHandle>(H5Screate(H5S_SCALAR), name, "make a dataspace for");
        const auto attribute = checked<AttributeHandle>(
            H5Acreate2(owner.get(), name.c_str(), type, scalar.get(), H5P_DEFAULT, H5P_DEFAULT),
            name, "make the attribute");
        checked(H5Awrite(attribute.get(), memory, value), name, "write the attribute");
    }
    AttributeHandle attribute(std::string_view where, const std::string& name) {
        const auto owner = object(where, false);
        return checked<AttributeHandle>(H5Aopen(owner.get(), name.c_str(), H5P_DEFAULT), name,
                                        "open the attribute");
    }
    template <class T>
    T read_attribute(std::string_view where, const std::string& name) {
        const auto found = attribute(where, name);
        T value{};
        checked(H5Aread(found.get(), memory_type(element_of<T>()), &value), name,
                "read the attribute");
        return value;
    }

    TypeHandle string_type(std::size_t bytes) {
        auto type = checked<TypeHandle>(H5Tcopy(H5T_C_S1), "a string type", "make");
        checked(H5Tset_size(type.get(), std::max<std::size_t>(bytes, 1)), "a string type", "make");
        checked(H5Tset_strpad(type.get(), H5T_STR_NULLPAD), "a string type", "make");
        checked(H5Tset_cset(type.get(), H5T_CSET_UTF8), "a string type", "make");
        return type;
    }
};

Hdf5File::Hdf5File(std::unique_ptr<State> state) : state_(std::move(state)) {}
Hdf5File::Hdf5File(Hdf5File&&) noexcept = default;
Hdf5File& Hdf5File::operator=(Hdf5File&&) noexcept = default;
Hdf5File::~Hdf5File() = default;

const Path& Hdf5File::path() const {
    return state_->path;
}

Hdf5File Hdf5File::create(FileSystem& fs, const Path& path, std::int64_t reserved) {
    auto state = std::make_unique<State>(path, fs.open(path, OpenMode::create), true);
    const Library library;
    const auto access = state->checked<ListHandle>(H5Pcreate(H5P_FILE_ACCESS), "the file", "make");
    state->checked(use_driver(access.get(), &state->target), "the file", "make");
    state->checked(H5Pset_fclose_degree(access.get(), H5F_CLOSE_STRONG), "the file", "make");
    const auto creation =
        state->checked<ListHandle>(H5Pcreate(H5P_FILE_CREATE), "the file", "make");
    state->checked(H5Pset_userblock(creation.get(), extent(reserved)), "the file", "make");
    state->id = state->checked<FileHandle>(
        H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation.get(), access.get()), "the file", "make");
    return Hdf5File(std::move(state));
}

Hdf5File Hdf5File::open(FileSystem& fs, const Path& path) {
    return open(fs.open(path, OpenMode::read), path);
}

Hdf5File Hdf5File::open(std::unique_ptr<File> file, const Path& path) {
    auto state = std::make_unique<State>(path, std::move(file), false);
    const Library library;
    const auto access = state->checked<ListHandle>(H5Pcreate(H5P_FILE_ACCESS), "the file", "open");
    state->checked(use_driver(access.get(), &state->target), "the file", "open");
    state->checked(H5Pset_fclose_degree(access.get(), H5F_CLOSE_STRONG), "the file", "open");
    state->id = state->checked<FileHandle>(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.get()),
                                           "the file", "open");
    return Hdf5File(std::move(state));
}

Hdf5File Hdf5File::open_bytes(std::vector<std::byte> bytes, const Path& path) {
    return open(std::make_unique<MemoryFile>(std::move(bytes)), path);
}

Hdf5File::Written Hdf5File::close() {
    State& state = *state_;
    {
        const Library library;
        const herr_t status = state.id ? H5Fclose(state.id.release()) : 0;
        state.checked(status, "the file", "close");
    }
    if (!state.writing) return {};
    state.file->sync();
    return {state.file->size(), state.checksum.finish(*state.file)};
}

void Hdf5File::write_raw(std::string_view name, Element element, std::span<const std::byte> bytes,
                         Storage storage) {
    const Library library;
    State& state = *state_;
    const std::int64_t size = div_exact(static_cast<std::int64_t>(bytes.size()), size_of(element));
    auto layout = storage == Storage::flat
                      ? state.flat_layout(name)
                      : state.deflated_layout(name, size, size_of(element), true);
    const auto set = state.create(name, file_type(element), state.line(size), std::move(layout));
    if (size == 0) return;
    state.checked(
        H5Dwrite(set.get(), memory_type(element), H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes.data()),
        name, "write the dataset");
}

void Hdf5File::create_dataset(std::string_view name, Element element, std::int64_t size) {
    const Library library;
    state_->create(name, file_type(element), state_->line(size), state_->flat_layout(name));
}

std::int64_t Hdf5File::data_offset(std::string_view name) {
    const Library library;
    const auto set = state_->dataset(name);
    const haddr_t offset = H5Dget_offset(set.get());
    if (offset == HADDR_UNDEF) state_->fail(name, "find the data of");
    return static_cast<std::int64_t>(offset);
}

void Hdf5File::write_part(std::string_view name, std::int64_t offset, Element element,
                          std::span<const std::byte> bytes) {
    const Library library;
    State& state = *state_;
    const std::int64_t count = div_exact(static_cast<std::int64_t>(bytes.size()), size_of(element));
    if (count == 0) return;
    const auto set = state.dataset(name);
    const auto target = state.selection(set, name, offset, count);
    state.checked(H5Dwrite(set.get(), memory_type(element), state.line(count).get(), target.get(),
                           H5P_DEFAULT, bytes.data()),
                  name, "write the dataset");
}

void Hdf5File::read_part(std::string_view name, std::int64_t offset, Element element,
                         std::span<std::byte> bytes) {
    const Library library;
    State& state = *state_;
    const std::int64_t count = div_exact(static_cast<std::int64_t>(bytes.size()), size_of(element));
    const auto set = state.dataset(name);
    state.require_element(set, name, element);
    const auto source = state.selection(set, name, offset, count);
    if (count == 0) return;
    state.checked(H5Dread(set.get(), memory_type(element), state.line(count).get(), source.get(),
                          H5P_DEFAULT, bytes.data()),
                  name, "read the dataset");
}

void Hdf5File::write_strings(std::string_view name, std::span<const std::string> values) {
    std::size_t longest = 1;
    std::vector<std::int64_t> sizes;
    for (const std::string& value : values) {
        longest = std::max(longest, value.size());
        sizes.push_back(static_cast<std::int64_t>(value.size()));
    }
    write(std::string(name) + "_size", sizes);

    const Library library;
    State& state = *state_;
    const auto count = static_cast<std::int64_t>(values.size());
    const auto type = state.string_type(longest);
    const auto set =
        state.create(name, type.get(), state.line(count),
                     state.deflated_layout(name, count, static_cast<std::int64_t>(longest), false));
    // A chunk at a time: the longest of many texts must not be paid for by all of them at once.
    const std::int64_t block =
        std::max<std::int64_t>(1, kChunkBytes / static_cast<std::int64_t>(longest));
    for (std::int64_t begin = 0; begin < count; begin += block) {
        const std::int64_t n = std::min(block, count - begin);
        std::string padded(static_cast<std::size_t>(n) * longest, '\0');
        for (std::int64_t i = 0; i < n; ++i) {
            const std::string& value = values[static_cast<std::size_t>(begin + i)];
            value.copy(padded.data() + static_cast<std::size_t>(i) * longest, value.size());
        }
        const auto target = state.selection(set, name, begin, n);
        state.checked(H5Dwrite(set.get(), type.get(), state.line(n).get(), target.get(),
                               H5P_DEFAULT, padded.data()),
                      name, "write the dataset");
    }
}

std::vector<std::string> Hdf5File::read_strings(std::string_view name) {
    const auto sizes = read<std::int64_t>(std::string(name) + "_size");
    const Library library;
    State& state = *state_;
    const auto set = state.dataset(name);
    const auto type =
        state.checked<TypeHandle>(H5Dget_type(set.get()), name, "examine the dataset");
    const std::size_t longest = H5Tget_size(type.get());
    const bool fixed =
        H5Tget_class(type.get()) == H5T_STRING && H5Tis_variable_str(type.get()) == 0;
    const auto count = static_cast<std::int64_t>(sizes.size());
    const bool fits = std::all_of(sizes.begin(), sizes.end(), [&](std::int64_t size) {
        return size >= 0 && static_cast<std::size_t>(size) <= longest;
    });
    if (!fixed || !fits || state.points(set, name) != count) {
        throw CorruptFile(
            fmt::format("{}: dataset {} is no list of {} strings; the file is damaged or not one "
                        "of this program's",
                        state.path.string(), name, count));
    }
    std::vector<std::string> values;
    values.reserve(sizes.size());
    const std::int64_t block =
        std::max<std::int64_t>(1, kChunkBytes / static_cast<std::int64_t>(longest));
    for (std::int64_t begin = 0; begin < count; begin += block) {
        const std::int64_t n = std::min(block, count - begin);
        std::string padded(static_cast<std::size_t>(n) * longest, '\0');
        const auto source = state.selection(set, name, begin, n);
        state.checked(H5Dread(set.get(), type.get(), state.line(n).get(), source.get(), H5P_DEFAULT,
                              padded.data()),
                      name, "read the dataset");
        for (std::int64_t i = 0; i < n; ++i) {
            values.push_back(padded.substr(static_cast<std::size_t>(i) * longest,
                                           static_cast<std::size_t>(sizes[values.size()])));
        }
    }
    return values;
}

void Hdf5File::write_virtual(std::string_view name, Element element, Shape shape,
                             std::span<const VirtualPart> parts) {
    const Library library;
    State& state = *state_;
    const int rank = shape.vector ? 1 : 2;
    const std::array<hsize_t, 2> matrix{extent(shape.rows), extent(shape.cols)};
    const hsize_t* extents = shape.vector ? &matrix[1] : matrix.data();
    const auto whole =
        state.checked<SpaceHandle>(H5Screate_simple(rank, extents, nullptr), name, "prepare");
    auto layout = state.checked<ListHandle>(H5Pcreate(H5P_DATASET_CREATE), name, "prepare");
    for (const VirtualPart& part : parts) {
        const std::array<hsize_t, 2> starts{extent(part.box.rows.begin),
                                            extent(part.box.cols.begin)};
        const std::array<hsize_t, 2> counts{extent(part.box.rows.size()),
                                            extent(part.box.cols.size())};
        const std::size_t first = shape.vector ? 1 : 0;
        state.checked(H5Sselect_hyperslab(whole.get(), H5S_SELECT_SET, &starts[first], nullptr,
                                          &counts[first], nullptr),
                      name, "select in");
        const auto source = state.line(part.dataset_size);
        const hsize_t start = extent(part.offset);
        const hsize_t count = extent(part.box.size());
        state.checked(
            H5Sselect_hyperslab(source.get(), H5S_SELECT_SET, &start, nullptr, &count, nullptr),
            name, "select in");
        state.checked(H5Pset_virtual(layout.get(), whole.get(), part.file.c_str(),
                                     part.dataset.c_str(), source.get()),
                      name, "map");
    }
    state.checked(H5Sselect_all(whole.get()), name, "select in");
    state.create(name, file_type(element), whole, std::move(layout));
}

std::int64_t Hdf5File::size(std::string_view name) {
    const Library library;
    return state_->points(state_->dataset(name), name);
}

bool Hdf5File::has(std::string_view name) {
    const Library library;
    return state_->has(name);
}

std::vector<std::string> Hdf5File::members(std::string_view group) {
    const Library library;
    State& state = *state_;
    const auto opened = state.checked<GroupHandle>(
        H5Gopen2(state.id.get(), std::string(group).c_str(), H5P_DEFAULT), group, "open the group");
    std::vector<std::string> names;
    const auto add = [](hid_t /*group*/, const char* name, const H5L_info_t* /*info*/, void* data) {
        static_cast<std::vector<std::string>*>(data)->emplace_back(name);
        return herr_t{0};
    };
    state.checked(H5Literate(opened.get(), H5_INDEX_NAME, H5_ITER_INC, nullptr, add, &names), group,
                  "list the group");
    return names;
}

void Hdf5File::set_attribute(std::string_view object, const std::string& name, std::int64_t value) {
    const Library library;
    state_->write_attribute(object, name, H5T_STD_I64LE, H5T_NATIVE_INT64, &value);
}

void Hdf5File::set_attribute(std::string_view object, const std::string& name, double value) {
    const Library library;
    state_->write_attribute(object, name, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, &value);
}

void Hdf5File::set_attribute(std::string_view object, const std::string& name,
                             const std::string& value) {
    ensure(value.size() <= kMaxAttribute, "attribute {} has {} bytes, {} are the most", name,
           value.size(), kMaxAttribute);
    const Library library;
    const auto type = state_->string_type(value.size());
    state_->write_attribute(object, name, type.get(), type.get(), value.c_str());
}

std::int64_t Hdf5File::int_attribute(std::string_view object, const std::string& name) {
    const Library library;
    return state_->read_attribute<std::int64_t>(object, name);
}

double Hdf5File::float_attribute(std::string_view object, const std::string& name) {
    const Library library;
    return state_->read_attribute<double>(object, name);
}

std::string Hdf5File::text_attribute(std::string_view object, const std::string& name) {
    const Library library;
    State& state = *state_;
    const auto attribute = state.attribute(object, name);
    const auto type = state.checked<TypeHandle>(H5Aget_type(attribute.get()), name, "examine");
    if (H5Tget_class(type.get()) != H5T_STRING || H5Tis_variable_str(type.get()) != 0) {
        throw CorruptFile(fmt::format(
            "{}: attribute {} of {} is no text; the file is damaged or not one of this program's",
            state.path.string(), name, object));
    }
    std::string value(H5Tget_size(type.get()), '\0');
    state.checked(H5Aread(attribute.get(), type.get(), value.data()), name, "read the attribute");
    while (!value.empty() && value.back() == '\0') value.pop_back();
    return value;
}

}  // namespace rankwise::io
