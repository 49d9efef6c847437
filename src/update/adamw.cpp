#include "src/update/adamw.hpp"

#include <algorithm>
#include <cmath>

#include "src/base/exact_sum.hpp"
#include "src/base/maths.hpp"

namespace rankwise::update {
namespace {

using kernels::Matrix;
using parallel::ShardPiece;

/// The trained parameters of a layer (-1: of none).
struct LayerGroup {
    std::vector<ParameterId> whole;   ///< of which each data rank has all
    std::vector<ParameterId> shared;  ///< experts of this rank, where data ranks share them out
};

LayerGroup group_of(const model::Weights& weights, int layer) {
    LayerGroup group;
    for (ParameterId id = 0; id < weights.table().count(); ++id) {
        const Parameter& parameter = weights.table()[id];
        if (parameter.layer != layer || weights.frozen()[static_cast<std::size_t>(id)]) continue;
        const parallel::DataRanks ranks = weights.data_ranks()[static_cast<std::size_t>(id)];
        if (ranks.stride == 1) {
            group.whole.push_back(id);
        } else if (ranks.contains(weights.experts().data_rank)) {
            group.shared.push_back(id);
        }
    }
    return group;
}

}  // namespace

double gradient_norm(const sums::GradientOwners& gradients, const model::Weights& weights,
                     model::Compute& compute) {
    parallel::Communicator& data = gradients.data();
    std::vector<double> sums;
    double largest = 0.0;
    bool finite = true;
    for (const ShardPiece& piece : gradients.owners().pieces(data.rank())) {
        if (!weights.counts(piece.parameter)) continue;
        const std::vector<Range> columns = weights.digest_pieces(piece.parameter);
        const std::size_t begin = sums.size();
        sums.resize(begin + static_cast<std::size_t>(piece.rows.size()) * columns.size());
        const auto part = std::span(sums).subspan(begin);
        compute.device.squared_row_sums(
            {.x = gradients.total(piece), .pieces = columns, .sums = part}, compute.stream);
        for (const double sum : part) {
            finite = finite && std::isfinite(sum);
            largest = std::max(largest, sum);
        }
    }
    // Over the data axis, then over those of the model: integers and maxima, exact in any order.
    const auto over_ranks = [&](const auto& reduce) {
        reduce(data);
        weights.for_model_axes(reduce);
    };
    std::int64_t all_finite = finite ? 1 : 0;
    over_ranks([&](parallel::Communicator& axis) {
        all_finite = axis.all_reduce_min("gradient norm", all_finite);
    });
    if (all_finite == 0) {
        throw BadNumbers(
            "the gradient is not finite: the learning rate may be too high, or a weight or loss "
            "was not finite before; the last checkpoint is from before it");
    }
    over_ranks([&](parallel::Communicator& axis) {
        largest = axis.all_reduce_max("gradient norm", largest);
    });
    const int exponent = largest > 0.0 ? scale_exponent(largest) : 0;
    UInt128 total;
    for (const double sum : sums) total += to_fixed(sum, exponent);
    over_ranks(
        [&](parallel::Communicator& axis) { total = axis.all_reduce_sum("gradient norm", total); });
    return std::sqrt(from_fixed(total, exponent));
}

Adamw::Adamw(model::Compute& compute, model::Weights& weights, const parallel::ShardMap& owners,
             parallel::Communicator& data, int zero, AdamwOptions options)
    : compute_(compute),
      weights_(weights),
      owners_(owners),
      data_(data),
      options_(options),
      held_(zero == 0 ? parallel::ShardMap(weights.shapes(), 1, weights.without_moments())
                      : owners),
      held_rank_(zero == 0 ? 0 : data.rank()),
      m_(compute.device, held_.size(held_rank_)),
      v_(compute.device, held_.size(held_rank_)) {
    reset();
}

std::span<const ShardPiece> Adamw::pieces() const {
    return held_.pieces(held_rank_);
}

void Adamw::reset() {
    compute_.will_change();
    compute_.device.zero(cast_span<std::byte>(m_.span()), compute_.stream);
    compute_.device.zero(cast_span<std::byte>(v_.span()), compute_.stream);
    steps_ = 0;
}

double Adamw::step(const sums::GradientOwners& gradients, double lr) {
    const double norm = gradient_norm(gradients, weights_, compute_);
    double scale = 1.0;
    if (options_.max_grad_norm > 0.0) scale = std::min(1.0, options_.max_grad_norm / (norm + 1e-6));
    compute_.will_change();
    ++steps_;
    const double correction1 = 1.0 - maths::pow(options_.beta1, static_cast<double>(steps_));
    const double correction2 = 1.0 - maths::pow(options_.beta2, static_cast<double>(steps_));
    const auto apply = [&](const ShardPiece& piece, DeviceSpan<const float> grad) {
        const Parameter& parameter = weights_.table()[piece.parameter];
        const bool decays = parameter.decay || options_.decay_vectors;
        compute_.device.adamw(
            {.parameter =
                 weights_.master_span(piece.parameter)
                     .subspan((piece.rows.begin - weights_.held_rows(piece.parameter).begin) *
                                  weights_.shape(piece.parameter).cols,
                              piece.size),
             .grad = grad,
             .m = m_.span().subspan(piece.offset, piece.size),
             .v = v_.span().subspan(piece.offset, piece.size),
             .lr = static_cast<float>(lr),
             .beta1 = options_.beta1,
             .beta2 = options_.beta2,
             .eps = static_cast<float>(options_.eps),
             .weight_decay = decays ? static_cast<float>(options_.weight_decay) : 0.0F,
             .correction1 = static_cast<float>(correction1),
             .correction2 = static_cast<float>(correction2),
             .grad_scale = static_cast<float>(scale)},
            compute_.stream);
    };
    const bool owns_all_moments = held_.ranks() == 1 && data_.size() > 1;
    const sums::Tools tools = compute_.tools();
    const std::int64_t layers = weights_.config().layers;
    for (int layer = -1; layer < layers + (weights_.uses_mtp() ? 1 : 0); ++layer) {
        const model::PipelinePart& part = weights_.pipeline_part();
        if (layer >= 0 && !(layer < layers ? part.holds_layer(layer) : part.has_head)) continue;
        const LayerGroup groups = group_of(weights_, layer);
        std::vector<ParameterId> group = groups.whole;
        group.insert(group.end(), groups.shared.begin(), groups.shared.end());
        const auto gather = [&](std::string_view label,
                                const std::function<Matrix(ParameterId)>& whole) {
            sums::all_gather_rows(tools, data_, label, owners_, groups.whole, whole);
            if (weights_.expert_data_ranks() == 1 || layer < 0 ||
                !weights_.config().has_experts(layer))
                return;
            sums::all_gather_rows_among(tools, data_, label, owners_, weights_.expert_data_ranks(),
                                        groups.shared, whole);
        };
        if (!owns_all_moments) {
            for (const ParameterId id : group) {
                if (const auto piece = held_.piece(held_rank_, id)) {
                    apply(*piece, gradients.totals().subspan(piece->offset, piece->size));
                }
            }
            if (weights_.sharded()) continue;  // they stay with their owners
            gather("weights:layer", [&](ParameterId id) { return weights_.master(id); });
            weights_.pack_layer(compute_, layer);  // while it is in the caches
            continue;
        }
        // zero = 0: every rank gets the whole gradient and makes the same step.
        const kernels::Arena::Scope scope(compute_.arena);
        std::unordered_map<ParameterId, Matrix> whole;
        for (const ParameterId id : group) {
            const Shape shape = weights_.shape(id);
            const Matrix matrix = compute_.matrix(shape.rows, shape.cols);
            whole[id] = matrix;
            if (const auto piece = owners_.piece(data_.rank(), id)) {
                const Matrix to = matrix.row_range(piece->rows);
                compute_.device.copy(
                    cast_span<const std::byte>(DeviceSpan<const float>(
                        gradients.totals().subspan(piece->offset, piece->size))),
                    DeviceSpan<std::byte>(to.handle, piece->size * size_of(DType::f32)),
                    compute_.stream);
            }
        }
        gather("gradients:whole", [&](ParameterId id) { return whole.at(id); });
        for (const ParameterId id : group) {
            const Shape shape = weights_.shape(id);
            if (shape.size() == 0) continue;
            apply(*held_.piece(0, id),
                  DeviceSpan<const float>(reinterpret_cast<const float*>(whole.at(id).handle),
                                          shape.size()));
        }
        weights_.pack_layer(compute_, layer);
    }
    weights_.pack_rest(compute_);
    return norm;
}

}  // namespace rankwise::update
