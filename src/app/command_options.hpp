// The values of a command's own options, which stand in no recipe.
#pragma once

#include <string>
#include <vector>

#include "src/app/command.hpp"
#include "src/base/options.hpp"

namespace rankwise::app {

/// Parses `--name value` of the command line into the targets of `list`; what is not given keeps
/// its value. What is wrong is added to `problems`: "--top-p: expected a number from 0 to 1, found
/// 'x'".
void read_options(const Arguments& arguments, const OptionList& list,
                  std::vector<std::string>& problems);

}  // namespace rankwise::app
