// Text into the values that options hold.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <type_traits>

#include "src/app/nearest.hpp"
#include "src/app/recipe.hpp"
#include "src/app/trim.hpp"

namespace rankwise::app {
namespace {

std::vector<std::string_view> items_of(std::string_view text) {
    std::vector<std::string_view> items;
    text = trim(text);
    while (!text.empty()) {
        const auto comma = text.find(',');
        items.push_back(trim(text.substr(0, comma)));
        if (comma == std::string_view::npos) break;
        text = text.substr(comma + 1);
        if (trim(text).empty()) items.emplace_back();  // a comma at the end
    }
    return items;
}

template <class T>
bool read_number(std::string_view text, T& value) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    return error == std::errc() && end == text.data() + text.size();
}

/// Each reads one item and says whether it is a value within range and choices.
bool read_item(const Option& option, std::string_view text, std::int64_t& value) {
    return read_number(text, value) && static_cast<double>(value) >= option.minimum &&
           static_cast<double>(value) <= option.maximum;
}
bool read_item(const Option& option, std::string_view text, double& value) {
    // Not a number fails both comparisons.
    return read_number(text, value) && value >= option.minimum && value <= option.maximum;
}
bool read_item(const Option& option, std::string_view text, std::string& value) {
    value = text;
    return option.choices.empty() ||
           std::ranges::find(option.choices, value) != option.choices.end();
}
bool read_item(const Option&, std::string_view text, bool& value) {
    value = text == "true" || text == "yes" || text == "on" || text == "1";
    return value || text == "false" || text == "no" || text == "off" || text == "0";
}

/// The first item that is no value, if there is one; else `target` has them all.
struct Reader {
    const Option& option;
    std::string_view text;

    template <class T>
    std::optional<std::string_view> operator()(T* target) const {
        T value{};
        if (!read_item(option, trim(text), value)) return trim(text);
        *target = value;
        return std::nullopt;
    }
    template <class T>
    std::optional<std::string_view> operator()(std::vector<T>* target) const {
        std::vector<T> values;
        for (const std::string_view item : items_of(text)) {
            T value{};
            if (item.empty() || !read_item(option, item, value)) return item;
            values.push_back(value);
        }
        *target = values;
        return std::nullopt;
    }
};

std::string range_text(const Option& option) {
    const bool low = std::isfinite(option.minimum);
    const bool high = std::isfinite(option.maximum);
    if (low && high) return fmt::format(" from {} to {}", option.minimum, option.maximum);
    if (low) return fmt::format(" of at least {}", option.minimum);
    if (high) return fmt::format(" of at most {}", option.maximum);
    return {};
}

struct Expectation {
    const Option& option;
    std::string operator()(const bool*) const { return "true or false"; }
    std::string operator()(const std::int64_t*) const {
        return fmt::format("a whole number{}", range_text(option));
    }
    std::string operator()(const double*) const {
        return fmt::format("a number{}", range_text(option));
    }
    std::string operator()(const std::string*) const {
        if (option.choices.empty()) return "text";
        return fmt::format("one of {}", fmt::join(option.choices, ", "));
    }
    std::string operator()(const std::vector<std::string>*) const {
        if (option.choices.empty()) return "words with commas between them";
        return fmt::format("words with commas between them, each one of {}",
                           fmt::join(option.choices, ", "));
    }
    std::string operator()(const std::vector<double>*) const {
        return fmt::format("numbers{} with commas between them", range_text(option));
    }
};

}  // namespace

std::string expected_text(const Option& option) {
    return std::visit(Expectation{option}, option.target);
}

std::string parse_option(const Option& option, std::string_view text) {
    const auto wrong = std::visit(Reader{option, text}, option.target);
    if (!wrong) return {};
    const std::string near = nearest(*wrong, option.choices);
    return fmt::format("expected {}, found '{}'{}", expected_text(option), *wrong,
                       near.empty() ? "" : fmt::format("; did you mean {}?", near));
}

}  // namespace rankwise::app
