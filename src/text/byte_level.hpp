// The byte-level alphabet of GPT-2: one printable character for each of the 256 bytes. Private to
// src/text.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace rankwise::text {

/// Each byte as its character, in UTF-8.
void append_byte_level(std::string& out, std::string_view bytes);

/// The bytes that a token of such characters stands for; nothing if it has another character.
[[nodiscard]] std::optional<std::string> bytes_of_byte_level(std::string_view token);

}  // namespace rankwise::text
