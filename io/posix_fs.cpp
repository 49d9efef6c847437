#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <mutex>

#include "io/descriptor.hpp"
#include "io/fs.hpp"

namespace rankwise::io {
namespace {

/// The most that one read or write moves on Linux.
constexpr std::size_t kMaxTransfer = 0x7ffff000;

Descriptor open_or_throw(const Path& path, int flags, std::string_view what) {
    for (;;) {
        const int descriptor = ::open(path.c_str(), flags | O_CLOEXEC, 0666);
        if (descriptor >= 0) return Descriptor(descriptor);
        if (errno != EINTR) throw file_error(what, path, errno);
    }
}

class PosixFile final : public File {
  public:
    /// @param direct  whether the cache may be passed by
    PosixFile(Descriptor descriptor, Path path, bool direct = false)
        : descriptor_(std::move(descriptor)), path_(std::move(path)), refused_(!direct) {}

    std::int64_t read_at(std::int64_t offset, std::span<std::byte> bytes) override {
        return read(descriptor_.get(), offset, bytes, 0);
    }

    std::int64_t read_through(std::int64_t offset, std::span<std::byte> bytes) override {
        std::int64_t done = 0;
        if (const int direct = past_cache(offset, bytes); direct >= 0) {
            done = read(direct, offset, bytes, EINVAL);
            // What a disk gives at a file's end is no whole block.
            if (done == std::ssize(bytes) || offset + done == size()) return done;
            refuse();
        }
        return done + read_at(offset + done, bytes.subspan(static_cast<std::size_t>(done)));
    }

    void write_at(std::int64_t offset, std::span<const std::byte> bytes) override {
        (void)write(descriptor_.get(), offset, bytes, 0);
    }

    void write_through(std::int64_t offset, std::span<const std::byte> bytes) override {
        if (const int direct = past_cache(offset, bytes); direct >= 0) {
            const std::int64_t done = write(direct, offset, bytes, EINVAL);
            if (done == std::ssize(bytes)) return;
            refuse();
            offset += done;
            bytes = bytes.subspan(static_cast<std::size_t>(done));
        }
        write_at(offset, bytes);
#ifdef __linux__
        (void)::sync_file_range(descriptor_.get(), offset, std::ssize(bytes),
                                SYNC_FILE_RANGE_WRITE);
#endif
    }

    void truncate(std::int64_t size) override {
        if (::ftruncate(descriptor_.get(), size) != 0) throw file_error("resize", path_, errno);
    }

    std::int64_t size() override {
        struct stat status {};
        if (::fstat(descriptor_.get(), &status) != 0) throw file_error("examine", path_, errno);
        return status.st_size;
    }

    void sync() override {
        if (::fsync(descriptor_.get()) != 0) throw file_error("sync", path_, errno);
    }

  private:
    /// Repeats `call(done, size)` until all is moved, or there is no more, or an error of number
    /// `stop_at` came. @return bytes that were moved
    template <class Call>
    std::int64_t transfer(std::size_t size, std::string_view what, int stop_at, const Call& call) {
        std::size_t done = 0;
        while (done < size) {
            const ssize_t n = call(done, std::min(size - done, kMaxTransfer));
            if (n < 0 && errno == EINTR) continue;
            if (n < 0 && stop_at != 0 && errno == stop_at) break;
            if (n < 0) throw file_error(what, path_, errno);
            if (n == 0) break;
            done += static_cast<std::size_t>(n);
        }
        return static_cast<std::int64_t>(done);
    }
    std::int64_t read(int descriptor, std::int64_t offset, std::span<std::byte> bytes,
                      int stop_at) {
        return transfer(bytes.size(), "read", stop_at, [&](std::size_t done, std::size_t size) {
            return ::pread(descriptor, bytes.data() + done, size,
                           offset + static_cast<off_t>(done));
        });
    }
    std::int64_t write(int descriptor, std::int64_t offset, std::span<const std::byte> bytes,
                       int stop_at) {
        return transfer(bytes.size(), "write", stop_at, [&](std::size_t done, std::size_t size) {
            return ::pwrite(descriptor, bytes.data() + done, size,
                            offset + static_cast<off_t>(done));
        });
    }

    /// What to reach these bytes of the file by, past the cache; -1: it cannot be done.
    [[nodiscard]] int past_cache([[maybe_unused]] std::int64_t offset,
                                 [[maybe_unused]] std::span<const std::byte> bytes) {
#ifdef O_DIRECT
        const auto whole_blocks = [](auto value) {
            return static_cast<std::int64_t>(value) % kDirectBlock == 0;
        };
        if (!whole_blocks(offset) || !whole_blocks(bytes.size()) ||
            !whole_blocks(reinterpret_cast<std::uintptr_t>(bytes.data())))
            return -1;
        const std::lock_guard lock(mutex_);
        if (refused_) return -1;
        if (!direct_) {
            // Another description of the very file, whatever its name is by now: other reading and
            // writing goes through the cache.
            const std::string self = fmt::format("/proc/self/fd/{}", descriptor_.get());
            const int access = ::fcntl(descriptor_.get(), F_GETFL) & O_ACCMODE;
            direct_ = Descriptor(::open(self.c_str(), access | O_DIRECT | O_CLOEXEC));
            refused_ = !direct_;
        }
        return direct_.get();
#else
        return -1;
#endif
    }
    /// This file system cannot do it after all.
    void refuse() {
        const std::lock_guard lock(mutex_);
        refused_ = true;
    }

    Descriptor descriptor_;
    Path path_;
    std::mutex mutex_;
    Descriptor direct_;  ///< opened when first wanted; another thread may be using it when refused
    bool refused_;
};

class PosixLock final : public Lock {
  public:
    explicit PosixLock(Descriptor descriptor) : descriptor_(std::move(descriptor)) {}

  private:
    Descriptor descriptor_;
};

std::string this_process() {
    std::array<char, 256> host{};
    if (::gethostname(host.data(), host.size() - 1) != 0) host[0] = '?';
    return fmt::format("pid {} on host {}", ::getpid(), host.data());
}

class PosixFileSystem final : public FileSystem {
  public:
    explicit PosixFileSystem(PosixOptions options) : options_(options) {}

    std::unique_ptr<File> open(const Path& path, OpenMode mode) override {
        int flags = O_RDONLY;
        if (mode == OpenMode::create) flags = O_RDWR | O_CREAT | O_TRUNC;
        if (mode == OpenMode::update) flags = O_RDWR | O_CREAT;
        return std::make_unique<PosixFile>(
            open_or_throw(path, flags, mode == OpenMode::read ? "open" : "write"), path,
            options_.direct);
    }

    void create_directories(const Path& path) override {
        std::error_code error;
        std::filesystem::create_directories(path, error);
        if (error) throw file_error("make the directory", path, error.value());
    }

    void rename(const Path& from, const Path& to) override {
        if (::rename(from.c_str(), to.c_str()) != 0) {
            throw file_error(fmt::format("rename {} to", from.string()), to, errno);
        }
    }

    void sync_directory(const Path& path) override {
        const Descriptor descriptor =
            open_or_throw(path, O_RDONLY | O_DIRECTORY, "open the directory");
        if (::fsync(descriptor.get()) != 0) throw file_error("sync the directory", path, errno);
    }

    void remove_tree(const Path& path) override {
        std::error_code error;
        std::filesystem::remove_all(path, error);
        if (error) throw file_error("remove", path, error.value());
    }

    std::vector<std::string> list(const Path& path) override {
        std::vector<std::string> names;
        std::error_code error;
        std::filesystem::directory_iterator entries(path, error);
        if (error == std::errc::no_such_file_or_directory) return names;
        for (const std::filesystem::directory_iterator end; !error && entries != end;
             entries.increment(error)) {
            names.push_back(entries->path().filename().string());
        }
        if (error) throw file_error("list", path, error.value());
        std::sort(names.begin(), names.end());
        return names;
    }

    bool exists(const Path& path) override {
        std::error_code error;
        const auto status = std::filesystem::symlink_status(path, error);
        if (status.type() == std::filesystem::file_type::not_found) return false;
        if (error) throw file_error("examine", path, error.value());
        return true;
    }

    std::int64_t free_bytes(const Path& path) override {
        struct statvfs status {};
        if (::statvfs(path.c_str(), &status) != 0) {
            throw file_error("ask for the free space of", path, errno);
        }
        return static_cast<std::int64_t>(status.f_bavail) *
               static_cast<std::int64_t>(status.f_frsize);
    }

    std::unique_ptr<Lock> lock(const Path& path) override {
        Descriptor descriptor = open_or_throw(path, O_RDWR | O_CREAT, "open the lock file");
        PosixFile file(Descriptor(::dup(descriptor.get())), path);
        if (::flock(descriptor.get(), LOCK_EX | LOCK_NB) != 0) {
            if (errno != EWOULDBLOCK) throw file_error("lock", path, errno);
            std::string holder(256, '\0');
            const auto size = file.read_at(0, std::as_writable_bytes(std::span(holder)));
            holder.resize(static_cast<std::size_t>(size));
            while (!holder.empty() && holder.back() == '\n') holder.pop_back();
            throw EnvironmentError(fmt::format(
                "{}: the directory is in use by a live run ({}); wait for it to end, stop "
                "it, or name another directory",
                path.string(), holder.empty() ? "just starting" : holder));
        }
        try {
            file.truncate(0);
            file.write_at(0, bytes_of(this_process() + "\n"));
        } catch (const EnvironmentError&) {
            // Who holds it is told to people alone. On a full disk a run must be able to begin: it
            // first removes what an unfinished save has left.
        }
        return std::make_unique<PosixLock>(std::move(descriptor));
    }

  private:
    PosixOptions options_;
};

}  // namespace

std::unique_ptr<FileSystem> posix_file_system(PosixOptions options) {
    return std::make_unique<PosixFileSystem>(options);
}

}  // namespace rankwise::io
