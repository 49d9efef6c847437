#include "src/tasks/python_expression.hpp"

#include <boost/multiprecision/cpp_int.hpp>
#include <charconv>
#include <cmath>
#include <string>
#include <variant>

#include "src/base/maths.hpp"

namespace rankwise::tasks {
namespace {

using Int = boost::multiprecision::cpp_int;
using Number = std::variant<Int, double>;

// CPython's tokenizer refuses deeper parentheses; signs and powers inside each other are bounded
// the same way.
constexpr int kDeepest = 200;
constexpr unsigned kMostBits = 65536;
constexpr std::size_t kMostDigits = 4300;  // CPython's limit for the text of a whole number

/// Python would raise an error.
struct Raised {};

unsigned bits_of(const Int& value) {
    return value == 0 ? 0 : static_cast<unsigned>(msb(abs(value))) + 1;
}

Int bounded(Int value) {
    if (bits_of(value) > kMostBits) throw Raised{};
    return value;
}

double finite(double value) {
    if (!std::isfinite(value)) throw Raised{};
    return value;
}

// numerator / denominator, both positive, rounded once to nearest even: a quotient of at least 55
// bits whose last bit also stands for what is below it.
double positive_ratio(const Int& numerator, const Int& denominator) {
    const int shift =
        55 - (static_cast<int>(bits_of(numerator)) - static_cast<int>(bits_of(denominator)));
    const Int up = shift > 0 ? Int(numerator << static_cast<unsigned>(shift)) : numerator;
    const Int down = shift < 0 ? Int(denominator << static_cast<unsigned>(-shift)) : denominator;
    Int quotient;
    Int rest;
    divide_qr(up, down, quotient, rest);
    auto mantissa = static_cast<std::uint64_t>(quotient);
    if (rest != 0) mantissa |= 1U;
    return finite(std::ldexp(static_cast<double>(mantissa), -shift));
}

double ratio(const Int& a, const Int& b) {
    if (b == 0) throw Raised{};
    if (a == 0) return b < 0 ? -0.0 : 0.0;
    const double value = positive_ratio(abs(a), abs(b));
    return (a < 0) != (b < 0) ? -value : value;
}

double to_double(const Number& value) {
    if (const auto* whole = std::get_if<Int>(&value)) return ratio(*whole, 1);
    return std::get<double>(value);
}

Int floor_divide(const Int& a, const Int& b) {
    if (b == 0) throw Raised{};
    Int quotient;
    Int rest;
    divide_qr(a, b, quotient, rest);
    if (rest != 0 && (rest < 0) != (b < 0)) --quotient;
    return quotient;
}

// CPython's float_floor_div: from the remainder, so that it agrees with %.
double floor_divide(double a, double b) {
    if (b == 0.0) throw Raised{};
    const double rest = std::fmod(a, b);
    double quotient = (a - rest) / b;
    if (rest != 0.0 && (b < 0.0) != (rest < 0.0)) quotient -= 1.0;
    if (quotient == 0.0) return std::copysign(0.0, a / b);
    const double floored = std::floor(quotient);
    return quotient - floored > 0.5 ? floored + 1.0 : floored;
}

double power(double base, double exponent) {
    if (!std::isfinite(base) || !std::isfinite(exponent)) throw Raised{};
    if (exponent == 0.0 || base == 1.0) return 1.0;
    if (base == 0.0) {
        if (exponent < 0.0) throw Raised{};
        return 0.0;
    }
    const bool whole = std::floor(exponent) == exponent;
    if (base < 0.0 && !whole) throw Raised{};  // a complex number
    const double value = maths::pow(std::fabs(base), exponent);
    return finite(base < 0.0 && std::fmod(exponent, 2.0) != 0.0 ? -value : value);
}

Number power(const Int& base, const Int& exponent) {
    if (exponent < 0) return power(to_double(base), to_double(exponent));
    if (exponent == 0 || base == 1) return Int(1);
    if (base == 0) return Int(0);
    if (base == -1) return Int(exponent % 2 == 0 ? 1 : -1);
    if (exponent > kMostBits ||
        (bits_of(base) - 1) * static_cast<std::uint64_t>(exponent) > kMostBits)
        throw Raised{};
    return bounded(pow(base, static_cast<unsigned>(exponent)));
}

enum class Op { add, subtract, multiply, divide, floor_divide, power };

Number apply(Op op, const Number& a, const Number& b) {
    if (std::holds_alternative<Int>(a) && std::holds_alternative<Int>(b)) {
        const Int& x = std::get<Int>(a);
        const Int& y = std::get<Int>(b);
        switch (op) {
            case Op::add:
                return bounded(x + y);
            case Op::subtract:
                return bounded(x - y);
            case Op::multiply:
                return bounded(x * y);
            case Op::divide:
                return ratio(x, y);
            case Op::floor_divide:
                return floor_divide(x, y);
            case Op::power:
                return power(x, y);
        }
    }
    const double x = to_double(a);
    const double y = to_double(b);
    switch (op) {
        case Op::add:
            return x + y;
        case Op::subtract:
            return x - y;
        case Op::multiply:
            return x * y;
        case Op::divide:
            if (y == 0.0) throw Raised{};
            return x / y;
        case Op::floor_divide:
            return floor_divide(x, y);
        case Op::power:
            return power(x, y);
    }
    throw Raised{};
}

Number negate(const Number& value) {
    if (const auto* whole = std::get_if<Int>(&value)) return Int(-*whole);
    return -std::get<double>(value);
}

// Python's grammar: sum: term (+|- term)*; term: factor (*|/|// factor)*; factor: (+|-) factor |
// atom [** factor].
class Parser {
  public:
    explicit Parser(std::string_view text) : text_(text) {}

    Number whole() {
        Number value = sum();
        skip_space();
        if (at_ != text_.size()) throw Raised{};
        return value;
    }

  private:
    Number sum() {
        Number value = term();
        while (true) {
            if (take("+")) {
                value = apply(Op::add, value, term());
            } else if (take("-")) {
                value = apply(Op::subtract, value, term());
            } else {
                return value;
            }
        }
    }

    Number term() {
        Number value = factor();
        while (true) {
            if (take("//")) {
                value = apply(Op::floor_divide, value, factor());
            } else if (take("/")) {
                value = apply(Op::divide, value, factor());
            } else if (!next_is("**") && take("*")) {
                value = apply(Op::multiply, value, factor());
            } else {
                return value;
            }
        }
    }

    Number factor() {
        const Deeper deeper(*this);
        if (take("+")) return factor();
        if (take("-")) return negate(factor());
        Number base = atom();
        if (!take("**")) return base;
        return apply(Op::power, base, factor());
    }

    Number atom() {
        if (!take("(")) return number();
        ++parentheses_;
        Number value = sum();
        if (!take(")")) throw Raised{};
        --parentheses_;
        return value;
    }

    // 12, 0, 00, 1.5, 1., .5, 007.5; not 012.
    Number number() {
        skip_space();
        const std::size_t begin = at_;
        const std::size_t digits = skip_digits();
        if (at_ == text_.size() || text_[at_] != '.')
            return whole_number(text_.substr(begin, digits));
        ++at_;
        if (digits + skip_digits() == 0) throw Raised{};
        double value = 0.0;
        const char* end = text_.data() + at_;
        const auto [stop, error] =
            std::from_chars(text_.data() + begin, end, value, std::chars_format::fixed);
        if (error != std::errc{} || stop != end) throw Raised{};
        return value;
    }

    static Number whole_number(std::string_view digits) {
        if (digits.empty() || digits.size() > kMostDigits) throw Raised{};
        const std::size_t first = digits.find_first_not_of('0');
        if (first == std::string_view::npos) return Int(0);
        if (first > 0) throw Raised{};
        return Int(std::string(digits));
    }

    std::size_t skip_digits() {
        const std::size_t begin = at_;
        while (at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9') ++at_;
        return at_ - begin;
    }

    // A line end is white space inside parentheses only.
    void skip_space() {
        while (at_ < text_.size()) {
            const char c = text_[at_];
            const bool space = c == ' ' || c == '\t' || c == '\f';
            const bool line_end = c == '\n' || c == '\r';
            if (!space && !(line_end && parentheses_ > 0)) return;
            ++at_;
        }
    }

    bool next_is(std::string_view token) {
        skip_space();
        return text_.substr(at_).starts_with(token);
    }

    bool take(std::string_view token) {
        if (!next_is(token)) return false;
        at_ += token.size();
        return true;
    }

    struct Deeper {
        explicit Deeper(Parser& parser) : parser_(parser) {
            if (++parser_.depth_ > kDeepest + 1) throw Raised{};
        }
        ~Deeper() { --parser_.depth_; }
        Deeper(const Deeper&) = delete;
        Deeper& operator=(const Deeper&) = delete;
        Parser& parser_;
    };

    std::string_view text_;
    std::size_t at_ = 0;
    int parentheses_ = 0;
    int depth_ = 0;
};

}  // namespace

std::optional<double> python_distance(std::string_view expression, std::int64_t target) {
    try {
        const Number value = Parser(expression).whole();
        if (const auto* whole = std::get_if<Int>(&value)) {
            const Int distance = abs(Int(*whole - target));
            // Python compares whole numbers with floats exactly; no distance is too large to be one
            // here.
            return bits_of(distance) > 1000 ? HUGE_VAL : to_double(distance);
        }
        const double distance = std::fabs(std::get<double>(value) - to_double(Int(target)));
        if (std::isnan(distance)) return std::nullopt;
        return distance;
    } catch (const Raised&) {
        return std::nullopt;
    }
}

}  // namespace rankwise::tasks
