// The one description of a model's parameters that weights, gradients, optimizer state,
// checkpoints, Hugging Face files and the memory planner all use.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "src/base/box.hpp"
#include "src/base/dtype.hpp"
#include "src/base/reduction.hpp"

namespace rankwise {

/// How a parameter is cut over the tensor axis.
enum class TensorSplit : std::uint8_t {
    none,     ///< every tensor rank holds it whole (norms, router)
    rows,     ///< output rows, at leaf borders (column-split linear layers, embedding, head)
    columns,  ///< input columns, at leaf borders (row-split linear layers)
};

/// One parameter, under its Hugging Face name.
struct Parameter {
    std::string name;
    Shape shape;
    TensorSplit split = TensorSplit::none;
    std::int64_t leaf_unit =
        16;  ///< elements a leaf border is a multiple of, along the split dimension
    std::int64_t leaf_parts =
        0;  ///< for KV heads, fewer than leaves: cut into this many parts (0: as many as leaves)
    int layer = -1;       ///< decoder layer, or -1 for embedding, final norm and head
    int expert = -1;      ///< routed expert of the layer, or -1
    int experts = 0;      ///< how many of them the layer has
    bool decay = true;    ///< weight decay applies (matrices; a recipe may ask for all)
    bool trained = true;  ///< false: kept, saved and exported as it is; no gradient, no optimizer
};

/// Position of a parameter in its table.
using ParameterId = std::int32_t;

/// Parameters in canonical order: embedding, layers ascending (tensors in the order of the forward
/// pass), final norm, head. The order is part of the file formats.
class ParameterTable {
  public:
    /// @throws InternalError on a repeated name.
    ParameterId add(Parameter parameter);

    [[nodiscard]] std::int64_t count() const { return static_cast<std::int64_t>(rows_.size()); }
    [[nodiscard]] const Parameter& operator[](ParameterId id) const {
        return rows_[static_cast<std::size_t>(id)];
    }
    /// @throws InternalError if there is no such parameter.
    [[nodiscard]] ParameterId id(std::string_view name) const;
    [[nodiscard]] bool has(std::string_view name) const;
    [[nodiscard]] std::span<const Parameter> rows() const { return rows_; }
    /// Elements of all parameters.
    [[nodiscard]] std::int64_t elements() const;

  private:
    std::vector<Parameter> rows_;
    std::unordered_map<std::string, ParameterId> ids_;
};

/// ZeRO's row range of a parameter for data rank `rank` of `ranks`: whole rows, ascending with the
/// ranks, as even as rows allow; a vector is one row and so belongs to one rank. `turn` spreads the
/// single rows of many vectors over the ranks.
[[nodiscard]] Range zero_rows(Shape shape, std::int64_t ranks, std::int64_t rank,
                              std::int64_t turn);

}  // namespace rankwise
