#include "io/fs.hpp"

#include <cerrno>
#include <system_error>

namespace rankwise::io {
namespace {

std::string_view advice(int error_number) {
    switch (error_number) {
        case ENOSPC:
        case EDQUOT:
            return "free some space there, or choose a directory on another disk";
        case EACCES:
        case EPERM:
        case EROFS:
            return "check the owner and the permissions, or choose another directory";
        case ENOENT:
        case ENOTDIR:
            return "check the path";
        case EMFILE:
        case ENFILE:
            return "raise the limit of open files (ulimit -n)";
        case EFBIG:
            return "raise the limit of file sizes (ulimit -f)";
        default:
            return "check the disk and its file system";
    }
}

}  // namespace

EnvironmentError file_error(std::string_view what, const Path& path, int error_number) {
    return EnvironmentError(fmt::format("cannot {} {}: {}; {}", what, path.string(),
                                        std::generic_category().message(error_number),
                                        advice(error_number)));
}

std::vector<std::byte> read_file(FileSystem& fs, const Path& path) {
    const auto file = fs.open(path, OpenMode::read);
    std::vector<std::byte> bytes(static_cast<std::size_t>(file->size()));
    bytes.resize(static_cast<std::size_t>(file->read_at(0, bytes)));
    return bytes;
}

void write_file(FileSystem& fs, const Path& path, std::span<const std::byte> bytes) {
    const auto file = fs.open(path, OpenMode::create);
    file->write_at(0, bytes);
    file->sync();
}

void replace_file(FileSystem& fs, const Path& path, std::span<const std::byte> bytes) {
    Path temporary = path;
    temporary += ".tmp";
    write_file(fs, temporary, bytes);
    fs.rename(temporary, path);
    fs.sync_directory(path.has_parent_path() ? path.parent_path() : Path("."));
}

void require_space(FileSystem& fs, const Path& path, std::int64_t bytes, std::string_view purpose) {
    const std::int64_t free = fs.free_bytes(path);
    if (free >= bytes) return;
    constexpr double kMiB = 1024.0 * 1024.0;
    throw EnvironmentError(
        fmt::format("{}: {} needs {:.1f} MiB and the disk has {:.1f} MiB free; free some space "
                    "there, or choose a "
                    "directory on another disk",
                    path.string(), purpose, static_cast<double>(bytes) / kMiB,
                    static_cast<double>(free) / kMiB));
}

}  // namespace rankwise::io
