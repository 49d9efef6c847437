// HDF5 files: one-dimensional datasets of numbers or strings, attributes, virtual tensors. Nothing
// of HDF5's API shows here.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/fs.hpp"
#include "src/base/box.hpp"
#include "src/base/checked.hpp"
#include "src/base/uint128.hpp"

namespace rankwise::io {

/// Element types of datasets; little-endian in files.
enum class Element : std::uint8_t { f32, f64, i32, i64, u8, u16, u64 };

[[nodiscard]] std::int64_t size_of(Element element);

template <class T>
inline constexpr bool kNoElement = false;

/// The element type of a C++ type.
template <class T>
[[nodiscard]] constexpr Element element_of() {
    if constexpr (std::is_same_v<T, float>) {
        return Element::f32;
    } else if constexpr (std::is_same_v<T, double>) {
        return Element::f64;
    } else if constexpr (std::is_same_v<T, std::int32_t>) {
        return Element::i32;
    } else if constexpr (std::is_same_v<T, std::int64_t>) {
        return Element::i64;
    } else if constexpr (std::is_same_v<T, std::uint8_t>) {
        return Element::u8;
    } else if constexpr (std::is_same_v<T, std::uint16_t>) {
        return Element::u16;
    } else if constexpr (std::is_same_v<T, std::uint64_t>) {
        return Element::u64;
    } else {
        static_assert(kNoElement<T>, "no element type of files");
    }
}

enum class Storage : std::uint8_t {
    flat,      ///< contiguous: large tensors, which other files may map
    deflated,  ///< chunks of about 256 KiB, shuffled and deflated
};

/// A part of a virtual tensor: `box` of it lies, row after row, at elements [offset, offset +
/// box.size()) of a dataset.
struct VirtualPart {
    std::string file;  ///< relative to the directory of the file that holds the virtual tensor
    std::string dataset;
    std::int64_t dataset_size = 0;  ///< elements of the whole dataset
    std::int64_t offset = 0;
    Box box;
};

/// One open HDF5 file, read and written through a FileSystem (serial; no MPI takes part). Paths in
/// it are `a/b/c`; groups on the way are made. HDF5 is not thread-safe: calls from any thread take
/// one lock inside this class. The same calls write the same bytes (no time stamps).
///
/// Errors: the FileSystem's own (EnvironmentError); what cannot be understood, is missing, or has
/// another type or size than asked for is a CorruptFile that names file and dataset and quotes
/// HDF5; misuse is an InternalError.
class Hdf5File {
  public:
    /// Makes or empties `path`. `reserved` bytes (0 or a power of two from 512) at the front of the
    /// file are left to the caller.
    [[nodiscard]] static Hdf5File create(FileSystem& fs, const Path& path,
                                         std::int64_t reserved = 0);
    /// For reading. @throws CorruptFile if it is no HDF5 file or is cut short.
    [[nodiscard]] static Hdf5File open(FileSystem& fs, const Path& path);
    /// For reading from memory that has been verified; `path` is for messages.
    [[nodiscard]] static Hdf5File open_bytes(std::vector<std::byte> bytes, const Path& path);

    Hdf5File(Hdf5File&&) noexcept;
    Hdf5File& operator=(Hdf5File&&) noexcept;
    ~Hdf5File();  ///< closes; errors go unreported: call close() on files that were written

    struct Written {
        std::int64_t bytes = 0;
        UInt128 checksum;  ///< of the whole file, see io/checksum.hpp
    };
    /// Ends writing: closes, syncs, and says what the file now holds. Throws the first error of any
    /// write, this one or before.
    Written close();

    template <class T>
    void write(std::string_view name, std::span<const T> values,
               Storage storage = Storage::deflated) {
        write_raw(name, element_of<T>(), std::as_bytes(values), storage);
    }
    template <class T>
    void write(std::string_view name, const std::vector<T>& values,
               Storage storage = Storage::deflated) {
        write(name, std::span<const T>(values), storage);
    }
    void write_raw(std::string_view name, Element element, std::span<const std::byte> bytes,
                   Storage storage);
    /// Makes a flat dataset to be filled by write_part.
    void create_dataset(std::string_view name, Element element, std::int64_t size);
    /// Where a flat dataset that is not empty begins in the file, bytes.
    [[nodiscard]] std::int64_t data_offset(std::string_view name);
    void write_part(std::string_view name, std::int64_t offset, Element element,
                    std::span<const std::byte> bytes);
    /// UTF-8 strings, as a fixed-length dataset padded with NULs (compresses, h5dump shows it) and
    /// `NAME_size` with their lengths in bytes, so that any bytes come back.
    void write_strings(std::string_view name, std::span<const std::string> values);
    /// A tensor without data of its own (an HDF5 virtual dataset), two-dimensional unless the shape
    /// is a vector.
    void write_virtual(std::string_view name, Element element, Shape shape,
                       std::span<const VirtualPart> parts);

    template <class T>
    [[nodiscard]] std::vector<T> read(std::string_view name) {
        std::vector<T> values(static_cast<std::size_t>(size(name)));
        read_part(name, 0, element_of<T>(), std::as_writable_bytes(std::span(values)));
        return values;
    }
    /// Elements [offset, offset + n) of a dataset whose element type must be `element`.
    void read_part(std::string_view name, std::int64_t offset, Element element,
                   std::span<std::byte> bytes);
    [[nodiscard]] std::vector<std::string> read_strings(std::string_view name);
    /// Elements of a dataset.
    [[nodiscard]] std::int64_t size(std::string_view name);
    [[nodiscard]] bool has(std::string_view name);
    /// Names of the members of a group, ascending.
    [[nodiscard]] std::vector<std::string> members(std::string_view group);

    /// Attributes of a dataset, a group (made if absent) or, with "/", of the file. Text is at most
    /// 64,000 bytes.
    void set_attribute(std::string_view object, const std::string& name, std::int64_t value);
    void set_attribute(std::string_view object, const std::string& name, double value);
    void set_attribute(std::string_view object, const std::string& name, const std::string& value);
    [[nodiscard]] std::int64_t int_attribute(std::string_view object, const std::string& name);
    [[nodiscard]] double float_attribute(std::string_view object, const std::string& name);
    [[nodiscard]] std::string text_attribute(std::string_view object, const std::string& name);

    [[nodiscard]] const Path& path() const;

  private:
    struct State;
    explicit Hdf5File(std::unique_ptr<State> state);
    static Hdf5File open(std::unique_ptr<File> file, const Path& path);
    std::unique_ptr<State> state_;
};

}  // namespace rankwise::io
