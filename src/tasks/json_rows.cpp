#include "src/tasks/json_rows.hpp"

#include "src/base/error.hpp"

namespace rankwise::tasks {

std::int64_t for_each_row(std::istream& in, std::string_view name, std::int64_t most_bytes,
                          const std::function<void(std::string_view line, std::int64_t number,
                                                   const std::string& where)>& row) {
    std::int64_t number = 0;
    std::int64_t rows = 0;
    for (std::string line; std::getline(in, line);) {
        ++number;
        const std::string where = fmt::format("{}:{}", name, number);
        require(std::ssize(line) <= most_bytes, "{}: the line has {} bytes; at most {} are read",
                where, line.size(), most_bytes);
        if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
        row(line, number, where);
        ++rows;
    }
    require(in.eof() && !in.bad(), "{}: reading fails after line {}", name, number);
    return rows;
}

}  // namespace rankwise::tasks
