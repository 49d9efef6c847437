#include "src/app/recipe.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <boost/program_options/option.hpp>
#include <boost/program_options/options_description.hpp>
#include <boost/program_options/parsers.hpp>
#include <fstream>
#include <sstream>

#include "src/app/nearest.hpp"
#include "src/app/trim.hpp"
#include "src/base/numerics_version.hpp"

namespace rankwise::app {
namespace {

constexpr std::int64_t kCommandLineOrder = std::int64_t{1} << 40U;
constexpr std::int64_t kLastOrder = kCommandLineOrder + 1;

std::string did_you_mean(const std::string& word) {
    return word.empty() ? std::string() : fmt::format("; did you mean {}?", word);
}

bool is_plain_key(std::string_view key) {
    return !key.empty() && std::ranges::all_of(key, [](char c) {
        return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '.' || c == '-';
    });
}

std::string_view word_of(OptionKind kind) {
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

}  // namespace

std::string Origin::text() const {
    switch (source) {
        case Source::built_in:
            return "default";
        case Source::file:
            return fmt::format("{}:{}", file, line);
        case Source::command_line:
            return "command line";
    }
    return "";
}

Problems::Problems(std::vector<std::string> list)
    : BadInput(fmt::format("{}", fmt::join(list, "\n"))), list_(std::move(list)) {}

Recipe::Recipe(std::string_view text, std::string file, std::vector<Setting> command_line)
    : file_(std::move(file)) {
    read_text(text);
    read_command_line(command_line);
}

Recipe Recipe::read(const std::filesystem::path& file, std::vector<Setting> command_line) {
    std::ifstream stream(file);
    std::ostringstream text;
    // A directory opens but cannot be read.
    const bool readable = stream && (stream.peek() == std::ifstream::traits_type::eof() ||
                                     static_cast<bool>(text << stream.rdbuf()));
    require(readable && !std::filesystem::is_directory(file),
            "{}: cannot read this recipe; give the path of a file with sections like [run]",
            file.string());
    return Recipe(text.str(), file.string(), std::move(command_line));
}

// Boost reads the keys and values; our own scan beside it knows the lines, takes out those that
// Boost would stop at, and sees what is written twice.
void Recipe::read_text(std::string_view text) {
    std::string clean;
    std::vector<Origin> places;
    std::string section;
    bool section_ok = true;
    std::int64_t line_number = 0;
    std::istringstream lines{std::string(text)};
    for (std::string raw; std::getline(lines, raw);) {
        const Origin origin{Origin::Source::file, file_, ++line_number};
        const std::string_view line = trim(std::string_view(raw).substr(0, raw.find('#')));
        if (line.empty()) continue;
        if (line.front() == '[') {
            const std::string_view name = trim(line.substr(1, line.size() - 2));
            section_ok = line.back() == ']' && is_plain_key(name);
            if (!section_ok) {
                add(origin, fmt::format("expected a section like [run], found '{}'", line));
                continue;
            }
            section = name;
            clean += fmt::format("[{}]\n", section);
            const auto [place, is_new] = section_origins_.emplace(section, origin);
            if (is_new) {
                sections_.push_back(section);
            } else {
                add(origin, fmt::format("section [{}] again; it began in line {}: write it once",
                                        section, place->second.line));
            }
            continue;
        }
        const auto equals = line.find('=');
        const std::string_view key = trim(line.substr(0, equals));
        if (equals == std::string_view::npos || !is_plain_key(key)) {
            add(origin, fmt::format("expected 'key = value', found '{}'", line));
        } else if (section.empty() && section_ok) {
            add(origin, fmt::format("key {} stands before the first section; begin with a line "
                                    "like [run]",
                                    key));
        } else if (section_ok) {
            clean += line;
            clean += '\n';
            places.push_back(origin);
        }
    }

    std::istringstream stream(clean);
    const auto parsed = boost::program_options::parse_config_file(
        stream, boost::program_options::options_description(), true);
    ensure(parsed.options.size() == places.size(), "{}: {} keys scanned, {} parsed", file_,
           places.size(), parsed.options.size());
    for (std::size_t i = 0; i < places.size(); ++i) {
        const std::string& full = parsed.options[i].string_key;
        // A key may not have a dot, a section may; so the last dot parts them.
        const auto dot = full.rfind('.');
        Entry entry{full.substr(0, dot), full.substr(dot + 1), parsed.options[i].value.at(0),
                    places[i]};
        if (const Entry* first = find(entry.section, entry.key)) {
            add(entry.origin, fmt::format("[{}] {} again; it has a value in line {}: write it once",
                                          entry.section, entry.key, first->origin.line));
            continue;
        }
        entries_.push_back(std::move(entry));
    }
}

void Recipe::read_command_line(const std::vector<Setting>& settings) {
    const Origin origin{Origin::Source::command_line, {}, 0};
    for (const Setting& setting : settings) {
        const auto dot = setting.key.rfind('.');
        const std::string value(trim(setting.value));
        if (dot == std::string::npos || dot == 0 || !is_plain_key(setting.key)) {
            add(origin, fmt::format("expected --section.key value, found --{}", setting.key));
        } else if (value.find_first_of("#\n") != std::string::npos) {
            add(origin, fmt::format("--{}: a value cannot hold '#' or a line end", setting.key));
        } else {
            const std::string section = setting.key.substr(0, dot);
            if (section_origins_.emplace(section, origin).second) sections_.push_back(section);
            entries_.push_back({section, setting.key.substr(dot + 1), value, origin});
        }
    }
}

void Recipe::add(const Origin& origin, const std::string& message) {
    switch (origin.source) {
        case Origin::Source::file:
            problems_.push_back({origin.line, fmt::format("{}: {}", origin.text(), message)});
            return;
        case Origin::Source::command_line:
            problems_.push_back({kCommandLineOrder, fmt::format("command line: {}", message)});
            return;
        case Origin::Source::built_in:
            problems_.push_back(
                {kLastOrder, file_.empty() ? message : fmt::format("{}: {}", file_, message)});
            return;
    }
}

void Recipe::add_problem(std::string_view section, std::string_view key, std::string message) {
    if (const Entry* entry = find(section, key)) {
        add(entry->origin, fmt::format("[{}] {}: {}", section, key, message));
    } else if (const auto place = section_origins_.find(std::string(section));
               place != section_origins_.end()) {
        add(place->second,
            fmt::format("[{}]{}{}: {}", section, key.empty() ? "" : " ", key, message));
    } else {
        add({}, section.empty() ? message : fmt::format("[{}] {}: {}", section, key, message));
    }
}

const Recipe::Entry* Recipe::find(std::string_view section, std::string_view key) const {
    // The last one counts: the command line stands behind the file.
    for (auto entry = entries_.rbegin(); entry != entries_.rend(); ++entry) {
        if (entry->section == section && entry->key == key) return &*entry;
    }
    return nullptr;
}

bool Recipe::has(std::string_view section) const {
    return section_origins_.contains(std::string(section));
}

std::vector<std::string> Recipe::names(std::string_view prefix) const {
    std::vector<std::string> found;
    const std::string start = fmt::format("{}.", prefix);
    for (const std::string& section : sections_) {
        if (!section.starts_with(start)) continue;
        const std::string name = section.substr(start.size());
        if (name.find('.') == std::string::npos) found.push_back(name);
    }
    return found;
}

void Recipe::parse(const std::string& section, const Option& option) {
    Origin origin;
    if (const Entry* entry = find(section, option.name)) {
        const std::string wrong = parse_option(option, entry->value);
        if (wrong.empty()) {
            origin = entry->origin;
        } else {
            add(entry->origin, fmt::format("[{}] {}: {}", section, option.name, wrong));
        }
    }
    std::vector<std::string>& keys = declared_[section];
    ensure(std::ranges::find(keys, option.name) == keys.end(),
           "two option lists of [{}] declare {}", section, option.name);
    keys.push_back(option.name);
    resolved_.push_back({section, option.name, to_text(option.target), option.kind, origin});
}

void Recipe::bind(const std::string& section, const OptionList& options) {
    declared_[section];
    for (const Option& option : options.options()) parse(section, option);
}

std::string Recipe::bind_kind(const std::string& section, const KindTable& kinds) {
    std::vector<std::string> names;
    for (const auto& row : kinds) names.push_back(row.first);
    std::string kind;
    OptionList list;
    list.logical("kind", &kind, "what it is").one_of(names);
    const bool written = find(section, "kind") != nullptr;
    bind(section, list);
    if (!has(section)) {
        add({}, fmt::format("section [{}] is missing; it needs a line 'kind = …', one of {}",
                            section, fmt::join(names, ", ")));
    } else if (!written) {
        add_problem(section, "",
                    fmt::format("a line 'kind = …' is missing; one of {}", fmt::join(names, ", ")));
    }
    const auto row = kinds.find(kind);
    if (row == kinds.end()) {
        // Its keys cannot be judged.
        for (const Entry& entry : entries_) {
            if (entry.section == section && entry.key != "kind") {
                declared_[section].push_back(entry.key);
            }
        }
        return {};
    }
    bind(section, row->second(section));
    return kind;
}

void Recipe::check_unused() {
    std::vector<std::string> bound;
    for (const auto& row : declared_) bound.push_back(row.first);
    for (const std::string& section : sections_) {
        if (declared_.contains(section)) continue;
        std::string hint = did_you_mean(nearest(section, bound));
        if (section.starts_with("stage.")) {
            hint = fmt::format("; add {} to [run] stages, or take it out", section.substr(6));
        }
        add(section_origins_.at(section), fmt::format("nothing uses section [{}]{} (sections in "
                                                      "use: {})",
                                                      section, hint, fmt::join(bound, ", ")));
    }
    for (const Entry& entry : entries_) {
        const auto keys = declared_.find(entry.section);
        if (keys == declared_.end() ||
            std::ranges::find(keys->second, entry.key) != keys->second.end()) {
            continue;
        }
        add(entry.origin,
            fmt::format(
                "[{}] has no key {}{} (keys: {})", entry.section, entry.key,
                did_you_mean(nearest(entry.key, keys->second)),
                keys->second.empty() ? "none" : fmt::format("{}", fmt::join(keys->second, ", "))));
    }
}

void Recipe::finish() {
    check_unused();
    if (problems_.empty()) return;
    std::ranges::stable_sort(problems_, {}, &Problem::order);
    std::vector<std::string> list;
    for (const Problem& problem : problems_) list.push_back(problem.text);
    throw Problems(std::move(list));
}

std::string Recipe::resolved_text() const {
    std::string text = fmt::format(
        "# Every option of this run, with what it may change and where its value came from.\n"
        "# numerics_version = {}\n",
        kNumericsVersion);
    std::vector<std::string> order;
    for (const ResolvedOption& option : resolved_) {
        if (std::ranges::find(order, option.section) == order.end()) {
            order.push_back(option.section);
        }
    }
    for (const std::string& section : order) {
        text += fmt::format("\n[{}]\n", section);
        for (const ResolvedOption& option : resolved_) {
            if (option.section != section) continue;
            const std::string setting = fmt::format("{} = {}", option.name, option.value);
            text += fmt::format("{:<44}# {}; {}\n", setting + " ", word_of(option.kind),
                                option.origin.text());
        }
    }
    return text;
}

std::string Recipe::logical_text() const {
    return logical_text_of(resolved_text());
}

UInt128 Recipe::digest_options() const {
    const std::string text = logical_text();
    return xxh3_128(text.data(), text.size());
}

std::string logical_text_of(std::string_view resolved_text) {
    std::vector<std::string> lines;
    std::string version;
    std::string section;
    std::istringstream stream{std::string(resolved_text)};
    for (std::string line; std::getline(stream, line);) {
        if (line.starts_with("# numerics_version = ")) {
            version = line.substr(2);
        } else if (line.starts_with("[")) {
            section = line.substr(1, line.find(']') - 1);
        } else if (const auto comment = line.find("# logical; "); comment != std::string::npos) {
            lines.push_back(
                fmt::format("{}.{}", section, trim(std::string_view(line).substr(0, comment))));
        }
    }
    std::ranges::sort(lines);
    lines.insert(lines.begin(), version);
    return fmt::format("{}\n", fmt::join(lines, "\n"));
}

std::vector<LogicalDifference> logical_differences(std::string_view saved,
                                                   std::string_view current) {
    std::map<std::string, LogicalDifference> all;
    const auto read = [&all](std::string_view text, std::string LogicalDifference::*member) {
        std::istringstream stream{std::string(text)};
        for (std::string line; std::getline(stream, line);) {
            const auto equals = line.find('=');
            if (equals == std::string::npos) continue;
            const std::string key(trim(std::string_view(line).substr(0, equals)));
            LogicalDifference& difference = all[key];
            difference.key = key;
            difference.*member =
                fmt::format("'{}'", trim(std::string_view(line).substr(equals + 1)));
        }
    };
    read(saved, &LogicalDifference::saved);
    read(current, &LogicalDifference::current);
    std::vector<LogicalDifference> differences;
    for (auto& row : all) {
        LogicalDifference& difference = row.second;
        if (difference.saved == difference.current) continue;
        if (difference.saved.empty()) difference.saved = "absent";
        if (difference.current.empty()) difference.current = "absent";
        differences.push_back(std::move(difference));
    }
    return differences;
}

}  // namespace rankwise::app
