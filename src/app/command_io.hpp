// What a command on ranks reads and writes: rank 0 does it, in the order of the input.
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "src/app/session.hpp"

namespace rankwise::app {

/// Text that a command is given: a file, or standard input.
struct InputText {
    std::string name;  ///< for messages: the path, or "standard input"
    std::string text;
};

/// Collective. Gives rank 0's text to all.
void broadcast_text(Session& session, std::string_view label, std::string& text);

/// Collective. Rank 0 reads `path` ("-": standard input) whole and gives it to all.
/// @throws StartRefused on all ranks if it cannot be read.
[[nodiscard]] InputText read_for_all(Session& session, const std::string& path);

/// A line of a text, without its end.
struct InputLine {
    std::string_view text;
    std::string where;  ///< "prompts.txt:12"
};
/// Lines that are not blank. They view `input`.
[[nodiscard]] std::vector<InputLine> lines_of(const InputText& input);

/// Where a command writes its results: a file, or standard output. Nothing is written unless open.
class Output {
  public:
    /// @param path  empty: standard output
    /// @throws EnvironmentError if the file cannot be made.
    void open(const std::string& path);
    [[nodiscard]] bool is_open() const { return file_ != nullptr; }
    /// Writes at once: a reader sees it when this returns.
    /// @throws EnvironmentError if it cannot be written (a full disk).
    void write(std::string_view text);
    void close();

  private:
    struct Closer {
        void operator()(std::FILE* file) const {
            if (file != stdout) std::fclose(file);
        }
    };
    void check(bool written) const;

    std::string name_;
    std::unique_ptr<std::FILE, Closer> file_;
};

/// A piece of the output, and where it belongs.
struct PlacedText {
    std::int64_t place = 0;
    std::string text;
};
/// Collective. What all ranks have, by place, on rank 0; elsewhere nothing.
[[nodiscard]] std::vector<PlacedText> gather_texts(Session& session,
                                                   std::span<const PlacedText> mine);

}  // namespace rankwise::app
