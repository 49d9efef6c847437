// JSON lines from a stream, a row at a time. Private to src/tasks.
#pragma once

#include <cstdint>
#include <functional>
#include <istream>
#include <string>
#include <string_view>

namespace rankwise::tasks {

/// Calls `row` with each line that is not blank, its number (from 1) and "name:number".
/// @returns the rows
/// @throws BadInput for a line longer than `most_bytes`, or if reading fails.
std::int64_t for_each_row(std::istream& in, std::string_view name, std::int64_t most_bytes,
                          const std::function<void(std::string_view line, std::int64_t number,
                                                   const std::string& where)>& row);

}  // namespace rankwise::tasks
