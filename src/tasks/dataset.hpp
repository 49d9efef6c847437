// Problems and worked examples, addressed by index.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "src/base/trajectory.hpp"
#include "src/tasks/problem.hpp"

namespace rankwise::tasks {

/// A source of problems. problem(i) depends on the data (or the generator's seed) and on i alone,
/// so that any rank can make any problem without asking another. Const members may be called from
/// several threads at once.
class Dataset {
  public:
    virtual ~Dataset() = default;
    /// Number of problems; nothing if the set is a generator without end.
    [[nodiscard]] virtual std::optional<std::int64_t> size() const = 0;
    /// @throws InternalError if index is negative or not below size().
    [[nodiscard]] virtual Problem problem(std::int64_t index) const = 0;
    /// Where it comes from, for messages: a file and line, if it comes from a file.
    [[nodiscard]] virtual std::string where(std::int64_t index) const {
        return "problem " + std::to_string(index);
    }
};

/// A prompt with a response to imitate. The response ends with the id that ends an answer.
struct Demonstration {
    std::uint64_t id = 0;
    std::vector<TokenId> prompt;
    std::vector<TokenId> response;
    friend bool operator==(const Demonstration&, const Demonstration&) = default;
};

/// A source of worked examples, under the same rules as Dataset.
class DemonstrationSet {
  public:
    virtual ~DemonstrationSet() = default;
    [[nodiscard]] virtual std::optional<std::int64_t> size() const = 0;
    [[nodiscard]] virtual Demonstration demonstration(std::int64_t index) const = 0;
    [[nodiscard]] virtual std::string where(std::int64_t index) const {
        return "worked example " + std::to_string(index);
    }
};

}  // namespace rankwise::tasks
