#include "src/app/sections.hpp"

#include "src/app/engine_options.hpp"
#include "src/app/recipe.hpp"
#include "src/app/run_options.hpp"
#include "src/app/train_recipe.hpp"

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
    std::vector<DeclaredSection> declared{
        row<RunOptions>("run"),
        row<ResumeOptions>("resume"),
        row<DeviceOptions>("device"),
        row<ParallelOptions>("parallel"),
        row<GenerationOptions>("generation"),
        row<UpdateOptions>("update"),
        row<FaultOptions>("faults"),
        row<ModelOptions>("model.policy"),
        row<stages::TaskOptions>("task"),
    };
    NamedStage common;
    declared.push_back(describe("stage.NAME", {}, common.options()));
    for (const stages::StageKind& kind : stages::stage_kinds())
        declared.push_back(describe("stage.NAME", kind.name, kind.recipe().options));
    return declared;
}

}  // namespace rankwise::app
