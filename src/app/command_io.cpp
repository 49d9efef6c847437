#include "src/app/command_io.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "src/base/error.hpp"

namespace rankwise::app {
namespace {

InputText read_whole(const std::string& path) {
    InputText input{.name = path == "-" ? "standard input" : path};
    std::FILE* file = stdin;
    if (path != "-") {
        file = std::fopen(path.c_str(), "rb");
        require(file != nullptr, "cannot read {}: {}; give a file, or - for standard input", path,
                std::strerror(errno));
    }
    std::array<char, std::size_t{1} << 16U> block{};
    while (const std::size_t size = std::fread(block.data(), 1, block.size(), file)) {
        input.text.append(block.data(), size);
    }
    const bool failed = std::ferror(file) != 0;
    const int reason = errno;
    if (file != stdin) std::fclose(file);
    require(!failed, "cannot read {}: {}", input.name, std::strerror(reason));
    return input;
}

}  // namespace

void broadcast_text(Session& session, std::string_view label, std::string& text) {
    std::array<std::int64_t, 1> size{static_cast<std::int64_t>(text.size())};
    session.world().broadcast(label, size, 0);
    text.resize(static_cast<std::size_t>(size[0]));
    session.world().broadcast(label, text, 0);
}

InputText read_for_all(Session& session, const std::string& path) {
    InputText input;
    session.start_on_main([&] { input = read_whole(path); });
    broadcast_text(session, "input:name", input.name);
    broadcast_text(session, "input:text", input.text);
    return input;
}

std::vector<InputLine> lines_of(const InputText& input) {
    std::vector<InputLine> lines;
    std::string_view rest = input.text;
    for (std::int64_t number = 1; !rest.empty(); ++number) {
        const std::size_t end = rest.find('\n');
        std::string_view line = rest.substr(0, end);
        rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + 1);
        if (line.ends_with('\r')) line.remove_suffix(1);
        if (line.find_first_not_of(" \t") == std::string_view::npos) continue;
        lines.push_back({line, fmt::format("{}:{}", input.name, number)});
    }
    return lines;
}

void Output::open(const std::string& path) {
    name_ = path.empty() ? "standard output" : path;
    file_.reset(path.empty() ? stdout : std::fopen(path.c_str(), "wb"));
    if (!file_) {
        throw EnvironmentError(fmt::format("cannot write {}: {}; check the folder and permissions",
                                           name_, std::strerror(errno)));
    }
}

void Output::write(std::string_view text) {
    if (!file_) return;
    check(std::fwrite(text.data(), 1, text.size(), file_.get()) == text.size() &&
          std::fflush(file_.get()) == 0);
}

void Output::close() {
    std::FILE* file = file_.release();
    if (file != nullptr && file != stdout) check(std::fclose(file) == 0);
}

void Output::check(bool written) const {
    if (written) return;
    throw EnvironmentError(fmt::format("cannot write {}: {}; what is there so far is not all of it",
                                       name_, std::strerror(errno)));
}

std::vector<PlacedText> gather_texts(Session& session, std::span<const PlacedText> mine) {
    struct Piece {
        std::int64_t place = 0;
        std::int64_t size = 0;
    };
    std::vector<Piece> pieces;
    std::string characters;
    for (const PlacedText& piece : mine) {
        pieces.push_back({piece.place, static_cast<std::int64_t>(piece.text.size())});
        characters += piece.text;
    }
    parallel::Communicator& world = session.world();
    const std::vector<Piece> all = world.gather_v("output:pieces", pieces, 0).values;
    const std::vector<char> text = world.gather_v("output:text", characters, 0).values;
    std::vector<PlacedText> placed;
    std::size_t at = 0;
    for (const Piece& piece : all) {
        const auto size = static_cast<std::size_t>(piece.size);
        placed.push_back({piece.place, std::string(text.data() + at, size)});
        at += size;
    }
    std::sort(placed.begin(), placed.end(),
              [](const PlacedText& a, const PlacedText& b) { return a.place < b.place; });
    return placed;
}

}  // namespace rankwise::app
