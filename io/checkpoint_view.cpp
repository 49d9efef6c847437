#include "io/checkpoint_view.hpp"

#include <algorithm>
#include <map>
#include <vector>

#include "io/checkpoint.hpp"
#include "io/checkpoint_reader.hpp"

namespace rankwise::io {
namespace {

struct Tensor {
    DType dtype = DType::f32;
    std::vector<VirtualPart> parts;
};

/// The parts of each tensor of `model`: (kind, parameter) → where they lie.
std::map<std::pair<std::string, ParameterId>, Tensor> tensors_of(const Manifest& manifest,
                                                                 const std::string& model,
                                                                 const std::string& folder) {
    std::map<std::pair<std::string, ParameterId>, Tensor> tensors;
    for (const ShardEntry& entry : manifest.files) {
        for (const ShardContent& content : entry.contents) {
            if (content.model != model) continue;
            const auto& boxes = entry.box_lists[static_cast<std::size_t>(content.boxes)];
            const auto offsets = box_offsets(boxes);
            for (std::size_t i = 0; i < boxes.size(); ++i) {
                Tensor& tensor = tensors[{content.kind, boxes[i].parameter}];
                tensor.dtype = content.dtype;
                tensor.parts.push_back({folder + entry.file, group_of(content) + "/data",
                                        offsets.back(), offsets[i], boxes[i].box});
            }
        }
    }
    return tensors;
}

}  // namespace

void build_view(FileSystem& fs, const Path& checkpoint, const std::string& model,
                const Path& output) {
    const CheckpointReader reader(fs, checkpoint);
    if (const auto problem = problem_of(fs, checkpoint, Check::sizes)) {
        throw CorruptFile(fmt::format("{}; {}", *problem, way_out(fs, checkpoint)));
    }
    const Manifest& manifest = reader.manifest();
    const auto saved = std::find_if(manifest.models.begin(), manifest.models.end(),
                                    [&](const SavedModel& m) { return m.name == model; });
    std::vector<std::string> names;
    for (const SavedModel& m : manifest.models) names.push_back(m.name);
    require(saved != manifest.models.end(),
            "{}: no model '{}' is in this checkpoint, which holds: {}", checkpoint.string(), model,
            fmt::join(names, ", "));

    const Path from = std::filesystem::absolute(output).lexically_normal().parent_path();
    const Path to = std::filesystem::absolute(checkpoint / "").lexically_normal();
    const std::string relative = to.lexically_relative(from).string();
    const std::string folder = relative == "."           ? ""
                               : relative.ends_with('/') ? relative
                                                         : relative + "/";

    Hdf5File file = Hdf5File::create(fs, output);
    file.set_attribute("/", "checkpoint", to_hex(manifest.id));
    file.set_attribute("/", "model", model);
    file.set_attribute("/", "stage", manifest.state.stage);
    file.set_attribute("/", "step", manifest.state.step);
    for (const auto& [key, tensor] : tensors_of(manifest, model, folder)) {
        const auto& [kind, id] = key;
        const SavedParameter& parameter = saved->parameters.at(static_cast<std::size_t>(id));
        const std::string name = kind == "weights" ? parameter.name : kind + "/" + parameter.name;
        file.write_virtual(name, stored_as(tensor.dtype), parameter.shape, tensor.parts);
        file.set_attribute(name, "dtype", std::string(name_of(tensor.dtype)));
    }
    file.close();
}

}  // namespace rankwise::io
