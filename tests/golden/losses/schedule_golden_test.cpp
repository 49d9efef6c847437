// Learning rates against those of transformers.get_scheduler.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "src/base/error.hpp"
#include "src/update/schedule.hpp"
#include "tests/support/test_data.hpp"

namespace rankwise::update {
namespace {

using Json = nlohmann::json;

Schedule schedule_of(const Json& json) {
    Schedule schedule{.name = json.at("name"),
                      .base_lr = json.at("base_lr"),
                      .warmup_steps = json.at("num_warmup_steps"),
                      .training_steps = json.at("num_training_steps")};
    const Json& extra = json.at("extra");
    if (extra.contains("num_cycles")) schedule.num_cycles = extra.at("num_cycles");
    if (extra.contains("min_lr_rate")) schedule.min_lr_ratio = extra.at("min_lr_rate");
    if (extra.contains("min_lr_ratio")) schedule.min_lr_ratio = extra.at("min_lr_ratio");
    if (extra.contains("min_lr"))
        schedule.min_lr_ratio = extra.at("min_lr").get<double>() / schedule.base_lr;
    if (extra.contains("num_decay_steps")) schedule.decay_steps = extra.at("num_decay_steps");
    if (extra.contains("decay_type")) schedule.decay_type = extra.at("decay_type");
    if (extra.contains("warmup_type")) schedule.warmup_type = extra.at("warmup_type");
    return schedule;
}

TEST(ScheduleGoldens, AreTheRatesOfGetScheduler) {
    const auto folder = test::data_folder();
    if (!folder) GTEST_SKIP() << "no test data folder";
    std::ifstream file(*folder / "schedule_goldens.json");
    const Json goldens = Json::parse(file);
    for (const Json& json : goldens.at("schedules")) {
        SCOPED_TRACE(json.at("id").dump() + " " + json.at("name").get<std::string>());
        const Schedule schedule = schedule_of(json);
        for (std::size_t i = 0; i < json.at("steps").size(); ++i) {
            const double expected = json.at("lr")[i];
            EXPECT_NEAR(learning_rate(schedule, json.at("steps")[i]), expected,
                        1e-12 * schedule.base_lr)
                << "step " << json.at("steps")[i];
        }
    }
}

TEST(Schedule, AnUnknownNameIsRefused) {
    EXPECT_THROW((void)learning_rate({.name = "square"}, 3), BadInput);
}

}  // namespace
}  // namespace rankwise::update
