// Where tests find data that is too large to lie in the repository.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <optional>

namespace rankwise::test {

/// The folder that RANKWISE_TEST_DATA names, else ../shared/data beside the sources; nothing if it
/// is not there. Tests that need it skip with a reason: a clone without it builds and passes.
inline std::optional<std::filesystem::path> data_folder() {
    const char* named = std::getenv("RANKWISE_TEST_DATA");
    const std::filesystem::path folder =
        named != nullptr ? std::filesystem::path(named)
                         : std::filesystem::path(RANKWISE_SOURCE_DIR) / ".." / "shared" / "data";
    std::error_code error;
    if (!std::filesystem::is_directory(folder, error)) return std::nullopt;
    return folder;
}

}  // namespace rankwise::test
