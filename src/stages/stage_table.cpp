#include "src/stages/stage_table.hpp"

#include <array>

#include "src/stages/evaluate.hpp"
#include "src/stages/grpo.hpp"
#include "src/stages/reject.hpp"
#include "src/stages/sft.hpp"

namespace rankwise::stages {
namespace {

template <class Options, auto Make>
StageKind kind(std::string name, bool leaves_data = false) {
    return {std::move(name), [leaves_data] {
                auto options = std::make_shared<Options>();
                StageRecipe recipe{options->options(),
                                   [options](const Environment& environment) {
                                       return problems_of(environment, *options);
                                   },
                                   [options](const Environment& environment) {
                                       return Make(environment, *options);
                                   },
                                   [options] { return options->measurement(); }, leaves_data};
                recipe.updates = requires {
                    options->optimizer;
                };
                if constexpr (requires { options->trains_mtp(); })
                    recipe.trains_mtp = [options] { return options->trains_mtp(); };
                return recipe;
            }};
}

}  // namespace

std::span<const StageKind> stage_kinds() {
    static const std::array kinds{kind<SftOptions, make_sft>("sft"),
                                  kind<GrpoOptions, make_grpo>("grpo"),
                                  kind<EvaluateOptions, make_evaluate>("evaluate"),
                                  kind<RejectOptions, make_reject>("reject", true)};
    return kinds;
}

}  // namespace rankwise::stages
