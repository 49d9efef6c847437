#include "src/stages/checkpointing.hpp"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "parallel/shard_map.hpp"
#include "src/stages/snapshot.hpp"
#include "src/sums/gradient_owners.hpp"

namespace rankwise::stages {

namespace {

using parallel::ShardPiece;

constexpr const char* kOptimizerSteps = "optimizer_steps";

/// The moments of rows `piece` among those that an optimizer holds.
DeviceSpan<float> moments_of(const update::Adamw& optimizer, DeviceSpan<float> moments,
                             const ShardPiece& piece, std::int64_t cols) {
    for (const ShardPiece& held : optimizer.pieces()) {
        if (held.parameter != piece.parameter) continue;
        return moments.subspan(held.offset + (piece.rows.begin - held.rows.begin) * cols,
                               piece.size);
    }
    throw InternalError("an optimizer lacks the moments of a row that its rank owns");
}

/// Where rows of this rank's part of a parameter lie in the whole.
Box box_of(const ShardPiece& piece, const model::Weights& weights) {
    return piece.box_in(weights.part_box(piece.parameter));
}

/// Calls `each(piece)` for what this rank saves of a model's weights, or of their moments: the rows
/// that it owns on the data axis, of its part on the tensor axis, where it counts there.
template <class Each>
void for_saved(const Environment& environment, const model::Weights& weights, bool moments,
               const Each& each) {
    const parallel::Communicator& data = environment.data();
    for (const ShardPiece& piece :
         model::saved_rows(weights.held(), data.size(), data.rank(),
                           moments ? weights.frozen() : std::vector<bool>()))
        each(piece);
}

std::vector<std::string> models_of(const Stage& stage) {
    std::vector<std::string> names{"policy"};
    for (std::string& name : stage.models()) names.push_back(std::move(name));
    return names;
}

void collect(const Environment& environment, Stage& stage, Snapshot& snapshot) {
    model::Compute& compute = environment.compute;
    for (const std::string& name : models_of(stage)) {
        model::Weights& weights = environment.models.at(name);
        const model::OnDevice here(compute, weights);
        for_saved(environment, weights, false, [&](const ShardPiece& piece) {
            const std::int64_t cols = weights.shape(piece.parameter).cols;
            const std::int64_t first = weights.held_rows(piece.parameter).begin;
            const Box box = box_of(piece, weights);
            const DeviceSpan<const float> values =
                weights.master_span(piece.parameter)
                    .subspan((piece.rows.begin - first) * cols, piece.size);
            if (weights.stays_on_device())
                snapshot.add(name, kWeightsKind, piece.parameter, box, values);
            else
                snapshot.add_copied(name, kWeightsKind, piece.parameter, box, values,
                                    compute.stream);
        });
    }
    for (const OptimizerState& state : stage.optimizers()) {
        const model::Weights& weights = environment.models.at(state.model);
        for_saved(environment, weights, true, [&](const ShardPiece& piece) {
            const std::int64_t cols = weights.shape(piece.parameter).cols;
            const auto add = [&](const char* kind, DeviceSpan<float> moments) {
                snapshot.add(state.model, kind, piece.parameter, box_of(piece, weights),
                             moments_of(*state.optimizer, moments, piece, cols));
            };
            add(kFirstMomentKind, state.optimizer->first_moments());
            add(kSecondMomentKind, state.optimizer->second_moments());
        });
    }
}

}  // namespace

std::map<std::string, std::int64_t> mesh_record(const parallel::MeshShape& shape) {
    return {{"data", shape.data},
            {"pipeline", shape.pipeline},
            {"tensor", shape.tensor},
            {"expert", shape.expert}};
}

std::string config_value(const std::string& model) {
    return "model." + model + "/config.json";
}

std::string tokenizer_value(const std::string& file) {
    return "tokenizer/" + file;
}

std::string mtp_value(const std::string& model) {
    return "model." + model + "/mtp";
}

/// A save under way. The job fills `entry`; the rest is set before it starts.
struct Checkpointer::Pending {
    Pending(const model::Compute& compute, std::vector<HostBuffer> spare)
        : parts(compute.device, std::move(spare), compute.beat) {}

    io::Path folder;
    io::Manifest manifest;
    Snapshot parts;
    io::ShardEntry entry;
};

Checkpointer::Checkpointer(io::FileSystem& fs, io::Path directory, const Environment& environment,
                           Retention retention, bool background,
                           std::function<void(const io::Path&)> saved)
    : fs_(fs),
      directory_(std::move(directory)),
      environment_(environment),
      retention_(retention),
      background_(background),
      saved_(std::move(saved)) {}

Checkpointer::~Checkpointer() {
    if (pending_) environment_.compute.before_change = {};
}

void Checkpointer::save(Stage& stage, io::RunState state) {
    finish();
    parallel::Communicator& world = environment_.mesh.world();
    for (const auto& [name, value] : stage.state()) state.values["stage." + name] = value;
    for (const OptimizerState& optimizer : stage.optimizers()) {
        state.values[optimizer.model + "." + kOptimizerSteps] = optimizer.optimizer->steps();
        if (environment_.models.at(optimizer.model).uses_mtp())
            state.values[mtp_value(optimizer.model)] = std::int64_t{1};
    }
    if (environment_.physical.trains_modules) state.values[kWithModules] = std::int64_t{1};
    for (const auto& [name, text] : environment_.task.tokenizer.files())
        state.values[tokenizer_value(name)] = text;
    model::Compute& compute = environment_.compute;
    const auto pending = std::make_shared<Pending>(compute, std::exchange(spare_, {}));
    pending->folder = directory_ / (io::step_name(state.step) + ".tmp");
    pending->manifest.id = io::checkpoint_id(state);
    pending->manifest.state = std::move(state);
    for (const std::string& name : models_of(stage)) {
        pending->manifest.state.values[config_value(name)] =
            model::to_json(environment_.models.at(name).config());
        pending->manifest.models.push_back(
            io::saved_model(name, environment_.models.at(name).table()));
    }
    if (world.rank() == 0) (void)io::begin_step(fs_, directory_, pending->manifest.state.step);
    world.barrier("checkpoint:begin");

    // What the device still has to do with the values is done now: they are read on another stream.
    compute.device.synchronize(compute.stream);
    collect(environment_, stage, pending->parts);
    const auto write = [&fs = fs_, rank = world.rank(), pending] {
        pending->entry = io::write_shard(fs, pending->folder, pending->manifest.id, rank,
                                         pending->parts.items());
    };
    if (background_) {
        pending_ = pending;
        compute.before_change = [pending, &compute] { pending->parts.keep(compute.stream); };
        writer_.start(write);
    } else {
        write();
        commit(pending);
    }
}

void Checkpointer::poll() {
    if (!pending_) return;
    const std::int64_t busy = writer_.busy() ? 1 : 0;
    if (environment_.mesh.world().all_reduce_max("checkpoint:written", busy) == 0) finish();
}

void Checkpointer::finish() {
    if (!pending_) return;
    // What could not be written is forgotten before that is thrown: nobody may commit it later.
    const std::shared_ptr<Pending> pending = std::exchange(pending_, nullptr);
    environment_.compute.before_change = {};
    writer_.join();
    spare_ = pending->parts.take_copies();
    commit(pending);
}

void Checkpointer::end_stage(bool fails) noexcept {
    if (fails && pending_) pending_->parts.abandon();
    writer_.wait();
    spare_.clear();
    if (!pending_) return;
    environment_.compute.before_change = {};
    (void)pending_->parts.take_copies();
}

void Checkpointer::commit(const std::shared_ptr<Pending>& pending) {
    parallel::Communicator& world = environment_.mesh.world();
    // Whoever is here has written its part: what is gathered is the agreement that all have.
    const std::vector<std::byte> entry = io::encode(pending->entry);
    const auto gathered = world.gather_v("checkpoint:entries", entry, 0);
    if (world.rank() == 0) {
        std::size_t at = 0;
        for (const std::int64_t size : gathered.counts) {
            pending->manifest.files.push_back(io::decode_shard_entry(
                std::span(gathered.values).subspan(at, static_cast<std::size_t>(size)),
                pending->folder.string()));
            at += static_cast<std::size_t>(size);
        }
        saved_(io::commit(fs_, directory_, pending->manifest));
    }
    world.barrier("checkpoint:end");  // nobody goes on before the checkpoint is whole
    if (world.rank() != 0) return;
    try {
        (void)io::prune(fs_, directory_, retention_.keep_last, retention_.keep_every);
    } catch (const EnvironmentError& problem) {
        // What could not be deleted takes room, but the run has what it needs.
        environment_.log.warning("old checkpoints are still there: {}", problem.what());
    }
}

namespace {

/// Values of one model on their way from a checkpoint to the device.
class Loader {
  public:
    /// @param data  ranks that hold the same parts and load them together; null: this one alone
    Loader(io::CheckpointReader& reader, std::string model, const model::Weights& weights,
           model::Compute& compute, parallel::Communicator* data)
        : reader_(reader), model_(std::move(model)), weights_(weights), compute_(compute) {
        compute.will_change();
        if (data == nullptr || data->size() == 1) return;
        data_ = data;
        owners_.emplace(weights.shapes(), data->size(), std::vector<bool>(), weights.data_ranks());
    }

    /// These values alone.
    void load(const char* kind, ParameterId id, const Box& box, DeviceSpan<float> to) {
        const auto bytes = cast_span<std::byte>(to);
        reader_.visit(model_, kind, id, box, DType::f32,
                      [&](std::int64_t first, std::span<const std::byte> piece) {
                          if (compute_.beat) compute_.beat();
                          compute_.device.upload(piece, bytes.subspan(first, std::ssize(piece)),
                                                 compute_.stream);
                      });
    }

    /// This rank's whole part of a parameter, which the other data ranks want too: each reads the
    /// rows that it would save, and gather() brings the others'. So the files are read once by all
    /// of them together; by each, they would be as often as there are data ranks.
    void load_part(const char* kind, ParameterId id, DeviceSpan<float> part) {
        const Box& box = weights_.part_box(id);
        if (!data_ || weights_.data_ranks()[static_cast<std::size_t>(id)].stride != 1) {
            load(kind, id, box, part);
            return;
        }
        parts_.emplace(id, part);
        ids_.push_back(id);
        if (const auto piece = owners_->piece(data_->rank(), id)) {
            const std::int64_t first = piece->rows.begin * weights_.shape(id).cols;
            load(kind, id, piece->box_in(box), part.subspan(first, piece->size));
        }
    }
    /// Collective over the data ranks: afterwards all parts are whole.
    void gather() {
        if (!data_) return;
        sums::all_gather_rows(compute_.tools(), *data_, "weights:restore", *owners_, ids_,
                              [&](ParameterId id) {
                                  const Shape shape = weights_.shape(id);
                                  return kernels::Matrix(parts_.at(id), shape.rows, shape.cols);
                              });
        parts_.clear();
        ids_.clear();
    }

  private:
    io::CheckpointReader& reader_;
    std::string model_;
    const model::Weights& weights_;
    model::Compute& compute_;
    parallel::Communicator* data_ = nullptr;
    std::optional<parallel::ShardMap> owners_;  // of the rows of parts, over the data ranks
    std::map<ParameterId, DeviceSpan<float>> parts_;
    std::vector<ParameterId> ids_;
};

/// Without a word on whether the files are whole: reader.finish() says that, once all has been read
/// that is wanted, and reads what was not.
void read_weights(io::CheckpointReader& reader, const std::string& name, model::Weights& weights,
                  model::Compute& compute, parallel::Communicator* data) {
    reader.require_same_model(name, weights.table());
    const model::OnDevice here(compute, weights);
    Loader loader(reader, name, weights, compute, data);
    const ParameterTable& table = weights.table();
    for (ParameterId id = 0; id < table.count(); ++id) {
        const Box& box = weights.box(id);
        if (!box.empty() && weights.sharded())
            loader.load(kWeightsKind, id, box, weights.master_span(id));
        else if (!box.empty())
            loader.load_part(kWeightsKind, id, weights.master_span(id));
        // A layer is packed while the file's next bytes are on their way.
        const int layer = table[id].layer;
        if (id + 1 == table.count() || table[id + 1].layer != layer) {
            loader.gather();
            weights.pack_layer(compute, layer);
        }
    }
    weights.pack_rest(compute);
}

void read_moments(io::CheckpointReader& reader, const Environment& environment,
                  const OptimizerState& state) {
    const model::Weights& weights = environment.models.at(state.model);
    Loader loader(reader, state.model, weights, environment.compute, &environment.data());
    const bool whole = environment.physical.zero == 0;  // each data rank has them all
    const auto read = [&](const char* kind, DeviceSpan<float> moments) {
        for (const ShardPiece& piece : state.optimizer->pieces()) {
            const DeviceSpan<float> to = moments.subspan(piece.offset, piece.size);
            if (whole)
                loader.load_part(kind, piece.parameter, to);
            else
                loader.load(kind, piece.parameter, box_of(piece, weights), to);
        }
        loader.gather();
    };
    read(kFirstMomentKind, state.optimizer->first_moments());
    read(kSecondMomentKind, state.optimizer->second_moments());
}

/// Whether no two ranks read the same file: each reads what it would save, from the file where it
/// did.
bool has_own_files(const io::RunState& saved, const parallel::MeshShape& shape) {
    return saved.mesh == mesh_record(shape) && shape.data == shape.ranks();
}

}  // namespace

void load_weights(io::CheckpointReader& reader, const std::string& name, model::Weights& weights,
                  model::Compute& compute) {
    read_weights(reader, name, weights, compute, nullptr);
    reader.finish(compute.beat);
}

void restore_stage(io::CheckpointReader& reader, const Environment& environment, Stage& stage) {
    if (has_own_files(reader.state(), environment.mesh.shape())) reader.read_alone();
    for (const std::string& name : models_of(stage)) {
        read_weights(reader, name, environment.models.at(name), environment.compute,
                     &environment.data());
    }
    const auto& saved = reader.state().values;
    for (const OptimizerState& state : stage.optimizers()) {
        read_moments(reader, environment, state);
        state.optimizer->set_steps(
            std::get<std::int64_t>(saved.at(state.model + "." + kOptimizerSteps)));
    }
    reader.finish(environment.compute.beat);
    std::map<std::string, io::StateValue> own;
    constexpr std::string_view kPrefix = "stage.";
    for (const auto& [name, value] : saved) {
        if (name.starts_with(kPrefix)) own[name.substr(kPrefix.size())] = value;
    }
    stage.restore(own);
}

}  // namespace rankwise::stages
