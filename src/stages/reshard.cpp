#include "src/stages/reshard.hpp"

#include <algorithm>

#include <fmt/ranges.h>

#include "io/checkpoint.hpp"
#include "parallel/shard_map.hpp"
#include "src/model/parameters.hpp"
#include "src/stages/checkpointing.hpp"

namespace rankwise::stages {
namespace {

/// A model of the checkpoint: how its parameters are cut, and what was saved of it.
struct Saved {
    std::string name;
    model::ModelConfig config;
    ParameterTable table;
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
        const model::DecoderParameters parameters = model::decoder_parameters(model.config);
        model.table = parameters.table;
        model.frozen = parameters.frozen(reader.state().values.contains(mtp_value(saved.name)));
        reader.require_same_model(saved.name, model.table);
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

void require_fits(const Saved& model, int tensor) {
    const std::vector<int> degrees = model::tensor_degrees(model.config);
    require(std::ranges::find(degrees, tensor) != degrees.end(),
            "model \"{}\" cannot be split over {} tensor ranks; it can over {}", model.name, tensor,
            fmt::join(degrees, ", "));
}

/// Boxes of a model that one rank saves, parameters ascending.
std::vector<std::pair<ParameterId, Box>> boxes_of(const Saved& model,
                                                  const parallel::MeshShape& shape, int rank) {
    const parallel::Coordinates at = parallel::coordinates_of(shape, rank);
    const model::TensorPlace place{shape.tensor, at.tensor};
    const int leaves = model.config.tree().leaves();
    std::vector<Box> parts;
    std::vector<Shape> shapes;
    for (const Parameter& parameter : model.table.rows()) {
        const Box& part = parts.emplace_back(model::part_box(parameter, leaves, place));
        shapes.push_back({part.rows.size(), part.cols.size(), parameter.shape.vector});
    }
    std::vector<std::pair<ParameterId, Box>> boxes;
    const parallel::ShardMap owners(shapes, shape.data);
    for (const parallel::ShardPiece& piece : owners.pieces(at.data)) {
        if (!model::part_counts(model.table[piece.parameter], leaves, place)) continue;
        boxes.emplace_back(piece.parameter,
                           piece.box_in(parts[static_cast<std::size_t>(piece.parameter)]));
    }
    return boxes;
}

}  // namespace

io::Path reshard(io::FileSystem& fs, io::CheckpointReader& reader, const io::Path& directory,
                 const parallel::MeshShape& shape,
                 const std::function<void(std::int64_t)>& written) {
    const std::vector<Saved> models = models_of(reader);
    for (const Saved& model : models) require_fits(model, shape.tensor);
    io::Manifest manifest{.state = reader.state(), .models = reader.manifest().models};
    manifest.state.mesh = {
        {"data", shape.data}, {"pipeline", shape.pipeline}, {"tensor", shape.tensor}};
    manifest.id = io::checkpoint_id(manifest.state);
    fs.create_directories(directory);
    const io::Path folder = io::begin_step(fs, directory, manifest.state.step);
    for (int rank = 0; rank < shape.ranks(); ++rank) {
        std::vector<std::vector<std::byte>> values;
        std::vector<io::ShardItem> items;
        for (const Saved& model : models) {
            for (const auto& [id, box] : boxes_of(model, shape, rank)) {
                for (const auto& [kind, dtype] : model.kinds) {
                    // What is not trained has no moments.
                    if (kind != kWeightsKind && model.frozen[static_cast<std::size_t>(id)])
                        continue;
                    std::vector<std::byte>& bytes =
                        values.emplace_back(static_cast<std::size_t>(box.size() * size_of(dtype)));
                    reader.read(model.name, kind, id, box, dtype, bytes);
                    items.push_back({.model = model.name,
                                     .kind = kind,
                                     .parameter = id,
                                     .box = box,
                                     .dtype = dtype,
                                     .bytes = bytes});
                }
            }
        }
        manifest.files.push_back(io::write_shard(fs, folder, manifest.id, rank, items));
        if (written) written(rank + 1);
    }
    reader.finish();
    return io::commit(fs, directory, manifest);
}

}  // namespace rankwise::stages
