// Post-processors of a tokenizer file: the ids that are added around a text. Private to src/text.
#pragma once

#include <string_view>
#include <vector>

#include "src/base/trajectory.hpp"
#include "src/text/json_fields.hpp"

namespace rankwise::text {

/// Ids before and after a text when special tokens are asked for.
struct Frame {
    std::vector<TokenId> before;
    std::vector<TokenId> after;
};

/// @param json  the file's "post_processor", or nullptr
/// @throws BadInput for a kind that is not known, or a template that is malformed.
[[nodiscard]] Frame read_post_processor(const Json* json, std::string_view where);

}  // namespace rankwise::text
