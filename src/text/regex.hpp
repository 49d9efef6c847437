// Regular expressions of tokenizer files (Oniguruma's syntax there, PCRE2 here).
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace rankwise::text {

/// Bytes [begin, end) of a text.
struct Match {
    std::size_t begin = 0;
    std::size_t end = 0;
    friend bool operator==(const Match&, const Match&) = default;
};

/// A compiled expression over UTF-8 with Unicode properties. `\s` and `\S` mean the property
/// White_Space, as in Oniguruma; PCRE2's own also takes U+180E. Copies share the compiled form;
/// const members are safe from several threads.
class Regex {
  public:
    /// @throws BadInput if the expression is malformed (names `where`, the expression and the place
    /// in it).
    Regex(std::string_view pattern, std::string_view where);

    /// All matches that are not empty, from left to right.
    /// @param text  well-formed UTF-8
    /// @throws BadInput if the text makes the expression run beyond its limits.
    void find_all(std::string_view text, std::vector<Match>& matches) const;

    [[nodiscard]] const std::string& pattern() const;

  private:
    struct Compiled;
    std::shared_ptr<const Compiled> compiled_;
};

/// An expression that matches exactly this text.
[[nodiscard]] std::string quote_regex(std::string_view literal);

}  // namespace rankwise::text
