// What a command of the program is; the table of commands is in commands.cpp.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "src/app/recipe.hpp"

namespace rankwise::app {

class Session;

/// What stands on the command line behind the command.
struct Arguments {
    std::string command = {};
    std::vector<std::string> positional = {};
    std::map<std::string, std::string> options =
        {};                              ///< `--output x`; a flag that is given is "true"
    std::vector<Setting> settings = {};  ///< `--section.key value`
    [[nodiscard]] bool has(const std::string& option) const { return options.contains(option); }
    [[nodiscard]] std::string get(const std::string& option,
                                  const std::string& otherwise = {}) const;
};

/// An option that a command has of its own (recipes have theirs in sections).
struct CommandOption {
    std::string name = {};
    std::string value = {};  ///< what its value is called in --help; empty for a flag
    std::string help = {};
};

/// One row a command. Exactly one of the two functions is set.
struct Command {
    std::string name = {};
    std::string summary = {};  ///< one line of `rankwise --help`
    std::string positional =
        {};                 ///< "RECIPE", "A B"; words in [] may be left out, … repeats the last
    std::string text = {};  ///< paragraphs of `rankwise COMMAND --help`
    std::vector<CommandOption> options = {};
    std::vector<std::string> examples = {};
    bool takes_settings = false;  ///< accepts --section.key value
    std::string settings = {};    ///< what they set, for --help; empty: options of a recipe
    /// Runs in one process, without MPI. @return the exit code.
    int (*alone)(const Arguments&) = nullptr;
    /// Runs on every rank.
    int (*on_ranks)(const Arguments&, Session&) = nullptr;
    /// On several ranks: what they wait for is reported when nothing has moved for five minutes
    /// (train has options of its own for that, and ends such a job).
    bool reports_stalls = false;
};

/// A command line that was understood, or what to print instead.
struct ParsedCommandLine {
    const Command* command = nullptr;  ///< null: print `text`
    Arguments arguments = {};
    std::string text = {};  ///< help
};

/// @param words  argv without the program's name.
/// @throws Problems with everything that is wrong (unknown command or option with the nearest one,
/// missing value, too few or too many words).
[[nodiscard]] ParsedCommandLine parse_command_line(const std::vector<std::string>& words,
                                                   const std::vector<Command>& commands);

/// `rankwise --help` and `rankwise COMMAND --help`, at most 80 columns wide.
[[nodiscard]] std::string program_help(const std::vector<Command>& commands);
[[nodiscard]] std::string command_help(const Command& command);

}  // namespace rankwise::app
