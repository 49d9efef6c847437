#include "src/stages/stage.hpp"

namespace rankwise::stages {

model::Residence Environment::residence(const std::string& model) const {
    return {.where = physical.reference,
            .files = files,
            .file = offload_folder / fmt::format("{}.rank_{:05}", model, mesh.world().rank()),
            .planning = planning};
}

void PhaseTimer::enter(const std::string& phase) {
    close();
    phase_ = phase;
    if (environment_.enter_phase) environment_.enter_phase(phase, step_ + 1);
}

void PhaseTimer::close() {
    const double now_s = environment_.clock.now_s();
    if (!phase_.empty()) {
        auto found = times_.begin();
        while (found != times_.end() && found->first != phase_) ++found;
        if (found == times_.end()) found = times_.insert(times_.end(), {phase_, 0.0});
        found->second += now_s - phase_begin_s_;
    }
    phase_begin_s_ = now_s;
    phase_.clear();
}

void PhaseTimer::finish(io::MetricLine& metrics) {
    close();
    for (const auto& [phase, seconds] : times_) metrics.emplace_back("time/" + phase, seconds);
    metrics.emplace_back("step_time", total_s());
}

}  // namespace rankwise::stages
