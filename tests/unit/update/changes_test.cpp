// Whatever changes masters or moments says so before it does: what is being saved is read where it
// lies until then.
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <tuple>
#include <vector>

#include "src/update/adamw.hpp"
#include "src/update/router_bias.hpp"
#include "tests/support/small_model.hpp"

namespace rankwise::update {
namespace {

struct Change {
    std::string name;
    std::function<void()> make;
};

TEST(Changes, AreToldBeforeAnythingIsDifferent) {
    model::ModelConfig config = test::small_config(model::Family::deepseek_v3);
    config.extra_layers = 1;
    test::SmallModel model(config);
    const test::SmallModel other(config, test::plain_device(), 2);
    model.weights.use_mtp(model.compute, true);
    const parallel::ShardMap owners(model.weights.shapes(), 1, model.weights.frozen());
    sums::GradientOwners gradients(model.compute.tools(), *model.self, model.weights.shapes(),
                                   owners);
    const std::vector<float> ones(static_cast<std::size_t>(gradients.totals().size()), 1.0F);
    model.device->upload(std::span<const float>(ones), gradients.totals(), model.device.stream());
    Adamw adamw(model.compute, model.weights, owners, *model.self, 1, {});
    const std::vector<Change> changes = {
        {"a step of the optimizer", [&] { (void)adamw.step(gradients, 1e-3); }},
        {"a module's copies", [&] { model.weights.renew_mtp_copies(model.compute); }},
        {"biases of routers",
         [&] {
             level_router_biases(model.compute, model.weights, *model.self,
                                 {{}, {0, 5, 3, 3, 4, 2, 4, 3}}, 0.25);
         }},
        {"another model's weights", [&] { model.weights.copy_from(other.weights, model.compute); }},
        {"moments that are forgotten", [&] { adamw.reset(); }},
    };
    const auto state = [&] {
        return std::tuple(model.weights.digest(model.compute),
                          model.device.get(DeviceSpan<const float>(adamw.first_moments())),
                          model.device.get(DeviceSpan<const float>(adamw.second_moments())));
    };
    for (const Change& change : changes) {
        const auto before = state();
        int told = 0;
        model.compute.before_change = [&] {
            ++told;
            EXPECT_TRUE(state() == before) << change.name;
        };
        change.make();
        EXPECT_GT(told, 0) << change.name;
        EXPECT_FALSE(state() == before) << change.name;
        model.compute.before_change = {};
    }
}

}  // namespace
}  // namespace rankwise::update
