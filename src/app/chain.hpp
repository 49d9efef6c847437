// The stages of a run as its recipe tells them: what each works on, starts from and learns from.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "src/app/run_records.hpp"

namespace rankwise::app {

struct ChainStage {
    std::string name = {};
    std::string kind = {};   ///< empty if the recipe does not say
    std::string model = {};  ///< [model.NAME]
    std::string shape = {};  ///< "qwen2, 4 layers of 128"; or the folder that it comes from
    std::optional<std::size_t> from = std::nullopt;  ///< stage whose weights it starts from
    std::string start = {};  ///< without such a stage: "random", or the path
    std::optional<std::size_t> data = std::nullopt;  ///< stage whose answers it learns from
};

/// In the order in which they run. Stages that the metrics know and the recipe does not (its text
/// is of another run, or lost) follow with their names alone.
/// @param recipe  recipe.ini's text; anything in it that is not understood is passed over
[[nodiscard]] std::vector<ChainStage> chain_of(std::string_view recipe,
                                               std::span<const MetricRecord> metrics);

/// Place of a stage in the chain; nothing if it is not in it.
[[nodiscard]] std::optional<std::size_t> place_of(std::span<const ChainStage> chain,
                                                  std::string_view name);

}  // namespace rankwise::app
