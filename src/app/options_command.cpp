// rankwise options: every option, or the physical ones with their matrix values.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdio>

#include "src/app/commands.hpp"
#include "src/app/nearest.hpp"
#include "src/app/sections.hpp"

namespace rankwise::app {
namespace {

const char* kind_text(OptionKind kind) {
    switch (kind) {
        case OptionKind::logical:
            return "logical";
        case OptionKind::physical:
            return "physical";
        case OptionKind::operational:
            return "operational";
    }
    return "";
}

std::string title_of(const DeclaredSection& section) {
    return section.kind.empty() ? fmt::format("[{}]", section.section)
                                : fmt::format("[{}]  kind = {}", section.section, section.kind);
}

/// One line an option, for programs: section, kind (or -), name, default, values with commas.
void print_physical(const std::vector<DeclaredSection>& sections) {
    for (const DeclaredSection& section : sections) {
        for (const DeclaredOption& option : section.options) {
            if (option.kind != OptionKind::physical) continue;
            fmt::print("{}\t{}\t{}\t{}\t{}\n", section.section,
                       section.kind.empty() ? "-" : section.kind, option.name, option.default_value,
                       fmt::join(option.matrix_values, ","));
        }
    }
}

void print_section(const DeclaredSection& section) {
    fmt::print("{}\n", title_of(section));
    std::size_t width = 0;
    for (const DeclaredOption& option : section.options) {
        width = std::max(width, option.name.size() + 3 + option.default_value.size());
    }
    width = std::min<std::size_t>(width, 34);
    for (const DeclaredOption& option : section.options) {
        const std::string setting = fmt::format("{} = {}", option.name, option.default_value);
        fmt::print("  {:<{}}  {}\n", setting, width, option.help);
        fmt::print("  {:<{}}  {}; {}", "", width, kind_text(option.kind), option.expected);
        if (!option.reason.empty()) fmt::print(" ({})", option.reason);
        if (!option.matrix_values.empty()) {
            fmt::print(" (matrix: {})", fmt::join(option.matrix_values, ", "));
        }
        fmt::print("\n");
    }
    fmt::print("\n");
}

}  // namespace

int run_options(const Arguments& arguments) {
    const std::vector<DeclaredSection> sections = declared_sections();
    if (arguments.has("physical")) {
        print_physical(sections);
        return 0;
    }
    std::vector<std::string> names;
    bool found = false;
    for (const DeclaredSection& section : sections) {
        names.push_back(section.section);
        if (!section.kind.empty()) names.push_back(section.kind);
        const bool wanted = arguments.positional.empty() ||
                            arguments.positional[0] == section.section ||
                            arguments.positional[0] == section.kind;
        found = found || wanted;
        if (wanted) print_section(section);
    }
    if (!found) {
        const std::string& word = arguments.positional[0];
        const std::string near = nearest(word, names);
        throw BadInput(fmt::format("there is no section or kind {}{} (there are: {})", word,
                                   near.empty() ? "" : fmt::format("; did you mean {}?", near),
                                   fmt::join(names, ", ")));
    }
    return 0;
}

}  // namespace rankwise::app
