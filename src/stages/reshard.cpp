#include "src/stages/reshard.hpp"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include <fmt/ranges.h>

#include "io/checkpoint.hpp"
#include "src/model/held_parts.hpp"
#include "src/stages/checkpointing.hpp"

namespace rankwise::stages {
namespace {

/// A model of the checkpoint: how its parameters are cut, and what was saved of it.
struct Saved {
    std::string name;
    model::ModelConfig config;
    model::DecoderParameters parameters;
    std::vector<bool> frozen;
    std::vector<std::pair<std::string, DType>> kinds;
};

std::vector<Saved> models_of(const io::CheckpointReader& reader) {
    std::vector<Saved> models;
    for (const io::SavedModel& saved : reader.manifest().models) {
        const std::string key = config_value(saved.name);
        const auto text = reader.state().values.find(key);
        require(text != reader.state().values.end(),
                "{} does not say what model \"{}\" is ({} is missing): it was written by an older "
                "version; let a run load and save it first",
                reader.path().string(), saved.name, key);
        Saved model{.name = saved.name,
                    .config = model::config_from_json(std::get<std::string>(text->second),
                                                      reader.path().string() + ": " + key)};
        model.parameters = model::decoder_parameters(model.config);
        model.frozen =
            model.parameters.frozen(reader.state().values.contains(mtp_value(saved.name)));
        reader.require_same_model(saved.name, model.parameters.table);
        for (const io::ShardEntry& file : reader.manifest().files) {
            for (const io::ShardContent& content : file.contents) {
                const std::pair kind(content.kind, content.dtype);
                if (content.model == saved.name &&
                    std::ranges::find(model.kinds, kind) == model.kinds.end())
                    model.kinds.push_back(kind);
            }
        }
        models.push_back(std::move(model));
    }
    return models;
}

/// What one rank of a layout holds of a model.
model::HeldParts parts_of(const Saved& model, const ReshardLayout& layout, bool with_modules,
                          int rank) {
    const parallel::MeshShape& shape = layout.shape;
    const parallel::Coordinates at = parallel::coordinates_of(shape, rank);
    const int stretches = shape.pipeline > 1 ? parallel::virtual_stages_of(layout.schedule) : 1;
    return model::held_parts(
        model.config, model.parameters, {shape.tensor, at.tensor, shape.expert, at.expert},
        model::pipeline_part(model.config, {shape.pipeline, at.pipeline, stretches, with_modules}));
}

/// Elements of a box from `first` on, row by row, in up to three reads: the rest of a row, whole
/// rows, the beginning of one.
void read_elements(io::CheckpointReader& reader, const io::ShardItem& item, std::int64_t first,
                   std::span<std::byte> bytes) {
    const std::int64_t element = size_of(item.dtype);
    const std::int64_t cols = item.box.cols.size();
    for (std::int64_t left = std::ssize(bytes) / element; left > 0;) {
        const std::int64_t row = item.box.rows.begin + first / cols;
        const std::int64_t col = first % cols;
        Box box{{row, row + 1}, item.box.cols};
        if (col == 0 && left >= cols) {
            box.rows.end = row + left / cols;
        } else {
            const std::int64_t count = std::min(left, cols - col);
            box.cols.begin += col;
            box.cols.end = box.cols.begin + count;
        }
        const auto size = static_cast<std::size_t>(box.size() * element);
        reader.read(item.model, item.kind, item.parameter, box, item.dtype, bytes.first(size));
        bytes = bytes.subspan(size);
        first += box.size();
        left -= box.size();
    }
}

/// What one rank of a layout would save, to be read when it is written.
std::vector<io::ShardItem> items_of(io::CheckpointReader& reader, const std::vector<Saved>& models,
                                    const ReshardLayout& layout, int rank) {
    const int data_rank = parallel::coordinates_of(layout.shape, rank).data;
    const bool with_modules = reader.state().values.contains(kWithModules);
    std::vector<io::ShardItem> items;
    for (const Saved& model : models) {
        const model::HeldParts parts = parts_of(model, layout, with_modules, rank);
        for (const parallel::ShardPiece& piece :
             model::saved_rows(parts, layout.shape.data, data_rank)) {
            const auto at = static_cast<std::size_t>(piece.parameter);
            for (const auto& [kind, dtype] : model.kinds) {
                // What is not trained has no moments.
                if (kind != kWeightsKind && model.frozen[at]) continue;
                io::ShardItem item{.model = model.name,
                                   .kind = kind,
                                   .parameter = piece.parameter,
                                   .box = piece.box_in(parts.boxes[at]),
                                   .dtype = dtype,
                                   .bytes = {}};
                item.read = [&reader, item](std::int64_t offset, std::span<std::byte> to) {
                    read_elements(reader, item, offset / size_of(item.dtype), to);
                };
                items.push_back(std::move(item));
            }
        }
    }
    return items;
}

}  // namespace

io::Path reshard(io::FileSystem& fs, io::CheckpointReader& reader, const io::Path& directory,
                 const ReshardLayout& layout, const std::function<void(std::int64_t)>& written) {
    const std::vector<Saved> models = models_of(reader);
    for (const Saved& model : models) {
        const std::vector<std::string> problems = model::misfits(
            fmt::format("model \"{}\"", model.name), model.config, layout.shape, layout.schedule);
        require(problems.empty(), "--{}", fmt::join(problems, "\n--"));
    }
    io::Manifest manifest{.state = reader.state(), .models = reader.manifest().models};
    manifest.state.mesh = mesh_record(layout.shape);
    manifest.id = io::checkpoint_id(manifest.state);
    fs.create_directories(directory);
    const io::Path folder = io::begin_step(fs, directory, manifest.state.step);
    for (int rank = 0; rank < layout.shape.ranks(); ++rank) {
        manifest.files.push_back(
            io::write_shard(fs, folder, manifest.id, rank, items_of(reader, models, layout, rank)));
        if (written) written(rank + 1);
    }
    reader.finish();
    return io::commit(fs, directory, manifest);
}

}  // namespace rankwise::stages
