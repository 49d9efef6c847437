// One finding of a comparison.
#pragma once

#include <string>

namespace rankwise::app {

/// Something that differs, and the first place where it does.
struct Difference {
    std::string place;  ///< "stage zero, step 12, update: digest/weights"
    std::string first;  ///< what run A has
    std::string second;
};

}  // namespace rankwise::app
