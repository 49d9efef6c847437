// A file that is verified while it is read: the check fetches nothing twice.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <span>
#include <vector>

#include "io/checksum.hpp"
#include "io/direct_buffer.hpp"
#include "io/fs.hpp"
#include "src/base/uint128.hpp"

namespace rankwise::io {

/// Reads another file and hashes what passes, block by block (io/checksum.hpp); what was never
/// asked for is read by finish(). Until finish() says that the checksum is right, nothing that was
/// read may be trusted. For reading only; one thread. Where a stretch of several blocks is read at
/// a time, other threads help it: while it uses one, those behind are read and hashed.
class VerifiedFile final : public File {
  public:
    /// @param blocks  of a stretch; two are held, and of several blocks each up to twelve more
    /// @param through  read past the system's cache (File::read_through), then up to 32 more
    explicit VerifiedFile(std::unique_ptr<File> file, std::int64_t blocks = 1,
                          bool through = false);

    /// Gives `take` these bytes of the file piece by piece, ascending, each for the call alone.
    /// @return how many there were: fewer than asked for at the end of the file.
    using Take = std::function<void(std::span<const std::byte> piece)>;
    std::int64_t visit(std::int64_t offset, std::int64_t size, const Take& take);
    std::int64_t read_at(std::int64_t offset, std::span<std::byte> bytes) override;
    [[nodiscard]] std::int64_t size() override { return size_; }
    /// InternalError, all of them.
    void write_at(std::int64_t offset, std::span<const std::byte> bytes) override;
    void truncate(std::int64_t size) override;
    void sync() override;

    /// The checksum of the whole file, as it was read; another if a part that was read twice was
    /// not the same.
    /// @param moved  told of each stretch that is still to be read; null: nobody is
    [[nodiscard]] UInt128 finish(const std::function<void()>& moved = {});

  private:
    /// So many blocks, of which the last stretch may have fewer, and their hashes.
    struct Stretch {
        std::int64_t index = -1;
        DirectBuffer room;
        std::span<const std::byte> bytes;  ///< of it; fewer if the file was cut short meanwhile
        std::vector<UInt128> hashes;
    };
    [[nodiscard]] Stretch fetch(Stretch room, std::int64_t index) const;
    void note(const Stretch& stretch);
    void read_ahead(std::int64_t index);
    [[nodiscard]] Stretch spare();
    std::span<const std::byte> hold(std::int64_t index);

    std::unique_ptr<File> file_;
    std::int64_t size_;
    std::int64_t stretch_;  ///< bytes
    bool through_;
    std::vector<UInt128> hashes_;
    std::vector<bool> known_;      ///< by stretch
    std::array<Stretch, 2> held_;  ///< data and the tables between them take turns
    std::size_t next_held_ = 0;
    std::vector<Stretch> spare_;
    std::deque<std::future<Stretch>> ahead_;  ///< last: wait before the file goes
};

}  // namespace rankwise::io
