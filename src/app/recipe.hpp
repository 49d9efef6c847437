// A recipe: what a run does, as text, bound to the structs that declare their options.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "src/base/error.hpp"
#include "src/base/options.hpp"
#include "src/base/uint128.hpp"

namespace rankwise::app {

/// Where a value was written.
struct Origin {
    enum class Source : std::uint8_t { built_in, file, command_line };
    Source source = Source::built_in;
    std::string file;
    std::int64_t line = 0;
    /// "default", "configs/tiny.ini:12" or "command line".
    [[nodiscard]] std::string text() const;
};

/// One setting of the command line: `--parallel.tensor 4` is {"parallel.tensor", "4"}.
struct Setting {
    std::string key;
    std::string value;
};

/// An option after file and command line were read.
struct ResolvedOption {
    std::string section;
    std::string name;
    std::string value;  ///< in the spelling of to_text()
    OptionKind kind = OptionKind::logical;
    Origin origin;
    [[nodiscard]] std::string key() const { return section + "." + name; }
};

/// Everything that is wrong, found in one go. what() is the list, one problem a line.
class Problems : public BadInput {
  public:
    explicit Problems(std::vector<std::string> list);
    [[nodiscard]] const std::vector<std::string>& list() const { return list_; }

  private:
    std::vector<std::string> list_;
};

/// Called with the section ("stage.zero") when a recipe names this kind: makes the struct that
/// holds the options, keeps it, and returns its list.
using KindFactory = std::function<OptionList(const std::string& section)>;
using KindTable = std::map<std::string, KindFactory>;

/// INI text: `[section]`, `key = value`, `#` begins a comment. The command line goes over the file,
/// the file over the defaults.
///
/// Problems (bad line, key written twice, unknown key, wrong type, range or choice, section that
/// nothing asked for) are collected, and finish() throws them all at once; until then a value with
/// a problem keeps its default.
class Recipe {
  public:
    /// @param file  name for messages
    Recipe(std::string_view text, std::string file, std::vector<Setting> command_line = {});
    /// @throws BadInput if the file cannot be read.
    [[nodiscard]] static Recipe read(const std::filesystem::path& file,
                                     std::vector<Setting> command_line = {});

    /// Parses [section] into the targets of `options`, at once. A section may be bound by several
    /// lists; together they say which keys exist.
    void bind(const std::string& section, const OptionList& options);

    /// [section] with a key `kind` that chooses its options from a table.
    /// @return the kind; empty if it is missing or unknown (a problem that lists the kinds).
    std::string bind_kind(const std::string& section, const KindTable& kinds);

    /// NAMEs of the sections [prefix.NAME] that are written somewhere, in the file's order; NAME
    /// has no dot.
    [[nodiscard]] std::vector<std::string> names(std::string_view prefix) const;
    [[nodiscard]] bool has(std::string_view section) const;

    /// Adds a problem, placed where section.key was written (or the section, or nowhere).
    void add_problem(std::string_view section, std::string_view key, std::string message);

    /// Looks for keys that no list declares and sections that nothing bound.
    /// @throws Problems if there are any, in the order of the file.
    void finish();

    /// Every option of every bound section, in the order of binding.
    [[nodiscard]] const std::vector<ResolvedOption>& resolved() const { return resolved_; }
    /// resolved() as a recipe that reads back equal, with where each value came from as comments.
    [[nodiscard]] std::string resolved_text() const;

    /// The logical options as lines "section.key = value", sorted, after one with the numerics
    /// version.
    [[nodiscard]] std::string logical_text() const;
    /// XXH3-128 of logical_text(): digest/options.
    [[nodiscard]] UInt128 digest_options() const;

  private:
    struct Entry {
        std::string section;
        std::string key;
        std::string value;
        Origin origin;
    };
    struct Problem {
        std::int64_t order = 0;  ///< line in the file; after it the command line, then the rest
        std::string text;
    };
    void read_text(std::string_view text);
    void read_command_line(const std::vector<Setting>& settings);
    void add(const Origin& origin, const std::string& message);
    [[nodiscard]] const Entry* find(std::string_view section, std::string_view key) const;
    void parse(const std::string& section, const Option& option);
    void check_unused();

    std::string file_;
    std::vector<Entry> entries_;                     ///< file, then command line
    std::vector<std::string> sections_;              ///< written sections, in order, each once
    std::map<std::string, Origin> section_origins_;  ///< where each was written first
    std::map<std::string, std::vector<std::string>> declared_;  ///< keys of each bound section
    std::vector<ResolvedOption> resolved_;
    std::vector<Problem> problems_;
};

/// logical_text() of a recipe whose resolved_text() this is (recipe.ini of a run, or a checkpoint's
/// `options`).
[[nodiscard]] std::string logical_text_of(std::string_view resolved_text);

/// A key whose values differ; each value in quotes, or the word absent.
struct LogicalDifference {
    std::string key;
    std::string saved;
    std::string current;
};
/// What differs between two logical_text()s, by key.
[[nodiscard]] std::vector<LogicalDifference> logical_differences(std::string_view saved,
                                                                 std::string_view current);

/// Parses `text` into the target and checks range and choices; the target changes only if all is
/// well.
/// @return empty, or what is wrong: "expected a whole number of at least 1, found 'many'".
[[nodiscard]] std::string parse_option(const Option& option, std::string_view text);
/// What parse_option takes: "a whole number of at least 1", "one of a, b".
[[nodiscard]] std::string expected_text(const Option& option);

}  // namespace rankwise::app
