#include "src/text/byte_level.hpp"

#include <array>

#include "src/text/utf8.hpp"

namespace rankwise::text {
namespace {

// Printable Latin-1 bytes stand for themselves; the 68 others get the code points from 256 on, in
// order of the bytes.
constexpr bool stands_for_itself(int byte) {
    return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) ||
           (byte >= 0xAE && byte <= 0xFF);
}

struct Alphabet {
    std::array<char32_t, 256> character{};
    std::array<int, 0x180> byte{};  // by code point; -1 if it is no character of the alphabet
};

constexpr Alphabet make_alphabet() {
    Alphabet alphabet;
    for (int& byte : alphabet.byte) byte = -1;
    char32_t next = 256;
    for (int byte = 0; byte < 256; ++byte) {
        const char32_t character = stands_for_itself(byte) ? static_cast<char32_t>(byte) : next++;
        alphabet.character[static_cast<std::size_t>(byte)] = character;
        alphabet.byte[character] = byte;
    }
    return alphabet;
}

constexpr Alphabet kAlphabet = make_alphabet();

}  // namespace

void append_byte_level(std::string& out, std::string_view bytes) {
    for (const char byte : bytes) {
        append_utf8(out, kAlphabet.character[static_cast<unsigned char>(byte)]);
    }
}

std::optional<std::string> bytes_of_byte_level(std::string_view token) {
    std::string bytes;
    for (std::size_t at = 0; at < token.size();) {
        const char32_t character = next_code_point(token, at);
        if (character >= kAlphabet.byte.size() || kAlphabet.byte[character] < 0)
            return std::nullopt;
        bytes.push_back(static_cast<char>(kAlphabet.byte[character]));
    }
    return bytes;
}

}  // namespace rankwise::text
