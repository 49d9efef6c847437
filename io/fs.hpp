// Files and directories behind an interface, so that a full disk and a crash between any two
// operations are tests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "src/base/error.hpp"

namespace rankwise::io {

using Path = std::filesystem::path;

/// An open file. Offsets and sizes in bytes. Every failure is an EnvironmentError with path, the
/// system's text and advice.
class File {
  public:
    File() = default;
    File(const File&) = delete;
    File& operator=(const File&) = delete;
    virtual ~File() = default;

    /// Fills `bytes` from `offset`. @return bytes read; fewer than asked for only at the end of the
    /// file. Two threads may read at the same time.
    virtual std::int64_t read_at(std::int64_t offset, std::span<std::byte> bytes) = 0;
    /// The same for a large piece that is not read again soon, nor by others: past the system's
    /// cache, as write_through. `bytes` may go beyond the file's end.
    virtual std::int64_t read_through(std::int64_t offset, std::span<std::byte> bytes) {
        return read_at(offset, bytes);
    }
    /// Writes all of `bytes` at `offset` with one system call where the system allows it; the file
    /// grows as needed.
    virtual void write_at(std::int64_t offset, std::span<const std::byte> bytes) = 0;
    /// The same for a large piece that is not read again soon: past the system's cache, whose
    /// copying costs more of a processor than the disk takes, if offset, size and address are
    /// multiples of kDirectBlock and the file system can do it; else written to the cache, with
    /// the system asked to bring it to the disk at once.
    virtual void write_through(std::int64_t offset, std::span<const std::byte> bytes) {
        write_at(offset, bytes);
    }
    virtual void truncate(std::int64_t size) = 0;
    [[nodiscard]] virtual std::int64_t size() = 0;
    /// Returns when what was written is on the disk (fsync).
    virtual void sync() = 0;
};

/// What files can be written by without the system's cache: no less than a page and any disk's
/// sector.
inline constexpr std::int64_t kDirectBlock = 4096;

enum class OpenMode : std::uint8_t {
    read,    ///< the file must exist
    create,  ///< readable and writable; emptied if it exists
    update,  ///< readable and writable; made if absent, kept if not
};

/// Held while the object lives; let go by the system when the process ends, however it ends.
class Lock {
  public:
    Lock() = default;
    Lock(const Lock&) = delete;
    Lock& operator=(const Lock&) = delete;
    virtual ~Lock() = default;
};

/// The operations that runs need. Every failure is an EnvironmentError with path, the system's text
/// and advice.
class FileSystem {
  public:
    FileSystem() = default;
    FileSystem(const FileSystem&) = delete;
    FileSystem& operator=(const FileSystem&) = delete;
    virtual ~FileSystem() = default;

    [[nodiscard]] virtual std::unique_ptr<File> open(const Path& path, OpenMode mode) = 0;
    /// Makes the directory and those above it; existing ones are no error.
    virtual void create_directories(const Path& path) = 0;
    /// Replaces `to` if it is a file. Durable only after sync_directory of the parent.
    virtual void rename(const Path& from, const Path& to) = 0;
    virtual void sync_directory(const Path& path) = 0;
    /// Removes a file, or a directory with all that is in it. Absent: no error.
    virtual void remove_tree(const Path& path) = 0;
    /// Names in a directory, ascending; empty if the directory does not exist.
    [[nodiscard]] virtual std::vector<std::string> list(const Path& path) = 0;
    [[nodiscard]] virtual bool exists(const Path& path) = 0;
    /// Bytes that an unprivileged user may still write on the disk of `path`.
    [[nodiscard]] virtual std::int64_t free_bytes(const Path& path) = 0;
    /// Takes the exclusive lock file `path`, made if absent, which then names this process ("pid
    /// 123 on host a").
    /// @throws EnvironmentError naming the holder if a live process has it.
    [[nodiscard]] virtual std::unique_ptr<Lock> lock(const Path& path) = 0;
};

/// How the real one writes.
struct PosixOptions {
    bool direct = true;  ///< File::write_through goes past the cache where it can
};

/// The real one. Stateless; safe to call from several threads.
[[nodiscard]] std::unique_ptr<FileSystem> posix_file_system(PosixOptions options = {});

/// "cannot {what} {path}: {strerror}; {advice}", for an error number of the system.
[[nodiscard]] EnvironmentError file_error(std::string_view what, const Path& path,
                                          int error_number);

/// A whole file. @throws EnvironmentError if it is absent or unreadable.
[[nodiscard]] std::vector<std::byte> read_file(FileSystem& fs, const Path& path);

/// Makes or empties `path`, writes, syncs. The directory is not synced.
void write_file(FileSystem& fs, const Path& path, std::span<const std::byte> bytes);

/// Replaces `path` so that a crash leaves the old or the new contents: `path.tmp`, sync, rename,
/// sync directory.
void replace_file(FileSystem& fs, const Path& path, std::span<const std::byte> bytes);

/// @throws EnvironmentError if the disk of `path` has less than `bytes` free (names both numbers
/// and `purpose`).
void require_space(FileSystem& fs, const Path& path, std::int64_t bytes, std::string_view purpose);

/// The bytes of a text.
[[nodiscard]] inline std::span<const std::byte> bytes_of(std::string_view text) {
    return std::as_bytes(std::span(text.data(), text.size()));
}

}  // namespace rankwise::io
