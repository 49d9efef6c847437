#include "parallel/mesh.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "src/base/error.hpp"

namespace rankwise::parallel {

namespace {

std::vector<int> divisors(int n) {
    std::vector<int> result;
    for (int d = 1; d <= n; ++d) {
        if (n % d == 0) result.push_back(d);
    }
    return result;
}

// Shapes of `world` ranks, those that share most degrees with `wanted` first.
std::string fitting(const MeshShape& wanted, int world) {
    struct Choice {
        int shared;
        MeshShape shape;
    };
    std::vector<Choice> choices;
    for (const int pipeline : divisors(world)) {
        for (const int tensor : divisors(world / pipeline)) {
            const MeshShape shape{world / pipeline / tensor, pipeline, tensor, 1};
            const int shared = int{shape.data == wanted.data} + int{pipeline == wanted.pipeline} +
                               int{tensor == wanted.tensor};
            choices.push_back({shared, shape});
        }
    }
    std::stable_sort(choices.begin(), choices.end(),
                     [](const Choice& a, const Choice& b) { return a.shared > b.shared; });
    constexpr std::size_t kShown = 8;
    std::vector<std::string> shown;
    for (const Choice& choice : choices) {
        if (shown.size() == kShown) break;
        shown.push_back(fmt::format("{} x {} x {}", choice.shape.data, choice.shape.pipeline,
                                    choice.shape.tensor));
    }
    return fmt::format("{}{}", fmt::join(shown, ", "), choices.size() > kShown ? ", …" : "");
}

}  // namespace

std::string_view name_of(Axis axis) {
    constexpr std::string_view kNames[] = {"data", "pipeline", "tensor", "expert"};
    return kNames[static_cast<std::size_t>(axis)];
}

std::string to_string(const MeshShape& shape) {
    return fmt::format("data {} x pipeline {} x tensor {} (expert {})", shape.data, shape.pipeline,
                       shape.tensor, shape.expert);
}

MeshShape fill_data(MeshShape shape, int world) {
    if (shape.data != 0) return shape;
    const std::int64_t others = std::int64_t{1} * shape.pipeline * shape.tensor;
    shape.data = others > 0 && world % others == 0 ? static_cast<int>(world / others) : 1;
    return shape;
}

std::vector<std::string> check_shape(const MeshShape& shape, int world) {
    std::vector<std::string> problems;
    const std::pair<Axis, int> degrees[] = {{Axis::data, shape.data},
                                            {Axis::pipeline, shape.pipeline},
                                            {Axis::tensor, shape.tensor},
                                            {Axis::expert, shape.expert}};
    for (const auto& [axis, degree] : degrees) {
        if (degree < 1) {
            problems.push_back(fmt::format("parallel.{} = {}: expected a degree of at least 1",
                                           name_of(axis), degree));
        }
    }
    if (!problems.empty()) return problems;
    if (shape.ranks() != world) {
        problems.push_back(fmt::format(
            "parallel.data x pipeline x tensor = {} x {} x {} = {} ranks, but {} {} started: start "
            "{}, or choose one of {}",
            shape.data, shape.pipeline, shape.tensor, shape.ranks(), world,
            world == 1 ? "was" : "were", shape.ranks(), fitting(shape, world)));
    }
    const std::int64_t stage = std::int64_t{1} * shape.data * shape.tensor;
    if (stage % shape.expert != 0) {
        problems.push_back(fmt::format(
            "parallel.expert = {} does not divide data x tensor = {} x {} = {}: choose one of {}",
            shape.expert, shape.data, shape.tensor, stage,
            fmt::join(divisors(static_cast<int>(stage)), ", ")));
    }
    return problems;
}

Coordinates coordinates_of(const MeshShape& shape, int rank) {
    const int in_stage = rank % (shape.data * shape.tensor);
    return {.data = in_stage / shape.tensor,
            .pipeline = rank / (shape.data * shape.tensor),
            .tensor = in_stage % shape.tensor,
            .expert = in_stage % shape.expert};
}

int rank_of(const MeshShape& shape, int data, int pipeline, int tensor) {
    return (pipeline * shape.data + data) * shape.tensor + tensor;
}

Mesh::Mesh(Communicator& world, MeshShape shape) : world_(world), shape_(shape) {
    const auto problems = check_shape(shape, world.size());
    require(problems.empty(), "{}", fmt::join(problems, "\n"));
    coordinates_ = coordinates_of(shape, world.rank());
    const auto& at = coordinates_;
    const int in_stage = at.data * shape.tensor + at.tensor;
    const auto make = [&](Axis axis, int color, int key) {
        axes_[static_cast<std::size_t>(axis)] = world.split(color, key, name_of(axis));
    };
    const int among_data = at.pipeline * shape.tensor + at.tensor;
    make(Axis::data, among_data, at.data);
    weights_ = world.split(among_data, at.data, name_of(Axis::data));
    make(Axis::pipeline, in_stage, at.pipeline);
    make(Axis::tensor, at.pipeline * shape.data + at.data, at.tensor);
    make(Axis::expert,
         at.pipeline * (shape.data * shape.tensor / shape.expert) + in_stage / shape.expert,
         at.expert);
}

}  // namespace rankwise::parallel
