#include "src/base/trajectory.hpp"

namespace rankwise {

std::int64_t Trajectory::prompt_size() const {
    for (const Segment& segment : segments) {
        if (segment.trainable) return segment.begin;
    }
    return static_cast<std::int64_t>(tokens.size());
}

const char* name_of(FinishReason reason) {
    switch (reason) {
        case FinishReason::unfinished:
            return "unfinished";
        case FinishReason::stop:
            return "stop";
        case FinishReason::length:
            return "length";
        case FinishReason::context:
            return "context";
    }
    return "unfinished";
}

}  // namespace rankwise
