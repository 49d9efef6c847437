// A checkpoint of two small tensors, for tests of what reads checkpoints.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/checkpoint.hpp"
#include "io/shard.hpp"

namespace rankwise::test {

struct SmallCheckpoint {
    std::int64_t step = 10;
    std::string options = {};
    UInt128 options_digest = {};
    std::int64_t numerics_version = 1;
    std::vector<float> embedding = {1, 2, 3, 4, 5, 6};  ///< [3, 2]
    std::vector<float> norm = {0.5F, 0.25F};            ///< [2]
    std::vector<float> moment = {0, 0, 0, 0, 0, 0};     ///< adam_m of the embedding; may be empty

    io::Path write(io::FileSystem& fs, const io::Path& dir) const {
        ParameterTable table;
        table.add({.name = "model.embed_tokens.weight", .shape = Shape::matrix(3, 2)});
        table.add({.name = "model.norm.weight", .shape = Shape::of_vector(2)});
        io::Manifest manifest;
        manifest.state = {.stage = "zero",
                          .step = step,
                          .seed = 1,
                          .policy_version = step,
                          .numerics_version = numerics_version,
                          .options_digest = options_digest,
                          .options = options,
                          .mesh = {{"data", 1}},
                          .values = {{"cursor", step}}};
        manifest.id = io::checkpoint_id(manifest.state);
        manifest.models = {io::saved_model("policy", table)};
        const io::Path tmp = io::begin_step(fs, dir, step);
        const auto item = [](std::string kind, ParameterId id, Shape shape,
                             const std::vector<float>& values) {
            return io::ShardItem{"policy",   std::move(kind),
                                 id,         Box::whole(shape),
                                 DType::f32, std::as_bytes(std::span(values))};
        };
        std::vector<io::ShardItem> items{item("weights", 0, table[0].shape, embedding),
                                         item("weights", 1, table[1].shape, norm)};
        if (!moment.empty()) items.push_back(item("adam_m", 0, table[0].shape, moment));
        manifest.files = {io::write_shard(fs, tmp, manifest.id, 0, items)};
        return io::commit(fs, dir, manifest);
    }
};

}  // namespace rankwise::test
