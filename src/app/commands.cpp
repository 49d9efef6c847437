#include "src/app/commands.hpp"

namespace rankwise::app {

const std::vector<Command>& all_commands() {
    static const std::vector<Command> commands{
        {.name = "options",
         .summary = "lists the options of recipes, by section",
         .positional = "[SECTION_OR_KIND]",
         .text = "Each option is logical (changes what is computed), physical (must not change a "
                 "bit; the layout matrix varies it) or operational (says why it can do neither).",
         .options = {{"physical", "",
                      "only the physical ones, a line each for programs: section, kind, name, "
                      "default, matrix values"}},
         .examples = {"rankwise options run", "rankwise options --physical"},
         .alone = run_options},
        {.name = "version",
         .summary = "says what this program was built from and with",
         .alone = run_version},
    };
    return commands;
}

}  // namespace rankwise::app
