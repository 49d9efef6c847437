// The machine that a measurement was made on, and what else it did meanwhile.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace rankwise::app {

/// What makes two measurements comparable.
struct Machine {
    std::string processor;  ///< "AMD EPYC (family 25 model 17 stepping 1)"
    std::int64_t cores = 0;
    std::vector<std::string> instruction_sets;  ///< that the CPU device can use
    std::string host;                           ///< only told: machines have many names
    friend bool operator==(const Machine& a, const Machine& b) {
        return a.processor == b.processor && a.cores == b.cores &&
               a.instruction_sets == b.instruction_sets;
    }
};
[[nodiscard]] Machine this_machine();
/// "AMD EPYC (family 25 model 17 stepping 1), 2 cores, avx2 avx512"
[[nodiscard]] std::string to_string(const Machine& machine);

/// What other processes took while something ran.
struct Load {
    double others_cores = 0.0;   ///< cores that they kept busy on average
    double steal_percent = 0.0;  ///< of all processor time, taken by the hypervisor
    std::array<double, 3> average_begin{}, average_end{};  ///< the system's load averages
};

/// Begins when it is made.
class LoadMeter {
  public:
    LoadMeter();
    /// @param own_s  processor seconds since then of all processes that belong to the measurement
    [[nodiscard]] Load load(double own_s) const;

  private:
    struct Ticks {
        double all = 0.0, stolen = 0.0, busy = 0.0;  ///< seconds since boot, of all cores
    };
    [[nodiscard]] static Ticks ticks();

    Ticks begin_;
    std::array<double, 3> average_begin_;
};

/// Processor seconds that this process has used.
[[nodiscard]] double processor_seconds();

}  // namespace rankwise::app
