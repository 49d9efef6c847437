// The keys of config.json that the DeepSeek family has beyond others.
#pragma once

#include "src/model/config.hpp"
#include "src/model/config_fields.hpp"

namespace rankwise::model {

[[nodiscard]] inline bool is_deepseek(Family family) {
    return family == Family::deepseek_v2 || family == Family::deepseek_v3;
}

/// Fills in latent attention, experts and extra layers, and what follows from them.
/// @throws BadInput naming a key that is missing, or asks for what the program does not compute.
void read_deepseek(const Fields& fields, ModelConfig& config);

/// @throws BadInput naming the first size that does not fit.
void validate_deepseek(const ModelConfig& config, const std::string& where);

void write_deepseek(const ModelConfig& config, nlohmann::ordered_json& json);

}  // namespace rankwise::model
