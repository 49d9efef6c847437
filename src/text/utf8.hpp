// UTF-8: reading code points, finding what is not UTF-8, and replacing it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace rankwise::text {

/// Bytes that a sequence with this first byte has; 0 for a byte that cannot begin one.
[[nodiscard]] int utf8_length(unsigned char first);

/// The first byte that is not part of well-formed UTF-8 (Unicode 15, table 3-7), or nothing.
[[nodiscard]] std::optional<std::size_t> first_invalid_utf8(std::string_view text);

/// The code point that begins at `at` of well-formed UTF-8; `at` moves behind it.
[[nodiscard]] char32_t next_code_point(std::string_view text, std::size_t& at);
void append_utf8(std::string& out, char32_t code_point);

/// Bytes that arrive in pieces, as text: every maximal subpart of an ill-formed sequence becomes
/// one U+FFFD (the practice of the Unicode standard, section 3.9), and a sequence that may still be
/// completed is held back.
class LossyUtf8 {
  public:
    void push(std::string_view bytes, std::string& out);
    /// Gives out what is held back, as U+FFFD.
    void finish(std::string& out);

  private:
    std::string held_;
};

[[nodiscard]] std::string to_utf8_lossy(std::string_view bytes);

}  // namespace rankwise::text
