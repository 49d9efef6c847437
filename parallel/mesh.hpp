// The named axes of a run.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/communicator.hpp"

namespace rankwise::parallel {

enum class Axis : std::uint8_t { data, pipeline, tensor, expert };
inline constexpr int kAxes = 4;

/// "data", "pipeline", "tensor", "expert".
[[nodiscard]] std::string_view name_of(Axis axis);

/// Degrees of the axes. data * pipeline * tensor ranks; expert divides data * tensor.
struct MeshShape {
    int data = 1;
    int pipeline = 1;
    int tensor = 1;
    int expert = 1;
    [[nodiscard]] std::int64_t ranks() const { return std::int64_t{1} * data * pipeline * tensor; }
    friend bool operator==(const MeshShape&, const MeshShape&) = default;
};
[[nodiscard]] std::string to_string(const MeshShape& shape);

/// The shape with data = 0 replaced by what is left of `world` ranks (1 if nothing fits;
/// check_shape then says so).
[[nodiscard]] MeshShape fill_data(MeshShape shape, int world);

/// What is wrong with the shape for `world` ranks: one message a problem, each listing what would
/// fit. Empty: it fits.
[[nodiscard]] std::vector<std::string> check_shape(const MeshShape& shape, int world);

/// Where a rank stands on each axis.
struct Coordinates {
    int data = 0;
    int pipeline = 0;
    int tensor = 0;
    int expert = 0;
    friend bool operator==(const Coordinates&, const Coordinates&) = default;
};

/// Rank order: tensor fastest, then data, then pipeline: rank = (pipeline * D + data) * T + tensor.
/// So tensor groups, which talk most, are neighbours on a node, and pipeline stages, which talk
/// least, are farthest apart. Inside a stage the ranks i = data * T + tensor are cut into
/// consecutive expert groups: group i / E, position i % E.
[[nodiscard]] Coordinates coordinates_of(const MeshShape& shape, int rank);
/// Inverse (the expert coordinate follows from the others).
[[nodiscard]] int rank_of(const MeshShape& shape, int data, int pipeline, int tensor);

/// One communicator for each axis, made once. A rank's position in axis(a) is its coordinate on a.
class Mesh {
  public:
    /// Collective over `world`, which must outlive the mesh.
    /// @throws BadInput with the messages of check_shape() if the shape does not fit.
    Mesh(Communicator& world, MeshShape shape);

    [[nodiscard]] Communicator& world() const { return world_; }
    [[nodiscard]] Communicator& axis(Axis axis) const {
        return *axes_[static_cast<std::size_t>(axis)];
    }
    /// The data axis once more, for gathers of weights: they are under way beside other calls,
    /// whose order they need not have. Also named "data".
    [[nodiscard]] Communicator& weights() const { return *weights_; }
    [[nodiscard]] const MeshShape& shape() const { return shape_; }
    [[nodiscard]] const Coordinates& coordinates() const { return coordinates_; }
    [[nodiscard]] int degree(Axis axis) const { return this->axis(axis).size(); }

  private:
    Communicator& world_;
    MeshShape shape_;
    Coordinates coordinates_;
    std::array<std::unique_ptr<Communicator>, kAxes> axes_;
    std::unique_ptr<Communicator> weights_;
};

}  // namespace rankwise::parallel
