#include "src/app/bench_machine.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>

#include "kernels/device.hpp"

namespace rankwise::app {
namespace {

/// The value of a field of the first processor in /proc/cpuinfo; "?" if it is not there.
std::string processor_field(std::string_view name) {
    std::ifstream in("/proc/cpuinfo");
    for (std::string line; std::getline(in, line) && !line.empty();) {
        const auto colon = line.find(':');
        if (colon == std::string::npos || colon + 2 > line.size()) continue;
        std::string key = line.substr(0, colon);
        key.erase(key.find_last_not_of(" \t") + 1);
        if (key == name) return line.substr(colon + 2);
    }
    return "?";
}

std::array<double, 3> load_averages() {
    std::array<double, 3> averages{};
    if (::getloadavg(averages.data(), 3) != 3) averages = {};
    return averages;
}

}  // namespace

Machine this_machine() {
    Machine machine;
    machine.processor = fmt::format("{} (family {} model {} stepping {})",
                                    processor_field("model name"), processor_field("cpu family"),
                                    processor_field("model"), processor_field("stepping"));
    machine.cores = ::sysconf(_SC_NPROCESSORS_ONLN);
    for (const kernels::Isa isa : kernels::available_isas())
        machine.instruction_sets.emplace_back(kernels::name_of(isa));
    std::array<char, 256> host{};
    if (::gethostname(host.data(), host.size() - 1) == 0) machine.host = host.data();
    return machine;
}

std::string to_string(const Machine& machine) {
    return fmt::format("{}, {} core{}, {}", machine.processor, machine.cores,
                       machine.cores == 1 ? "" : "s", fmt::join(machine.instruction_sets, " "));
}

LoadMeter::LoadMeter() : begin_(ticks()), average_begin_(load_averages()) {}

LoadMeter::Ticks LoadMeter::ticks() {
    std::ifstream in("/proc/stat");
    std::string word;
    // user, nice, system, idle, iowait, irq, softirq, steal
    std::array<double, 8> fields{};
    in >> word;
    for (double& field : fields) in >> field;
    if (!in) return {};
    const auto hertz = static_cast<double>(::sysconf(_SC_CLK_TCK));
    double all = 0.0;
    for (const double field : fields) all += field / hertz;
    return {.all = all,
            .stolen = fields[7] / hertz,
            .busy = all - (fields[3] + fields[4] + fields[7]) / hertz};
}

Load LoadMeter::load(double own_s) const {
    const Ticks now = ticks();
    Load load{.average_begin = average_begin_, .average_end = load_averages()};
    const double all = now.all - begin_.all;
    if (all <= 0.0) return load;
    const double seconds = all / static_cast<double>(::sysconf(_SC_NPROCESSORS_ONLN));
    load.others_cores = std::max(0.0, now.busy - begin_.busy - own_s) / seconds;
    load.steal_percent = 100.0 * (now.stolen - begin_.stolen) / all;
    return load;
}

double processor_seconds() {
    rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    const auto seconds = [](const timeval& time) {
        return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
    };
    return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

}  // namespace rankwise::app
