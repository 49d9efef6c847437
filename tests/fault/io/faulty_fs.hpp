// A file system that fails, or a machine that stops, at a chosen operation.
#pragma once

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "io/fs.hpp"

namespace rankwise::io::test {

/// What every operation throws from the crash on. No Error: nothing in the program may take it for
/// one.
struct Crash {};

/// Passes everything on to a real file system and counts the operations that change something. At
/// operation number `at` (from 1): `fail` throws that system error once; `crash` does half of a
/// write and then throws Crash for ever. With `power_loss`, data that was not synced and renames in
/// directories that were not synced are lost as well.
class FaultyFileSystem final : public FileSystem {
  public:
    explicit FaultyFileSystem(FileSystem& real) : real_(real) {}

    void fail(std::int64_t at, int error_number) {
        at_ = at;
        error_number_ = error_number;
    }
    void crash(std::int64_t at, bool power_loss) {
        at_ = at;
        error_number_ = 0;
        power_loss_ = power_loss;
    }
    /// Called before a file is made, by the thread that makes it: it may wait there.
    void before_making(std::function<void(const Path&)> call) { before_making_ = std::move(call); }
    [[nodiscard]] std::int64_t operations() const { return operations_; }
    [[nodiscard]] bool crashed() const { return crashed_; }

    std::unique_ptr<File> open(const Path& path, OpenMode mode) override {
        alive();
        if (mode == OpenMode::create && before_making_) before_making_(path);
        if (mode != OpenMode::read) {
            step("write", path);
            if (mode == OpenMode::create) unsynced_[path] = {};
        }
        return std::make_unique<Watched>(*this, path, real_.open(path, mode));
    }
    void create_directories(const Path& path) override {
        step("make the directory", path);
        real_.create_directories(path);
    }
    void rename(const Path& from, const Path& to) override {
        step("rename to", to);
        Rename done{from, to, std::nullopt};
        if (real_.exists(to) && !std::filesystem::is_directory(to))
            done.replaced = read_file(real_, to);
        real_.rename(from, to);
        renames_.push_back(std::move(done));
        move_unsynced(from, to);
    }
    void sync_directory(const Path& path) override {
        step("sync the directory", path);
        std::erase_if(renames_, [&](const Rename& r) { return r.to.parent_path() == path; });
    }
    void remove_tree(const Path& path) override {
        step("remove", path);
        real_.remove_tree(path);
    }
    std::vector<std::string> list(const Path& path) override {
        alive();
        return real_.list(path);
    }
    bool exists(const Path& path) override {
        alive();
        return real_.exists(path);
    }
    std::int64_t free_bytes(const Path& path) override {
        alive();
        return real_.free_bytes(path);
    }
    std::unique_ptr<Lock> lock(const Path& path) override { return real_.lock(path); }

  private:
    struct Rename {
        Path from, to;
        std::optional<std::vector<std::byte>> replaced;
    };

    class Watched final : public File {
      public:
        Watched(FaultyFileSystem& fs, Path path, std::unique_ptr<File> real)
            : fs_(fs), path_(std::move(path)), real_(std::move(real)) {}
        std::int64_t read_at(std::int64_t offset, std::span<std::byte> bytes) override {
            fs_.alive();
            return real_->read_at(offset, bytes);
        }
        std::int64_t read_through(std::int64_t offset, std::span<std::byte> bytes) override {
            fs_.alive();
            return real_->read_through(offset, bytes);
        }
        void write_at(std::int64_t offset, std::span<const std::byte> bytes) override {
            before_write(offset, bytes);
            real_->write_at(offset, bytes);
        }
        void write_through(std::int64_t offset, std::span<const std::byte> bytes) override {
            before_write(offset, bytes);
            real_->write_through(offset, bytes);
        }
        void truncate(std::int64_t size) override {
            fs_.remember(path_);
            fs_.step("resize", path_);
            real_->truncate(size);
        }
        std::int64_t size() override {
            fs_.alive();
            return real_->size();
        }
        void sync() override {
            fs_.step("sync",
                     path_);  // the disk is a pretended one: no need to wait for the real one
            fs_.unsynced_.erase(path_);
        }

      private:
        void before_write(std::int64_t offset, std::span<const std::byte> bytes) {
            fs_.remember(path_);
            if (fs_.is_next() && fs_.error_number_ == 0)
                real_->write_at(offset, bytes.first(bytes.size() / 2));
            fs_.step("write", path_);
        }

        FaultyFileSystem& fs_;
        Path path_;
        std::unique_ptr<File> real_;
    };

    void alive() const {
        if (crashed_) throw Crash();
    }
    [[nodiscard]] bool is_next() const { return !crashed_ && operations_ + 1 == at_; }
    void step(std::string_view what, const Path& path) {
        alive();
        if (++operations_ != at_) return;
        if (error_number_ != 0) throw file_error(what, path, error_number_);
        crashed_ = true;
        if (power_loss_) lose();
        throw Crash();
    }
    /// Keeps what a file holds on the disk for certain, before the first write after a sync.
    void remember(const Path& path) {
        if (!crashed_ && !unsynced_.contains(path)) unsynced_.emplace(path, read_file(real_, path));
    }
    /// Files under a renamed directory keep what they still owe to the disk.
    void move_unsynced(const Path& from, const Path& to) {
        std::map<Path, std::vector<std::byte>> moved;
        for (auto& [path, contents] : unsynced_) {
            const std::string text = path.string();
            const std::string prefix = from.string() + "/";
            if (text == from.string()) {
                moved[to] = std::move(contents);
            } else if (text.starts_with(prefix)) {
                moved[to / text.substr(prefix.size())] = std::move(contents);
            } else {
                moved[path] = std::move(contents);
            }
        }
        unsynced_ = std::move(moved);
    }
    void lose() {
        for (const auto& [path, synced] : unsynced_) {
            if (real_.exists(path)) real_.open(path, OpenMode::create)->write_at(0, synced);
        }
        for (auto r = renames_.rbegin(); r != renames_.rend(); ++r) {
            if (!real_.exists(r->to)) continue;
            real_.rename(r->to, r->from);
            if (r->replaced) real_.open(r->to, OpenMode::create)->write_at(0, *r->replaced);
        }
    }

    FileSystem& real_;
    std::function<void(const Path&)> before_making_;
    std::int64_t at_ = 0;
    int error_number_ = 0;
    bool power_loss_ = false;
    bool crashed_ = false;
    std::atomic<std::int64_t> operations_ = 0;  // files may be written by threads of their own
    std::map<Path, std::vector<std::byte>> unsynced_;  ///< → what is on the disk for certain
    std::vector<Rename> renames_;
};

}  // namespace rankwise::io::test
