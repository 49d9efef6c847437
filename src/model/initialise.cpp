#include "src/model/initialise.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "io/safetensors.hpp"
#include "io/safetensors_writer.hpp"
#include "src/base/maths.hpp"
#include "src/base/philox.hpp"

namespace rankwise::model {
namespace {

constexpr std::int64_t kRowsAtOnce = 1024;

/// Two independent standard normals from two words. Box and Muller (1958).
std::pair<double, double> normals(std::uint32_t a, std::uint32_t b) {
    const double radius = std::sqrt(-2.0 * maths::log(static_cast<double>(uniform_open(a))));
    const double angle = 2.0 * std::numbers::pi * static_cast<double>(uniform_open(b));
    return {radius * maths::cos(angle), radius * maths::sin(angle)};
}

void fill_normal(std::span<float> row, const RandomStream& stream, std::uint32_t position,
                 double std) {
    for (std::size_t i = 0; i < row.size(); i += 2) {
        const auto index = static_cast<std::uint32_t>(i);
        const auto [first, second] =
            normals(stream.word(position, index), stream.word(position, index + 1));
        row[i] = static_cast<float>(std * first);
        if (i + 1 < row.size()) row[i + 1] = static_cast<float>(std * second);
    }
}

/// Calls `fill(box, values)` for boxes of some rows of this rank's part and uploads what it filled
/// in.
template <class Fill>
void upload_by_rows(Weights& weights, ParameterId id, Compute& compute, const Fill& fill) {
    const Box part = weights.box(id);
    if (part.empty()) return;
    std::vector<float> values;
    for (std::int64_t begin = part.rows.begin; begin < part.rows.end; begin += kRowsAtOnce) {
        const Box box{{begin, std::min(begin + kRowsAtOnce, part.rows.end)}, part.cols};
        values.assign(static_cast<std::size_t>(box.size()), 0.0F);
        fill(box, std::span(values));
        compute.device.Memory::upload<float>(
            std::span<const float>(values),
            weights.master_span(id).subspan((begin - part.rows.begin) * part.cols.size(),
                                            box.size()),
            compute.stream);
    }
}

bool ends_with(std::string_view text, std::string_view end) {
    return text.ends_with(end);
}

/// Rows of this rank's part of a parameter, on the first of the ranks that share rows out.
std::vector<float> rows_of_part(const Weights& weights, ParameterId id, Range rows,
                                Compute& compute) {
    const Range mine = intersect(weights.box(id).rows, rows);
    std::vector<float> values;
    if (!mine.empty() && !weights.box(id).cols.empty()) {
        const std::int64_t first = mine.begin - weights.box(id).rows.begin;
        const kernels::ConstMatrix held =
            weights.master(id).row_range({first, first + mine.size()});
        values = compute.device.Memory::download<float>(
            DeviceSpan<const float>(reinterpret_cast<const float*>(held.handle),
                                    held.rows * held.cols),
            compute.stream);
    }
    if (!weights.sharded()) return values;
    return weights.shards().gather_v("export:rows", values, 0).values;
}

/// Of ranks that share a model's rows or experts; else 0.
int data_rank_of(const Weights& weights) {
    if (weights.sharded()) return weights.shards().rank();
    return weights.shares_experts() ? weights.experts().data_rank : 0;
}

/// Rows of a whole parameter on the first of the ranks of its pipeline rank, nothing elsewhere.
/// Collective over the ranks that share its rows or split it.
std::vector<float> rows_where_held(const Weights& weights, ParameterId id, Range rows,
                                   Compute& compute) {
    const auto box_of = [&](TensorPlace place) {
        const Parameter& parameter = weights.table()[id];
        const int leaves = weights.config().tree().leaves();
        Box box = part_box(parameter, leaves, place);
        box.rows = intersect(box.rows, rows);
        if (!part_counts(parameter, leaves, place)) box.rows.end = box.rows.begin;
        return box;
    };
    const TensorPlace here = weights.part().place;
    const bool dealt = weights.shares_experts() && weights.table()[id].expert >= 0;
    if (!holds(weights.pipeline_part(), weights.parameters(), id)) return {};
    const Box mine = box_of(here);
    std::vector<float> values = rows_of_part(weights, id, mine.rows, compute);
    // An expert's one holder, which is of the first data ranks, sends all of them.
    if (dealt && !weights.sharded())
        return weights.experts().axis->gather_v("export", values, 0).values;
    if (!weights.split() || (weights.sharded() && weights.shards().rank() > 0)) return values;
    const auto gathered = weights.tensor().gather_v("export", values, 0);
    if (here.rank != 0) return {};
    const std::int64_t cols = weights.table()[id].shape.cols;
    std::vector<float> whole(static_cast<std::size_t>(rows.size() * cols));
    auto from = gathered.values.begin();
    for (int rank = 0; rank < here.degree; ++rank) {
        const Box box = box_of({here.degree, rank, here.experts, here.expert_rank});
        if (box.empty()) continue;
        for (std::int64_t row = box.rows.begin; row < box.rows.end; ++row) {
            const auto end = from + box.cols.size();
            std::copy(from, end, whole.begin() + (row - rows.begin) * cols + box.cols.begin);
            from = end;
        }
    }
    return whole;
}

/// Rows of a whole parameter on rank 0 of all axes, nothing elsewhere. Collective over the ranks
/// that share the model.
std::vector<float> whole_rows(const Weights& weights, ParameterId id, Range rows,
                              Compute& compute) {
    std::vector<float> values = rows_where_held(weights, id, rows, compute);
    if (data_rank_of(weights) > 0) return {};  // the first has their rows
    const PipelinePart& part = weights.pipeline_part();
    if (!part.split() || weights.part().place.rank != 0) return values;
    const int holder = pipeline_holder(weights.config(), weights.parameters(), id, part.place);
    if (holder == 0) return values;
    if (part.place.rank == holder) weights.pipeline().send("export", values, 0);
    if (part.place.rank != 0) return {};
    values.resize(static_cast<std::size_t>(rows.size() * weights.table()[id].shape.cols));
    weights.pipeline().receive("export", values, holder);
    return values;
}

/// Tensors that files may hold beside the parameters: copies, tables that are computed, and scales,
/// which are read with what they scale.
bool may_be_ignored(std::string_view name, const Weights& weights) {
    constexpr std::string_view kScales = "_scale_inv";
    return ends_with(name, "rotary_emb.inv_freq") ||
           (weights.config().tied && name == "lm_head.weight") ||
           (ends_with(name, kScales) &&
            weights.table().has(name.substr(0, name.size() - kScales.size())));
}

}  // namespace

void initialise(Weights& weights, const InitOptions& options, std::uint64_t seed,
                Compute& compute) {
    const double residual =
        options.scale_residual
            ? options.std / std::sqrt(2.0 * static_cast<double>(weights.config().layers))
            : options.std;
    for (ParameterId id = 0; id < weights.table().count(); ++id) {
        const Parameter& parameter = weights.table()[id];
        const bool writes_residual = ends_with(parameter.name, "o_proj.weight") ||
                                     ends_with(parameter.name, "down_proj.weight");
        const RandomStream stream(seed, Purpose::initialisation, static_cast<std::uint64_t>(id));
        std::vector<float> row_values(static_cast<std::size_t>(parameter.shape.cols));
        upload_by_rows(weights, id, compute, [&](const Box& box, std::span<float> values) {
            if (parameter.shape.vector) {
                const bool is_norm = ends_with(parameter.name, "norm.weight");
                std::fill(values.begin(), values.end(), is_norm ? 1.0F : 0.0F);
                return;
            }
            auto to = values.begin();
            for (std::int64_t row = box.rows.begin; row < box.rows.end; ++row) {
                fill_normal(row_values, stream, narrow<std::uint32_t>(row),
                            writes_residual ? residual : options.std);
                to = std::copy(row_values.begin() + box.cols.begin,
                               row_values.begin() + box.cols.end, to);
            }
        });
    }
    weights.pack(compute);
}

void load_folder(Weights& weights, const std::filesystem::path& folder, Compute& compute) {
    const io::SafetensorsFolder tensors(folder, read_fp8_blocks(folder));
    for (const std::string& name : tensors.names()) {
        require(weights.table().has(name) || may_be_ignored(name, weights),
                "{}: tensor {} is no parameter of a {} model with {} layers; is config.json of "
                "another model?",
                folder.string(), name, name_of(weights.config().family), weights.config().layers);
    }
    for (ParameterId id = 0; id < weights.table().count(); ++id) {
        const Parameter& parameter = weights.table()[id];
        tensors.require_shape(parameter.name, parameter.shape);
        upload_by_rows(weights, id, compute, [&](const Box& box, std::span<float> values) {
            tensors.read(parameter.name, box, values);
            const auto odd =
                std::ranges::find_if_not(values, [](float v) { return std::isfinite(v); });
            if (odd == values.end()) return;
            const std::int64_t at = odd - values.begin();
            throw BadInput(fmt::format(
                "{}: {} holds {} at row {}, column {}: the file is damaged, or of a run that "
                "diverged; take another model",
                tensors.at(parameter.name).file, parameter.name, *odd,
                box.rows.begin + at / box.cols.size(), box.cols.begin + at % box.cols.size()));
        });
    }
    weights.pack(compute);
}

void export_folder(const ModelConfig& config, const ReadRows& read, io::FileSystem& fs,
                   const std::filesystem::path& folder, const ExportOptions& options) {
    fs.create_directories(folder);
    io::replace_file(fs, folder / "config.json", io::bytes_of(to_json(config, options.dtype)));
    const ParameterTable table = decoder_parameters(config).table;
    std::vector<io::SafetensorsWriter::Tensor> layout;
    for (const Parameter& parameter : table.rows()) {
        layout.push_back({parameter.name, parameter.shape, options.dtype});
    }
    io::SafetensorsWriter writer(fs, folder, std::move(layout), options.max_file_bytes);
    std::vector<float> values;
    for (ParameterId id = 0; id < table.count(); ++id) {
        const Shape shape = table[id].shape;
        for (std::int64_t begin = 0; begin < shape.rows; begin += kRowsAtOnce) {
            const Range rows{begin, std::min(begin + kRowsAtOnce, shape.rows)};
            values.resize(static_cast<std::size_t>(rows.size() * shape.cols));
            read(id, rows, values);
            writer.write_rows(table[id].name, begin, values);
        }
    }
    writer.finish();
}

void export_folder(const Weights& weights, io::FileSystem& fs, const std::filesystem::path& folder,
                   Compute& compute) {
    const ReadRows read = [&](ParameterId id, Range rows, std::span<float> values) {
        const std::vector<float> all = whole_rows(weights, id, rows, compute);
        std::copy(all.begin(), all.end(), values.begin());
    };
    if (weights.part().place.rank == 0 && weights.pipeline_part().is_first() &&
        data_rank_of(weights) == 0) {
        export_folder(weights.config(), read, fs, folder);
        return;
    }
    for (ParameterId id = 0; id < weights.table().count(); ++id) {
        const std::int64_t rows = weights.table()[id].shape.rows;
        for (std::int64_t begin = 0; begin < rows; begin += kRowsAtOnce)
            (void)whole_rows(weights, id, {begin, std::min(begin + kRowsAtOnce, rows)}, compute);
    }
}

}  // namespace rankwise::model
