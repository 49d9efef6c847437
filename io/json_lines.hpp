// Data files: one JSON object a line.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "io/fs.hpp"

namespace rankwise::io {

/// A line longer than this is refused: more likely a wrong file than data.
inline constexpr std::int64_t kMaxJsonLine = std::int64_t{64} << 20U;

/// Calls `row` for each object of a file in order, with where it stands ("train.jsonl:12"). Empty
/// lines are skipped.
/// @throws BadInput if the file is absent, has no object, or a line is no JSON object, is not UTF-8
/// or is too long (names
///         file and line).
void read_json_lines(
    const Path& path,
    const std::function<void(const nlohmann::json& object, const std::string& where)>& row);

/// A field of such an object. @throws BadInput if it is missing or of another type (names place,
/// field, fields there are).
[[nodiscard]] std::string text_field(const nlohmann::json& object, const std::string& key,
                                     const std::string& where);
[[nodiscard]] std::int64_t int_field(const nlohmann::json& object, const std::string& key,
                                     const std::string& where);
/// Any number that is finite.
[[nodiscard]] double number_field(const nlohmann::json& object, const std::string& key,
                                  const std::string& where);

}  // namespace rankwise::io
