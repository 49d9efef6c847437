#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <boost/program_options/options_description.hpp>
#include <boost/program_options/parsers.hpp>
#include <boost/program_options/positional_options.hpp>
#include <boost/program_options/variables_map.hpp>
#include <limits>
#include <sstream>

#include "src/app/build_facts.hpp"
#include "src/app/command.hpp"
#include "src/app/nearest.hpp"

namespace rankwise::app {
namespace {

namespace po = boost::program_options;

constexpr std::size_t kColumns = 80;

/// `text` in lines of at most kColumns columns that begin with `indent` spaces; line ends stay.
std::string wrapped(std::string_view text, std::size_t indent) {
    std::string out;
    std::istringstream paragraphs{std::string(text)};
    for (std::string paragraph; std::getline(paragraphs, paragraph);) {
        std::istringstream words(paragraph);
        std::string line(indent, ' ');
        bool empty = true;
        for (std::string word; words >> word;) {
            if (!empty && line.size() + 1 + word.size() > kColumns) {
                out += line + "\n";
                line.assign(indent, ' ');
                empty = true;
            }
            if (!empty) line += ' ';
            line += word;
            empty = false;
        }
        out += empty ? "\n" : line + "\n";
    }
    return out;
}

/// A term in a column of its own, its explanation beside it.
std::string row(const std::string& term, std::string_view help, std::size_t column) {
    std::string text = wrapped(help, column);
    const std::string start = "  " + term;
    if (start.size() + 2 <= column) return text.replace(0, start.size(), start);
    return start + "\n" + text;
}

struct Arity {
    std::size_t least = 0;
    std::size_t most = 0;
};

Arity arity_of(const std::string& positional) {
    Arity arity;
    std::istringstream words(positional);
    for (std::string word; words >> word;) {
        if (word == "…") {
            arity.most = std::numeric_limits<std::size_t>::max();
            return arity;
        }
        ++arity.most;
        if (word.front() != '[') ++arity.least;
    }
    return arity;
}

std::vector<std::string> option_names(const Command& command) {
    std::vector<std::string> names{"--help"};
    for (const CommandOption& option : command.options) names.push_back("--" + option.name);
    return names;
}

std::string hint(const std::string& near) {
    return near.empty() ? std::string() : fmt::format("; did you mean {}?", near);
}

/// Takes `--section.key value` and `--section.key=value` out of the words.
std::vector<std::string> take_settings(const std::vector<std::string>& words,
                                       std::vector<Setting>& settings,
                                       std::vector<std::string>& problems) {
    std::vector<std::string> rest;
    for (std::size_t i = 0; i < words.size(); ++i) {
        const std::string& word = words[i];
        const auto equals = word.find('=');
        const std::string name = word.substr(0, equals);
        if (!word.starts_with("--") || name.find('.') == std::string::npos) {
            rest.push_back(word);
        } else if (equals != std::string::npos) {
            settings.push_back({name.substr(2), word.substr(equals + 1)});
        } else if (i + 1 < words.size() && !words[i + 1].starts_with("--")) {
            settings.push_back({name.substr(2), words[++i]});
        } else {
            problems.push_back(fmt::format("{} needs a value behind it", name));
        }
    }
    return rest;
}

/// The command's own options and positional words, by Boost. Unknown options are collected here
/// rather than thrown one by one.
void read_own(const Command& command, const std::vector<std::string>& words, Arguments& arguments,
              std::vector<std::string>& problems) {
    po::options_description described;
    described.add_options()("help,h", "");
    for (const CommandOption& option : command.options) {
        if (option.value.empty()) {
            described.add_options()(option.name.c_str(), "");
        } else {
            described.add_options()(option.name.c_str(), po::value<std::string>(), "");
        }
    }
    po::positional_options_description nowhere;  // positional words are told by their empty key
    try {
        const po::parsed_options parsed =
            po::command_line_parser(words)
                .options(described)
                .style(po::command_line_style::unix_style & ~po::command_line_style::allow_guessing)
                .allow_unregistered()
                .run();
        for (const po::option& option : parsed.options) {
            if (option.unregistered) {
                const std::string word = option.original_tokens.at(0);
                const std::string name = word.substr(0, word.find('='));
                problems.push_back(fmt::format("rankwise {} has no option {}{}", command.name, name,
                                               hint(nearest(name, option_names(command)))));
            } else if (option.position_key >= 0 || option.string_key.empty()) {
                arguments.positional.insert(arguments.positional.end(), option.value.begin(),
                                            option.value.end());
            } else {
                arguments.options[option.string_key] =
                    option.value.empty() ? "true" : option.value.front();
            }
        }
    } catch (const po::error& error) {
        problems.push_back(error.what());
    }
}

void check_positional(const Command& command, const Arguments& arguments,
                      std::vector<std::string>& problems) {
    const Arity arity = arity_of(command.positional);
    const std::size_t found = arguments.positional.size();
    if (found < arity.least) {
        problems.push_back(fmt::format(
            "rankwise {} needs {}; found {}", command.name, command.positional,
            found == 0 ? "nothing" : fmt::format("{}", fmt::join(arguments.positional, " "))));
    } else if (found > arity.most) {
        problems.push_back(fmt::format(
            "rankwise {} takes {}; '{}' is one word too many", command.name,
            arity.most == 0 ? "no words" : command.positional, arguments.positional[arity.most]));
    }
}

}  // namespace

std::string Arguments::get(const std::string& option, const std::string& otherwise) const {
    const auto place = options.find(option);
    return place == options.end() ? otherwise : place->second;
}

ParsedCommandLine parse_command_line(const std::vector<std::string>& words,
                                     const std::vector<Command>& commands) {
    if (words.empty() || words[0] == "--help" || words[0] == "-h" ||
        (words[0] == "help" && words.size() == 1)) {
        return {.text = program_help(commands)};
    }
    const bool asks_help = words[0] == "help";
    const std::string name = words[0] == "--version" ? "version" : asks_help ? words[1] : words[0];
    const auto command = std::ranges::find(commands, name, &Command::name);
    if (command == commands.end()) {
        std::vector<std::string> names;
        for (const Command& row : commands) names.push_back(row.name);
        throw Problems({fmt::format("there is no command {}{} (commands: {})", name,
                                    hint(nearest(name, names)), fmt::join(names, ", "))});
    }
    if (asks_help || std::ranges::find(words, "--help") != words.end() ||
        std::ranges::find(words, "-h") != words.end()) {
        return {.text = command_help(*command)};
    }
    ParsedCommandLine parsed{.command = &*command};
    parsed.arguments.command = name;
    std::vector<std::string> problems;
    std::vector<std::string> rest(words.begin() + 1, words.end());
    rest = take_settings(rest, parsed.arguments.settings, problems);
    if (!command->takes_settings) {
        for (const Setting& setting : parsed.arguments.settings) {
            problems.push_back(
                fmt::format("rankwise {} has no option --{}; only commands that "
                            "read a recipe take --section.key",
                            name, setting.key));
        }
    }
    read_own(*command, rest, parsed.arguments, problems);
    check_positional(*command, parsed.arguments, problems);
    if (!problems.empty()) {
        problems.back() += fmt::format("\nrankwise {} --help says what it takes", name);
        throw Problems(std::move(problems));
    }
    return parsed;
}

std::string program_help(const std::vector<Command>& commands) {
    const bool ranks = std::ranges::any_of(
        commands, [](const Command& command) { return command.on_ranks != nullptr; });
    std::string text = fmt::format(
        "rankwise {}: trains language models to reason; the same answer on any number\n"
        "of ranks and threads, with any number of restarts.\n\n"
        "Usage\n"
        "  rankwise COMMAND [ARGUMENTS]\n{}\n"
        "Commands\n",
        build_facts().version,
        ranks ? "  mpirun -n RANKS rankwise COMMAND [ARGUMENTS]    commands with a * run on ranks\n"
              : "");
    std::size_t column = 0;
    for (const Command& command : commands) column = std::max(column, command.name.size() + 7);
    for (const Command& command : commands) {
        text +=
            row(command.name + (command.on_ranks != nullptr ? " *" : ""), command.summary, column);
    }
    text +=
        "\nrankwise COMMAND --help shows what a command takes, with examples.\n\n"
        "Exit codes\n"
        "  0   done\n"
        "  2   the recipe, the model folder or the input data is wrong\n"
        "  3   saved: the same command again goes on\n"
        "  4   one of our own files is damaged\n"
        "  5   numbers or rewards: not finite, or different where they must be equal\n"
        "  6   environment: disk, permission, a dead rank\n"
        "  7   waiting for a person\n"
        "  70  a defect of the program\n";
    return text;
}

std::string command_help(const Command& command) {
    std::string text = wrapped(command.summary, 0);
    text += fmt::format("\nUsage\n  {}rankwise {}{}{}{}{}\n",
                        command.on_ranks != nullptr ? "[mpirun -n RANKS] " : "", command.name,
                        command.positional.empty() ? "" : " ", command.positional,
                        command.options.empty() ? "" : " [OPTIONS]",
                        command.takes_settings ? " [--section.key VALUE …]" : "");
    if (!command.text.empty()) text += "\n" + wrapped(command.text, 0);
    text += "\nOptions\n";
    std::vector<std::pair<std::string, std::string>> rows;
    for (const CommandOption& option : command.options) {
        rows.emplace_back(
            fmt::format("--{}{}{}", option.name, option.value.empty() ? "" : " ", option.value),
            option.help);
    }
    if (command.takes_settings) {
        rows.emplace_back("--section.key VALUE",
                          command.settings.empty()
                              ? "sets an option of the recipe; goes over what the file says"
                              : command.settings);
    }
    rows.emplace_back("--help", "this text");
    std::size_t column = 0;
    for (const auto& [term, help] : rows) column = std::max(column, term.size() + 4);
    for (const auto& [term, help] : rows)
        text += row(term, help, std::min<std::size_t>(column, 28));
    if (!command.examples.empty()) {
        text += "\nExamples\n";
        for (const std::string& example : command.examples) text += "  " + example + "\n";
    }
    return text;
}

}  // namespace rankwise::app
