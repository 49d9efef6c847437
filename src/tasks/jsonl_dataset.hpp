// Problems and worked examples from files of JSON lines.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "src/tasks/dataset.hpp"
#include "src/text/tokenizer.hpp"

namespace rankwise::tasks {

/// Which rows of a file are taken. A row's side depends on its prompt alone: held out if
/// FNV-1a(prompt) mod 100 is below `held_out_percent`, so that equal prompts are never on both
/// sides.
enum class Split { all, train, held_out };

struct JsonlOptions {
    std::string task;  ///< for rows that don't name theirs
    std::string prompt_template = "prompt";
    Split split = Split::all;
    int held_out_percent = 10;  ///< 0..100
    std::int64_t most_line_bytes = std::int64_t{16} << 20U;
};

/// Problems in the order of the file. A row is what problem_from_json_line reads; its id is its
/// own, or its row's number from 0 (of all rows, whichever are taken).
class JsonlDataset final : public Dataset {
  public:
    /// @throws BadInput (file, line, reason) if the file is missing or empty, a line malformed, of
    /// a wrong type or too
    ///         long, an id there twice, an option out of range, or if no row is on the side that is
    ///         asked for.
    [[nodiscard]] static JsonlDataset from_file(const std::filesystem::path& path,
                                                const JsonlOptions& options = {});

    [[nodiscard]] std::optional<std::int64_t> size() const override {
        return std::ssize(problems_);
    }
    [[nodiscard]] Problem problem(std::int64_t index) const override;
    [[nodiscard]] std::string where(std::int64_t index) const override;

  private:
    std::string file_;
    std::vector<Problem> problems_;
    std::vector<std::int64_t> lines_;
};

/// Worked examples: rows with a prompt (by the template) and "completion" or "response". The
/// response's tokens end with the tokenizer's EOS; it is added where the text does not end with it.
/// A row with "prompt_ids" and "completion_ids" is taken by these ids as it is.
class JsonlDemonstrations final : public DemonstrationSet {
  public:
    /// @throws BadInput as JsonlDataset; if a response is missing or not text; if ids are not the
    /// tokenizer's; or if the tokenizer has no EOS.
    [[nodiscard]] static JsonlDemonstrations from_file(const std::filesystem::path& path,
                                                       text::Tokenizer tokenizer,
                                                       const JsonlOptions& options = {});
    [[nodiscard]] std::optional<std::int64_t> size() const override { return dataset_.size(); }
    [[nodiscard]] Demonstration demonstration(std::int64_t index) const override;
    [[nodiscard]] std::string where(std::int64_t index) const override {
        return dataset_.where(index);
    }

  private:
    JsonlDemonstrations(JsonlDataset dataset, text::Tokenizer tokenizer)
        : dataset_(std::move(dataset)), tokenizer_(std::move(tokenizer)) {}
    JsonlDataset dataset_;
    text::Tokenizer tokenizer_;
    std::vector<std::string> responses_;
    std::vector<Demonstration> given_;  ///< rows with ids; empty ones for those with text alone
};

}  // namespace rankwise::tasks
