// Normalizers of a tokenizer file. Private to src/text.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "src/text/json_fields.hpp"

namespace rankwise::text {

/// What is done to text before it is cut: a list of functions, in order. Empty: nothing.
class Normalizer {
  public:
    Normalizer() = default;
    /// @param json  the file's "normalizer", or nullptr
    /// @throws BadInput for a kind that is not known.
    Normalizer(const Json* json, std::string_view where);

    [[nodiscard]] std::string operator()(std::string_view text) const;
    [[nodiscard]] bool empty() const { return steps_.empty(); }

  private:
    void add(const Json& json, std::string_view where);
    std::vector<std::function<std::string(std::string_view)>> steps_;
};

}  // namespace rankwise::text
