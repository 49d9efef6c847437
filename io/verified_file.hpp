// A file that is verified while it is read: the check fetches nothing that was asked for.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "io/checksum.hpp"
#include "io/fs.hpp"
#include "src/base/uint128.hpp"

namespace rankwise::io {

/// Reads another file and hashes what passes, block by block (io/checksum.hpp); what was never
/// asked for is read by finish(). Until finish() says that the checksum is right, nothing that was
/// read may be trusted. For reading only; one thread.
class VerifiedFile final : public File {
  public:
    explicit VerifiedFile(std::unique_ptr<File> file);

    std::int64_t read_at(std::int64_t offset, std::span<std::byte> bytes) override;
    [[nodiscard]] std::int64_t size() override { return size_; }
    /// InternalError, all of them.
    void write_at(std::int64_t offset, std::span<const std::byte> bytes) override;
    void truncate(std::int64_t size) override;
    void sync() override;

    /// The checksum of the whole file, as it was read.
    [[nodiscard]] UInt128 finish();

  private:
    /// A block that was read for a part of it. Data and the tables between them take turns.
    struct Held {
        std::int64_t index = -1;
        std::vector<std::byte> bytes;
    };
    [[nodiscard]] std::int64_t block_size(std::int64_t index) const;
    const std::vector<std::byte>& hold(std::int64_t index);
    void note(std::int64_t index, std::span<const std::byte> block);

    std::unique_ptr<File> file_;
    std::int64_t size_;
    std::vector<UInt128> hashes_;
    std::vector<bool> known_;
    std::array<Held, 2> held_;
    std::size_t next_held_ = 0;
};

}  // namespace rankwise::io
