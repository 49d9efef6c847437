// Rows of `rankwise bench`: one sum over ranks in canonical order, its movement and its arithmetic
// apart, and MPI's own beside it.
#include <algorithm>
#include <numeric>

#include "parallel/mpi_float_sum.hpp"
#include "src/app/bench_rows.hpp"
#include "src/sums/gradient_owners.hpp"
#include "src/sums/tensor_parallel.hpp"

namespace rankwise::app {
namespace {

using kernels::Matrix;
using parallel::Communicator;

/// Seconds of a call: the mean of some, from a barrier to a barrier.
class Stopwatch {
  public:
    explicit Stopwatch(BenchContext& context) : context_(context) {}
    template <class Work>
    [[nodiscard]] double seconds(const Work& work) const {
        constexpr int kTimes = 8;
        context_.world().barrier("bench");
        const double begin_s = context_.clock().now_s();
        for (int i = 0; i < kTimes; ++i) work();
        context_.device().synchronize(context_.stream());
        context_.world().barrier("bench");
        return (context_.clock().now_s() - begin_s) / kTimes;
    }

  private:
    BenchContext& context_;
};

/// A sum of `elements` floats of each rank of an axis: as the program does it, and of that the
/// movement alone and the arithmetic alone.
struct Summed {
    std::int64_t elements = 0;
    std::function<void()> ours, moving, adding;
};

/// MPI's sums of as many floats, and our movement and arithmetic, round by round.
RowFacts measure_sum(BenchContext& context, Communicator& axis, const Summed& summed,
                     Meter& meter) {
    const Stopwatch watch(context);
    const bool mpi = parallel::is_mpi(axis);
    const auto block = static_cast<std::size_t>(ceil_div(summed.elements, axis.size()));
    const std::vector<float> from(block * static_cast<std::size_t>(axis.size()), 1.0F);
    std::vector<float> whole(mpi ? from.size() : 0);
    std::vector<float> own(mpi ? block : 0);
    (void)watch.seconds(summed.ours);  // memory grows to its size
    while (meter.more()) {
        const double ours_s = watch.seconds(summed.ours);
        if (mpi) {
            const double scattered_s =
                watch.seconds([&] { parallel::mpi_reduce_scatter(axis, from, own); });
            meter.sample_against(ours_s, scattered_s, "MPI");
            meter.part("MPI_Allreduce",
                       watch.seconds([&] { parallel::mpi_all_reduce(axis, from, whole); }));
        } else {
            meter.sample(ours_s);
        }
        meter.part("moving", watch.seconds(summed.moving));
        meter.part("adding", watch.seconds(summed.adding));
    }
    return {.work = {.bytes = static_cast<double>(summed.elements) * sizeof(float)}};
}

/// Partial sums of the residual stream of one pass, over the tensor axis: each rank sums its rows.
RowFacts sum_over_tensor(BenchContext& context, const BenchModel& model, Meter& meter) {
    Communicator& axis = context.mesh().axis(parallel::Axis::tensor);
    const sums::Tools tools = context.compute().tools();
    const int ranks = axis.size();
    const std::int64_t rows = std::min<std::int64_t>(2048, model.update_rows * model.update_tokens);
    const std::int64_t cols = model.config.hidden;
    const auto order = sums::RankTree::all(model.config.tree(), ranks);
    std::vector<Range> split_rows;
    std::vector<std::int64_t> sent;
    for (int rank = 0; rank < ranks; ++rank) {
        split_rows.push_back(split(rows, ranks, rank));
        sent.push_back(split_rows.back().size());
    }
    const std::int64_t own = sent[static_cast<std::size_t>(axis.rank())];
    const std::vector<std::int64_t> received(static_cast<std::size_t>(ranks), own);
    const kernels::DeviceBuffer<float> partial_memory = context.random(rows * cols);
    const kernels::DeviceBuffer<float> block_memory = context.random(own * ranks * cols);
    const kernels::DeviceBuffer<float> own_memory = context.zeros(own * cols);
    const Matrix partial(partial_memory.span(), rows, cols);
    const Matrix blocks(block_memory.span(), own * ranks, cols);
    const Matrix mine(own_memory.span(), own, cols);
    return measure_sum(
        context, axis,
        {.elements = rows * cols,
         .ours =
             [&] { sums::reduce_scatter(tools, axis, "bench", order, partial, split_rows, mine); },
         .moving =
             [&] { sums::exchange_rows(tools, axis, "bench", partial, sent, received, blocks); },
         .adding =
             [&] {
                 for (int rank = 1; rank < ranks; ++rank) {
                     const Matrix other = blocks.row_range({rank * own, (rank + 1) * own});
                     tools.device.add({.from = other, .to = blocks.row_range({0, own})},
                                      tools.stream);
                 }
                 tools.device.round({.from = blocks.row_range({0, own}), .to = mine}, tools.stream);
             }},
        meter);
}

/// Gradients of a layer's matrices and vectors, over the data axis: each rank sums the rows that it
/// owns.
RowFacts sum_over_data(BenchContext& context, const BenchModel& model, Meter& meter) {
    Communicator& axis = context.mesh().axis(parallel::Axis::data);
    const sums::Tools tools = context.compute().tools();
    const int ranks = axis.size();
    const model::DecoderParameters parameters = model::decoder_parameters(model.config);
    std::vector<Shape> shapes;
    std::int64_t elements = 0;
    for (const Parameter& parameter : parameters.table.rows()) {
        if (parameter.layer != 0) continue;
        shapes.push_back(parameter.shape);
        elements += parameter.shape.size();
    }
    std::vector<ParameterId> ids(shapes.size());
    std::iota(ids.begin(), ids.end(), 0);
    const parallel::ShardMap owners(shapes, ranks);
    sums::GradientOwners gradients(tools, axis, shapes, owners);
    const kernels::DeviceBuffer<float> memory = context.random(elements);
    std::vector<kernels::ConstMatrix> own;
    std::int64_t at = 0;
    for (const Shape& shape : shapes) {
        own.emplace_back(Matrix(memory.span().subspan(at, shape.size()), shape.rows, shape.cols));
        at += shape.size();
    }
    std::vector<std::int64_t> sent(static_cast<std::size_t>(ranks));
    std::ranges::generate(sent, [&, rank = 0]() mutable { return owners.size(rank++); });
    const std::int64_t size = owners.size(axis.rank());
    const std::vector<std::int64_t> received(static_cast<std::size_t>(ranks), size);
    const kernels::DeviceBuffer<float> block_memory = context.zeros(size * ranks);
    const Matrix blocks(block_memory.span(), size * ranks, 1);
    const std::vector<bool> all(static_cast<std::size_t>(ranks), true);
    std::vector<DeviceSpan<const float>> from(static_cast<std::size_t>(ranks));
    return measure_sum(
        context, axis,
        {.elements = elements,
         .ours =
             [&] {
                 gradients.exchange("bench", ids, all, [&](ParameterId id) {
                     return own[static_cast<std::size_t>(id)];
                 });
             },
         .moving =
             [&] {
                 sums::exchange_rows(tools, axis, "bench", Matrix(memory.span(), elements, 1), sent,
                                     received, blocks);
             },
         .adding =
             [&] {
                 for (const parallel::ShardPiece& piece : owners.pieces(axis.rank())) {
                     for (int rank = 0; rank < ranks; ++rank) {
                         from[static_cast<std::size_t>(rank)] =
                             block_memory.span().subspan(rank * size + piece.offset, piece.size);
                     }
                     tools.device.add_in_order(
                         {.from = from, .to = gradients.totals().subspan(piece.offset, piece.size)},
                         tools.stream);
                 }
             }},
        meter);
}

}  // namespace

void append_sum_rows(const BenchSizes& sizes, int ranks, std::vector<BenchRow>& rows) {
    if (ranks == 1) return;
    for (const BenchModel& model : sizes.models) {
        rows.push_back(
            {.name = "sum/" + model.name,
             .what = "one sum over ranks in canonical order, beside MPI's of as many floats: with "
                     "tensor ranks the rows of a pass, else a layer's gradients",
             .run = [=](BenchContext& context, Meter& meter) {
                 const bool split = context.mesh().degree(parallel::Axis::tensor) > 1;
                 return split ? sum_over_tensor(context, model, meter)
                              : sum_over_data(context, model, meter);
             }});
    }
}

}  // namespace rankwise::app
