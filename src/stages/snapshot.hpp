// What a rank saves, as it is at one moment, though it is written later.
#pragma once

#include <atomic>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "io/shard.hpp"
#include "kernels/device.hpp"
#include "src/base/host_buffer.hpp"

namespace rankwise::stages {

/// Device memory that is read where it lies until it is about to change, and from copies on the
/// host from then on. Two threads: one reads items(), once and in ascending pieces; the other does
/// all else.
class Snapshot {
  public:
    /// @param spare  copies of a snapshot that is written: they serve again, since the system takes
    /// longer to clear new memory than it takes to fill
    /// @param moved  told of each piece that is read, on the thread that reads it: a write may take
    /// longer than a watchdog waits. Null: nobody is
    explicit Snapshot(kernels::Device& device, std::vector<HostBuffer> spare = {},
                      std::function<void()> moved = {});
    Snapshot(const Snapshot&) = delete;
    Snapshot& operator=(const Snapshot&) = delete;
    ~Snapshot();

    /// Values that stay where they are, though they may change after keep().
    void add(const std::string& model, const char* kind, ParameterId id, const Box& box,
             DeviceSpan<const float> values);
    /// Values that are not there any more when the call ends: copied at once.
    void add_copied(const std::string& model, const char* kind, ParameterId id, const Box& box,
                    DeviceSpan<const float> values, kernels::Stream& stream);

    /// For io::write_shard. They refer to this snapshot.
    [[nodiscard]] std::span<const io::ShardItem> items() const { return items_; }

    /// The values may change from now on: of what was not read yet copies are made. Waits for
    /// `stream`.
    void keep(kernels::Stream& stream);
    /// Bytes that had to be copied.
    [[nodiscard]] std::int64_t copied_bytes() const { return copied_bytes_; }

    /// Nobody will want what is written: the next read throws, so that the writer ends. From any
    /// thread.
    void abandon() { abandoned_ = true; }

    /// Once all is written: the copies, for a snapshot to come.
    [[nodiscard]] std::vector<HostBuffer> take_copies();

  private:
    struct Part;
    Part& add_part(const std::string& model, const char* kind, ParameterId id, const Box& box,
                   DeviceSpan<const float> values);
    void keep(Part& part, kernels::Stream& stream);
    [[nodiscard]] HostBuffer room(std::int64_t bytes);

    kernels::Device& device_;
    std::function<void()> moved_;
    std::atomic<bool> abandoned_ = false;
    std::unique_ptr<kernels::Stream> reading_;  ///< what is read waits for no pass
    std::list<Part> parts_;                     // which items refer to
    std::vector<io::ShardItem> items_;
    std::multimap<std::int64_t, HostBuffer> spare_;  // by size
    std::int64_t copied_bytes_ = 0;
};

}  // namespace rankwise::stages
