// Where a model's weights lie while no phase reads them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "io/fs.hpp"
#include "src/base/uint128.hpp"

namespace rankwise::model {

enum class Residency : std::uint8_t {
    device,  ///< where passes read them
    host,    ///< masters in the host's memory; brought into scratch memory for a phase
    disk,    ///< masters in a file; likewise
};

/// A residency with the file of `disk`, which only this process uses and which is removed with the
/// weights.
struct Residence {
    Residency where = Residency::device;
    io::FileSystem* files = nullptr;
    io::Path file = {};
    bool planning = false;  ///< nothing is kept
};

/// Floats off the device.
class OffDevice {
  public:
    explicit OffDevice(Residence residence) : residence_(std::move(residence)) {}
    OffDevice(const OffDevice&) = delete;
    OffDevice& operator=(const OffDevice&) = delete;
    ~OffDevice();

    [[nodiscard]] bool keeps() const { return !residence_.planning; }
    [[nodiscard]] bool on_host() const { return residence_.where == Residency::host; }
    /// @throws EnvironmentError if there is no room on the disk.
    void put(std::vector<float> values);
    /// What was put last; empty if nothing was.
    /// @throws CorruptFile if the file no longer holds it.
    [[nodiscard]] std::vector<float> get() const;

  private:
    Residence residence_;
    std::vector<float> values_;
    std::size_t size_ = 0;
    UInt128 checksum_;
};

}  // namespace rankwise::model
