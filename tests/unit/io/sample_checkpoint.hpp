// A small two-model checkpoint, cut over any number of writers, with values that say where they
// belong.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "io/checkpoint.hpp"
#include "io/checkpoint_reader.hpp"

namespace rankwise::io::test {

inline ParameterTable sample_table() {
    ParameterTable table;
    table.add({.name = "model.embed_tokens.weight", .shape = Shape::matrix(37, 8)});
    table.add({.name = "model.layers.0.self_attn.q_proj.weight", .shape = Shape::matrix(24, 8)});
    table.add({.name = "model.layers.0.mlp.down_proj.weight", .shape = Shape::matrix(8, 40)});
    table.add({.name = "model.norm.weight", .shape = Shape::of_vector(8)});
    return table;
}

/// The value of element (row, column): distinct for every tensor and `salt`.
inline float sample_value(std::int64_t salt, ParameterId parameter, std::int64_t row,
                          std::int64_t col) {
    return static_cast<float>(salt * 100'000 + parameter * 10'000 + row * 100 + col) + 0.25F;
}

/// A box of a sample tensor, as float bytes.
inline std::vector<float> sample_values(std::int64_t salt, ParameterId parameter, const Box& box) {
    std::vector<float> values;
    for (std::int64_t r = box.rows.begin; r < box.rows.end; ++r) {
        for (std::int64_t c = box.cols.begin; c < box.cols.end; ++c) {
            values.push_back(sample_value(salt, parameter, r, c));
        }
    }
    return values;
}

inline RunState sample_state(std::int64_t step) {
    RunState state;
    state.stage = "zero";
    state.step = step;
    state.seed = 0xFFFF'FFFF'FFFF'FFFEU;
    state.policy_version = 7 + step;
    state.numerics_version = 1;
    state.options_digest = {5, 6};
    state.options = "[run]\nstages = base, zero\n" + std::string(100'000, '#');
    state.mesh = {{"data", 3}, {"tensor", 1}};
    state.values = {{"data/cursor", std::int64_t{-12}},
                    {"schedule/lr", 0.1},
                    {"best", std::string("step \0 5", 8)}};
    return state;
}

/// The boxes of writer `rank`: rows as ZeRO cuts them; the down projection by columns when
/// `columns`.
inline std::vector<ShardBox> sample_boxes(const ParameterTable& table, int ranks, int rank,
                                          bool columns) {
    std::vector<ShardBox> boxes;
    for (ParameterId id = 0; id < table.count(); ++id) {
        const Shape shape = table[id].shape;
        Box box{zero_rows(shape, ranks, rank, id), {0, shape.cols}};
        if (columns && id == 2) box = {{0, shape.rows}, split(shape.cols, ranks, rank)};
        if (!box.empty()) boxes.push_back({id, box});
    }
    return boxes;
}

inline ShardEntry write_sample_shard(FileSystem& fs, const Path& tmp, const RunState& state,
                                     int ranks, int rank, std::int64_t salt, bool columns = false) {
    const ParameterTable table = sample_table();
    std::vector<std::vector<float>> kept;
    std::vector<ShardItem> items;
    std::int64_t kind_salt = salt;
    for (const char* kind : {"weights", "adam_m", "adam_v"}) {
        for (const ShardBox& b : sample_boxes(table, ranks, rank, columns)) {
            kept.push_back(sample_values(kind_salt, b.parameter, b.box));
            items.push_back({"policy", kind, b.parameter, b.box, DType::f32, {}});
        }
        ++kind_salt;
    }
    for (std::size_t i = 0; i < items.size(); ++i)
        items[i].bytes = std::as_bytes(std::span(kept[i]));
    return write_shard(fs, tmp, checkpoint_id(state), rank, items);
}

/// Saves `step` as `ranks` writers would. @return the checkpoint's path.
inline Path save_sample(FileSystem& fs, const Path& dir, std::int64_t step, int ranks,
                        std::int64_t salt, bool columns = false) {
    Manifest manifest;
    manifest.state = sample_state(step);
    manifest.id = checkpoint_id(manifest.state);
    manifest.models = {saved_model("policy", sample_table())};
    const Path tmp = begin_step(fs, dir, step);
    for (int rank = 0; rank < ranks; ++rank) {
        const auto code =
            encode(write_sample_shard(fs, tmp, manifest.state, ranks, rank, salt, columns));
        manifest.files.push_back(decode_shard_entry(code, "gathered"));
    }
    return commit(fs, dir, manifest);
}

inline std::vector<float> read_box(CheckpointReader& reader, const std::string& kind,
                                   ParameterId id, const Box& box) {
    std::vector<float> values(static_cast<std::size_t>(box.size()));
    reader.read("policy", kind, id, box, DType::f32, std::as_writable_bytes(std::span(values)));
    return values;
}

/// Whether the checkpoint at `path` holds the sample values of `salt`, whole.
inline bool holds_sample(FileSystem& fs, const Path& path, std::int64_t salt) {
    CheckpointReader reader(fs, path);
    const ParameterTable table = sample_table();
    std::int64_t kind_salt = salt;
    bool same = true;
    for (const char* kind : {"weights", "adam_m", "adam_v"}) {
        for (ParameterId id = 0; id < table.count(); ++id) {
            const Box whole = Box::whole(table[id].shape);
            same = same && read_box(reader, kind, id, whole) == sample_values(kind_salt, id, whole);
        }
        ++kind_salt;
    }
    reader.finish();
    return same;
}

}  // namespace rankwise::io::test
