#include "src/app/sections.hpp"

#include "src/app/engine_options.hpp"
#include "src/app/recipe.hpp"
#include "src/app/run_options.hpp"
#include "src/stages/evaluate.hpp"
#include "src/stages/grpo.hpp"
#include "src/stages/sft.hpp"

namespace rankwise::app {
namespace {

/// The row of a struct whose options() lists what it holds.
template <class Options>
DeclaredSection row(std::string section, std::string kind = {}) {
    Options options;
    return describe(std::move(section), std::move(kind), options.options());
}

}  // namespace

DeclaredSection describe(std::string section, std::string kind, const OptionList& options) {
    DeclaredSection declared{std::move(section), std::move(kind), {}};
    for (const Option& option : options.options()) {
        declared.options.push_back({option.name, to_text(option.target), option.kind,
                                    expected_text(option), option.help, option.matrix_values,
                                    option.reason});
    }
    return declared;
}

std::vector<DeclaredSection> declared_sections() {
    return {
        row<RunOptions>("run"),
        row<ResumeOptions>("resume"),
        row<DeviceOptions>("device"),
        row<ParallelOptions>("parallel"),
        row<GenerationOptions>("generation"),
        row<UpdateOptions>("update"),
        row<FaultOptions>("faults"),
        row<ModelOptions>("model.policy"),
        row<stages::TaskOptions>("task"),
        row<stages::SftOptions>("stage.NAME", "sft"),
        row<stages::GrpoOptions>("stage.NAME", "grpo"),
        row<stages::EvaluateOptions>("stage.NAME", "evaluate"),
    };
}

}  // namespace rankwise::app
