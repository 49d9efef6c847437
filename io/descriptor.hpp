// A file descriptor that closes itself.
#pragma once

#include <unistd.h>

#include "src/base/unique_handle.hpp"

namespace rankwise::io {

inline void close_descriptor(int descriptor) {
    ::close(descriptor);
}
using Descriptor = UniqueHandle<int, close_descriptor, -1>;

}  // namespace rankwise::io
