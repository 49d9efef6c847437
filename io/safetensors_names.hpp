// File names of a Hugging Face model folder.
#pragma once

namespace rankwise::io {

inline constexpr const char* kSingleFile = "model.safetensors";
inline constexpr const char* kIndexFile = "model.safetensors.index.json";

}  // namespace rankwise::io
