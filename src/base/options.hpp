// Options are declared beside the structs that hold them; only src/app parses text into them.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace rankwise {

/// What an option may change (NUMERICS): a *logical* one changes what is computed and is hashed
/// into digest/options; a *physical* one must not change a bit, and declares the values that the
/// layout matrix gives it; an *operational* one (paths, time limits, what is printed) says why it
/// can do neither.
enum class OptionKind : std::uint8_t { logical, physical, operational };

using OptionTarget = std::variant<bool*, std::int64_t*, double*, std::string*,
                                  std::vector<std::string>*, std::vector<double>*>;

/// One option as declared.
struct Option {
    std::string name;     ///< key inside its section, e.g. "learning_rate"
    OptionTarget target;  ///< where a parsed value goes; holds the default until then
    OptionKind kind = OptionKind::logical;
    std::string help;                                           ///< one sentence, with the unit
    double minimum = -std::numeric_limits<double>::infinity();  ///< for numbers, inclusive
    double maximum = std::numeric_limits<double>::infinity();
    std::vector<std::string> choices = {};        ///< for strings: what is allowed; empty: anything
    std::vector<std::string> matrix_values = {};  ///< physical: values for the layout matrix
    std::string reason = {};                      ///< operational: why it cannot change a result

    Option& at_least(double value) {
        minimum = value;
        return *this;
    }
    Option& at_most(double value) {
        maximum = value;
        return *this;
    }
    Option& one_of(std::vector<std::string> values) {
        choices = std::move(values);
        return *this;
    }
};

/// The options of one section, bound to one struct. The struct must outlive the parsing.
class OptionList {
  public:
    Option& logical(std::string name, OptionTarget target, std::string help) {
        return add({.name = std::move(name),
                    .target = target,
                    .kind = OptionKind::logical,
                    .help = std::move(help)});
    }
    Option& physical(std::string name, OptionTarget target, std::vector<std::string> matrix_values,
                     std::string help) {
        return add({.name = std::move(name),
                    .target = target,
                    .kind = OptionKind::physical,
                    .help = std::move(help),
                    .matrix_values = std::move(matrix_values)});
    }
    Option& operational(std::string name, OptionTarget target, std::string reason,
                        std::string help) {
        return add({.name = std::move(name),
                    .target = target,
                    .kind = OptionKind::operational,
                    .help = std::move(help),
                    .reason = std::move(reason)});
    }
    [[nodiscard]] const std::vector<Option>& options() const { return options_; }

  private:
    Option& add(Option option) {
        options_.push_back(std::move(option));
        return options_.back();
    }
    std::vector<Option> options_;
};

/// The value of a target as a recipe would spell it (shortest form that reads back equal); lists
/// with commas.
[[nodiscard]] std::string to_text(const OptionTarget& target);

}  // namespace rankwise
