// JSON lines beside these tests.
#pragma once

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace rankwise::tasks {

inline std::vector<nlohmann::json> fixture(const std::string& name) {
    std::ifstream in(std::string(RANKWISE_SOURCE_DIR) + "/tests/unit/tasks/fixtures/" + name);
    std::vector<nlohmann::json> rows;
    for (std::string line; std::getline(in, line);) rows.push_back(nlohmann::json::parse(line));
    return rows;
}

}  // namespace rankwise::tasks
