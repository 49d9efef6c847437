#include "src/app/command_options.hpp"

#include <fmt/format.h>

namespace rankwise::app {

void read_options(const Arguments& arguments, const OptionList& list,
                  std::vector<std::string>& problems) {
    for (const Option& option : list.options()) {
        if (!arguments.has(option.name)) continue;
        const std::string wrong = parse_option(option, arguments.get(option.name));
        if (!wrong.empty()) problems.push_back(fmt::format("--{}: {}", option.name, wrong));
    }
}

}  // namespace rankwise::app
