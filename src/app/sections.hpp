// Every section that a recipe can have, with its options: what `rankwise options` lists.
#pragma once

#include <string>
#include <vector>

#include "src/base/options.hpp"

namespace rankwise::app {

/// An option as declared, with its default in words.
struct DeclaredOption {
    std::string name;
    std::string default_value;
    OptionKind kind = OptionKind::logical;
    std::string expected;  ///< "a whole number of at least 1"
    std::string help;
    std::vector<std::string> matrix_values;
    std::string reason;
};

struct DeclaredSection {
    std::string section;  ///< "run", "stage.NAME", …
    std::string kind;     ///< of `kind = …`; empty for sections without kinds
    std::vector<DeclaredOption> options;
};

/// One row a section and kind. A new struct of options is in the list (and, if it has physical
/// ones, in the layout matrix) by its row in sections.cpp.
[[nodiscard]] std::vector<DeclaredSection> declared_sections();

/// The row of a list; its targets hold the defaults.
[[nodiscard]] DeclaredSection describe(std::string section, std::string kind,
                                       const OptionList& options);

}  // namespace rankwise::app
