#include "src/app/chain.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "src/app/trim.hpp"

namespace rankwise::app {
namespace {

using Values = std::map<std::string, std::string, std::less<>>;

/// "section.key" and its value.
Values values_of(std::string_view recipe) {
    Values values;
    std::string section;
    while (!recipe.empty()) {
        const std::size_t end = std::min(recipe.find('\n'), recipe.size());
        std::string_view line = recipe.substr(0, end);
        recipe.remove_prefix(std::min(end + 1, recipe.size()));
        line = trim(line.substr(0, line.find('#')));
        if (line.starts_with('[')) section = line.substr(1, line.find(']') - 1);
        const std::size_t equals = line.find('=');
        if (equals == std::string_view::npos) continue;
        values[fmt::format("{}.{}", section, trim(line.substr(0, equals)))] =
            trim(line.substr(equals + 1));
    }
    return values;
}

std::string value_of(const Values& values, std::string_view section, std::string_view key) {
    const auto found = values.find(fmt::format("{}.{}", section, key));
    return found == values.end() ? std::string() : found->second;
}

std::string shape_of(const Values& values, const std::string& model) {
    const std::string section = "model." + model;
    const std::string folder = value_of(values, section, "folder");
    if (!folder.empty()) return folder;
    const std::string layers = value_of(values, section, "num_hidden_layers");
    const std::string width = value_of(values, section, "hidden_size");
    if (layers.empty() || width.empty()) return {};
    return fmt::format("{}, {} layer{} of {}", value_of(values, section, "family"), layers,
                       layers == "1" ? "" : "s", width);
}

std::vector<std::string> names_in(std::string_view list) {
    std::vector<std::string> names;
    while (!list.empty()) {
        const std::size_t comma = std::min(list.find(','), list.size());
        const std::string_view name = trim(list.substr(0, comma));
        if (!name.empty()) names.emplace_back(name);
        list.remove_prefix(std::min(comma + 1, list.size()));
    }
    return names;
}

/// The last stage with this model; every stage leaves weights, one that only measures the same.
std::optional<std::size_t> last_with(std::span<const ChainStage> chain, std::string_view model) {
    for (std::size_t i = chain.size(); i-- > 0;) {
        if (chain[i].model == model) return i;
    }
    return std::nullopt;
}

}  // namespace

std::optional<std::size_t> place_of(std::span<const ChainStage> chain, std::string_view name) {
    const auto found = std::find_if(chain.begin(), chain.end(),
                                    [&](const ChainStage& stage) { return stage.name == name; });
    if (found == chain.end()) return std::nullopt;
    return static_cast<std::size_t>(found - chain.begin());
}

std::vector<ChainStage> chain_of(std::string_view recipe, std::span<const MetricRecord> metrics) {
    const Values values = values_of(recipe);
    std::vector<std::string> names = names_in(value_of(values, "run", "stages"));
    for (const MetricRecord& record : metrics) {
        if (std::find(names.begin(), names.end(), record.stage) == names.end())
            names.push_back(record.stage);
    }
    std::vector<ChainStage> chain;
    for (const std::string& name : names) {
        const std::string section = "stage." + name;
        ChainStage stage{.name = name,
                         .kind = value_of(values, section, "kind"),
                         .model = value_of(values, section, "model")};
        if (stage.model.empty()) stage.model = "policy";
        stage.shape = shape_of(values, stage.model);
        stage.start = value_of(values, section, "start_from");
        stage.from =
            stage.start.empty() ? last_with(chain, stage.model) : place_of(chain, stage.start);
        if (stage.from) stage.start.clear();
        if (!stage.from && stage.start.empty()) {
            const std::string folder = value_of(values, "model." + stage.model, "folder");
            stage.start = folder.empty() ? "random" : folder;
        }
        stage.data = place_of(chain, value_of(values, section, "data"));
        chain.push_back(std::move(stage));
    }
    return chain;
}

}  // namespace rankwise::app
