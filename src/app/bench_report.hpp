// What `rankwise bench` prints and keeps.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "src/app/bench_machine.hpp"
#include "src/app/bench_meter.hpp"
#include "src/app/bench_rows.hpp"

namespace rankwise::app {

/// A row with what was measured.
struct BenchResult {
    std::string name;
    Timed measured;
    RowFacts facts;
    std::vector<std::pair<std::string, double>> parts;  ///< seconds of named parts
};

/// A whole measurement.
struct BenchReport {
    Machine machine;
    std::string program;  ///< version and commit
    std::string device;   ///< "cpu (avx512, 2 threads)"
    std::int64_t ranks = 1;
    Load load;
    std::vector<BenchResult> results;
};

/// One line of the table, and the line above them. @param before  the same row of an earlier
/// measurement, or null
[[nodiscard]] std::string table_head(bool compared);
[[nodiscard]] std::string table_line(const BenchResult& result, const BenchResult* before);
/// What is said below the table: the load, and whether the times can be trusted.
[[nodiscard]] std::string load_line(const Load& load);

/// JSON, one object with "rows".
[[nodiscard]] std::string to_json(const BenchReport& report);
/// Reads what to_json gives. @param where  the file, for messages
/// @throws BadInput if it is none.
[[nodiscard]] BenchReport report_from_json(const std::string& text, const std::string& where);

/// @throws BadInput if the two cannot be compared: another machine, device or number of ranks.
void require_comparable(const BenchReport& now, const BenchReport& before,
                        const std::string& where);
/// The row of this name, or null.
[[nodiscard]] const BenchResult* find_row(const BenchReport& report, const std::string& name);

}  // namespace rankwise::app
