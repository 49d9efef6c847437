// Members of JSON objects with messages that name the file and the member. Private to src/text.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace rankwise::text {

using Json = nlohmann::json;

/// The whole file. @throws BadInput if it cannot be read.
[[nodiscard]] std::string read_file(const std::filesystem::path& path);

/// Parses one JSON object. @throws BadInput with the place and the parser's reason.
[[nodiscard]] Json parse_object(std::string_view bytes, std::string_view where);

/// A member that is there and is not null, or nullptr.
[[nodiscard]] const Json* member(const Json& object, const char* key);

/// A member that must be there.
[[nodiscard]] const Json& required_member(const Json& object, const char* key,
                                          std::string_view where);
[[nodiscard]] std::string string_member(const Json& object, const char* key,
                                        std::string_view where);
[[nodiscard]] std::string string_member_or(const Json& object, const char* key,
                                           std::string_view otherwise, std::string_view where);
[[nodiscard]] bool bool_member_or(const Json& object, const char* key, bool otherwise,
                                  std::string_view where);
/// A non-negative integer that fits a token id or count.
[[nodiscard]] std::int32_t int_member(const Json& object, const char* key, std::string_view where);
/// A value that must be a non-negative integer of that size.
[[nodiscard]] std::int32_t int_value(const Json& value, std::string_view where);
/// An array that must be there.
[[nodiscard]] const Json& array_member(const Json& object, const char* key, std::string_view where);

}  // namespace rankwise::text
