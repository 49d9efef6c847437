#include "io/rollouts.hpp"

#include <algorithm>
#include <limits>
#include <map>

#include "io/checkpoint.hpp"
#include "io/checksum.hpp"
#include "io/hdf5_file.hpp"
#include "src/base/checked.hpp"

namespace rankwise::io {
namespace {

constexpr std::int64_t kRolloutFormat = Trajectory::kFormatVersion;

std::string part_name(std::int64_t index) {
    return fmt::format("part_{:05}.h5", index);
}

[[noreturn]] void damaged(const Path& path, const std::string& what) {
    throw CorruptFile(fmt::format(
        "{}: {}; generate the step again, or restore the file from a copy", path.string(), what));
}

void write_header(Hdf5File& file, const RolloutHeader& header) {
    file.set_attribute("/", "format", kRolloutFormat);
    file.set_attribute("/", "stage", header.stage);
    file.set_attribute("/", "step", header.step);
    file.set_attribute("/", "seed", static_cast<std::int64_t>(header.seed));
    file.set_attribute("/", "policy_version", header.policy_version);
    file.set_attribute("/", "digest/options", to_hex(header.options_digest));
    file.set_attribute("/", "digest/rollouts", to_hex(header.rollouts_digest));
}

UInt128 digest_attribute(Hdf5File& file, const std::string& name) {
    const auto value = uint128_from_hex(file.text_attribute("/", name));
    if (!value) damaged(file.path(), fmt::format("attribute {} is no digest", name));
    return *value;
}

RolloutHeader read_header(Hdf5File& file) {
    const std::int64_t format = file.int_attribute("/", "format");
    require(format <= kRolloutFormat,
            "{}: format {} is newer than this program reads ({}); use the program that wrote it",
            file.path().string(), format, kRolloutFormat);
    RolloutHeader header;
    header.stage = file.text_attribute("/", "stage");
    header.step = file.int_attribute("/", "step");
    header.seed = static_cast<std::uint64_t>(file.int_attribute("/", "seed"));
    header.policy_version = file.int_attribute("/", "policy_version");
    header.options_digest = digest_attribute(file, "digest/options");
    header.rollouts_digest = digest_attribute(file, "digest/rollouts");
    return header;
}

/// One value of every trajectory.
template <class T, class Get>
void write_each(Hdf5File& file, const std::string& name, std::span<const Trajectory> trajectories,
                const Get& get) {
    std::vector<T> values;
    values.reserve(trajectories.size());
    for (const Trajectory& t : trajectories) values.push_back(static_cast<T>(get(t)));
    file.write(name, values);
}

/// A list of every trajectory, flat; the list of trajectory i is [offsets[i], offsets[i + 1]).
template <class T, class Get>
void write_flat(Hdf5File& file, const std::string& name, const std::string& offsets_name,
                std::span<const Trajectory> trajectories, const Get& get) {
    std::vector<T> values;
    std::vector<std::int64_t> offsets{0};
    for (const Trajectory& t : trajectories) {
        const auto& list = get(t);
        values.insert(values.end(), list.begin(), list.end());
        offsets.push_back(static_cast<std::int64_t>(values.size()));
    }
    file.write(name, values);
    file.write(offsets_name, offsets);
}

void write_segments(Hdf5File& file, std::span<const Trajectory> trajectories) {
    std::vector<std::int64_t> offsets{0}, begin, end, version;
    std::vector<std::uint8_t> speaker, trainable;
    for (const Trajectory& t : trajectories) {
        for (const Segment& segment : t.segments) {
            speaker.push_back(static_cast<std::uint8_t>(segment.speaker));
            begin.push_back(segment.begin);
            end.push_back(segment.end);
            trainable.push_back(segment.trainable ? 1 : 0);
            version.push_back(segment.policy_version);
        }
        offsets.push_back(static_cast<std::int64_t>(begin.size()));
    }
    file.write("segments/offsets", offsets);
    file.write("segments/speaker", speaker);
    file.set_attribute("segments/speaker", "codes",
                       std::string("0 system, 1 user, 2 assistant, 3 tool"));
    file.write("segments/begin", begin);
    file.write("segments/end", end);
    file.write("segments/trainable", trainable);
    file.write("segments/policy_version", version);
}

/// The scores of one name; `position` is the place in its trajectory's list.
struct ScoreColumns {
    std::vector<std::int64_t> trajectory, position, begin, end;
    std::vector<double> value;
    std::vector<std::uint8_t> status;
};

void write_scores(Hdf5File& file, std::span<const Trajectory> trajectories) {
    std::map<std::string, ScoreColumns> columns;
    for (std::size_t i = 0; i < trajectories.size(); ++i) {
        const auto& scores = trajectories[i].scores;
        for (std::size_t position = 0; position < scores.size(); ++position) {
            const Score& score = scores[position];
            ensure(!score.name.empty() && score.name.find('/') == std::string::npos &&
                       score.name != ".",
                   "'{}' cannot be the name of a score: it must not be empty or have a '/'",
                   score.name);
            ScoreColumns& column = columns[score.name];
            column.trajectory.push_back(static_cast<std::int64_t>(i));
            column.position.push_back(static_cast<std::int64_t>(position));
            column.value.push_back(score.value);
            column.begin.push_back(score.begin);
            column.end.push_back(score.end);
            column.status.push_back(static_cast<std::uint8_t>(score.status));
        }
    }
    file.set_attribute("scores", "status_codes", std::string("0 ok, 1 none, 2 failed"));
    for (const auto& [name, column] : columns) {
        const std::string group = "scores/" + name;
        file.write(group + "/trajectory", column.trajectory);
        file.write(group + "/position", column.position);
        file.write(group + "/value", column.value);
        file.write(group + "/begin", column.begin);
        file.write(group + "/end", column.end);
        file.write(group + "/status", column.status);
    }
}

/// Reads columns of a part and refuses those that do not fit together.
class PartReader {
  public:
    PartReader(Hdf5File file, std::int64_t trajectories)
        : file_(std::move(file)), trajectories_(static_cast<std::size_t>(trajectories)) {}

    Hdf5File& file() { return file_; }

    template <class T, class Set>
    void each(const std::string& name, const Set& set) {
        const auto values = sized<T>(name, trajectories_.size());
        for (std::size_t i = 0; i < values.size(); ++i) set(trajectories_[i], values[i]);
    }
    void text() {
        auto values = file_.read_strings("text");
        if (values.size() != trajectories_.size()) contradicts("text");
        for (std::size_t i = 0; i < values.size(); ++i)
            trajectories_[i].text = std::move(values[i]);
    }
    /// Hands each trajectory its part of a flat list.
    template <class T>
    void flat(const std::string& name, const std::string& offsets_name,
              std::vector<T> Trajectory::*member) {
        const auto values = file_.read<T>(name);
        const auto offsets = offsets_of(offsets_name, values.size());
        for (std::size_t i = 0; i < trajectories_.size(); ++i) {
            (trajectories_[i].*member)
                .assign(values.begin() + offsets[i], values.begin() + offsets[i + 1]);
        }
    }
    void segments() {
        const auto begin = file_.read<std::int64_t>("segments/begin");
        const auto speaker = sized<std::uint8_t>("segments/speaker", begin.size());
        const auto end = sized<std::int64_t>("segments/end", begin.size());
        const auto trainable = sized<std::uint8_t>("segments/trainable", begin.size());
        const auto version = sized<std::int64_t>("segments/policy_version", begin.size());
        const auto offsets = offsets_of("segments/offsets", begin.size());
        for (std::size_t i = 0; i < trajectories_.size(); ++i) {
            for (std::int64_t at = offsets[i]; at < offsets[i + 1]; ++at) {
                const auto s = static_cast<std::size_t>(at);
                trajectories_[i].segments.push_back(
                    {code<Speaker>("segments/speaker", speaker[s], Speaker::tool), begin[s], end[s],
                     trainable[s] != 0, version[s]});
            }
        }
    }
    void scores() {
        for (const std::string& name : file_.members("scores")) {
            const std::string group = "scores/" + name;
            const auto trajectory = file_.read<std::int64_t>(group + "/trajectory");
            const auto position = sized<std::int64_t>(group + "/position", trajectory.size());
            const auto value = sized<double>(group + "/value", trajectory.size());
            const auto begin = sized<std::int64_t>(group + "/begin", trajectory.size());
            const auto end = sized<std::int64_t>(group + "/end", trajectory.size());
            const auto status = sized<std::uint8_t>(group + "/status", trajectory.size());
            for (std::size_t i = 0; i < trajectory.size(); ++i) {
                if (trajectory[i] < 0 ||
                    trajectory[i] >= static_cast<std::int64_t>(trajectories_.size()) ||
                    position[i] < 0 || position[i] > std::numeric_limits<std::int32_t>::max()) {
                    contradicts(group);
                }
                auto& scores = scores_[static_cast<std::size_t>(trajectory[i])];
                scores.emplace(position[i],
                               Score{name, value[i], begin[i], end[i],
                                     code<ScoreStatus>(group, status[i], ScoreStatus::failed)});
            }
        }
        for (auto& [i, by_position] : scores_) {
            for (auto& [position, score] : by_position) {
                if (position != static_cast<std::int64_t>(trajectories_[i].scores.size())) {
                    contradicts("scores");
                }
                trajectories_[i].scores.push_back(std::move(score));
            }
        }
    }
    template <class E>
    E code(const std::string& name, std::uint8_t value, E last) {
        if (value > static_cast<std::uint8_t>(last)) contradicts(name);
        return static_cast<E>(value);
    }
    std::vector<Trajectory> take() { return std::move(trajectories_); }

  private:
    [[noreturn]] void contradicts(const std::string& name) {
        damaged(file_.path(), fmt::format("dataset {} does not fit the others", name));
    }
    template <class T>
    std::vector<T> sized(const std::string& name, std::size_t size) {
        auto values = file_.read<T>(name);
        if (values.size() != size) contradicts(name);
        return values;
    }
    std::vector<std::int64_t> offsets_of(const std::string& name, std::size_t size) {
        auto offsets = sized<std::int64_t>(name, trajectories_.size() + 1);
        if (offsets.front() != 0 || offsets.back() != static_cast<std::int64_t>(size) ||
            !std::is_sorted(offsets.begin(), offsets.end())) {
            contradicts(name);
        }
        return offsets;
    }

    Hdf5File file_;
    std::vector<Trajectory> trajectories_;
    std::map<std::size_t, std::map<std::int64_t, Score>> scores_;
};

std::vector<Trajectory> read_part(FileSystem& fs, const Path& path, const RolloutPart& part,
                                  const RolloutHeader& header) {
    if (!fs.exists(path)) damaged(path, "the file is missing");
    {
        const auto raw = fs.open(path, OpenMode::read);
        const std::int64_t size = raw->size();
        const UInt128 found = checksum_of(*raw);
        if (size != part.bytes || found != part.checksum) {
            damaged(path,
                    fmt::format("checksum differs (expected {} of {} bytes, found {} of {} bytes)",
                                to_hex(part.checksum), part.bytes, to_hex(found), size));
        }
    }
    PartReader in(Hdf5File::open(fs, path), part.trajectories);
    if (read_header(in.file()) != header) damaged(path, "the file belongs to another step or run");
    in.flat<TokenId>("tokens", "offsets", &Trajectory::tokens);
    in.flat<float>("logprobs", "offsets", &Trajectory::logprobs);
    in.flat<float>("values", "value_offsets", &Trajectory::values);
    in.each<std::uint64_t>("prompt_id", [](Trajectory& t, std::uint64_t v) { t.prompt_id = v; });
    in.each<std::int64_t>("group", [](Trajectory& t, std::int64_t v) { t.group = v; });
    in.each<std::int32_t>("sample", [](Trajectory& t, std::int32_t v) { t.sample = v; });
    in.each<std::int64_t>("parent", [](Trajectory& t, std::int64_t v) { t.parent = v; });
    in.each<double>("reward", [](Trajectory& t, double v) { t.reward = v; });
    in.each<double>("advantage", [](Trajectory& t, double v) { t.advantage = v; });
    in.each<std::uint8_t>("finish_reason", [&](Trajectory& t, std::uint8_t v) {
        t.finish_reason = in.code<FinishReason>("finish_reason", v, FinishReason::context);
    });
    in.text();
    in.segments();
    in.scores();
    return in.take();
}

}  // namespace

RolloutPart write_rollout_part(FileSystem& fs, const Path& directory, std::int64_t index,
                               const RolloutHeader& header,
                               std::span<const Trajectory> trajectories) {
    for (const Trajectory& t : trajectories) {
        ensure(t.logprobs.size() == t.tokens.size(),
               "prompt {}, sample {}: {} log-probabilities for {} tokens", t.prompt_id, t.sample,
               t.logprobs.size(), t.tokens.size());
    }
    Hdf5File file = Hdf5File::create(fs, directory / part_name(index));
    write_header(file, header);
    const auto tokens = [](const Trajectory& t) -> const auto& {
        return t.tokens;
    };
    write_flat<TokenId>(file, "tokens", "offsets", trajectories, tokens);
    std::vector<float> logprobs;
    for (const Trajectory& t : trajectories) {
        logprobs.insert(logprobs.end(), t.logprobs.begin(), t.logprobs.end());
    }
    file.write("logprobs", logprobs);
    write_flat<float>(
        file, "values", "value_offsets", trajectories,
        [](const Trajectory& t) -> const auto& { return t.values; });
    write_each<std::uint64_t>(file, "prompt_id", trajectories,
                              [](const auto& t) { return t.prompt_id; });
    write_each<std::int64_t>(file, "group", trajectories, [](const auto& t) { return t.group; });
    write_each<std::int32_t>(file, "sample", trajectories, [](const auto& t) { return t.sample; });
    write_each<std::int64_t>(file, "parent", trajectories, [](const auto& t) { return t.parent; });
    write_each<double>(file, "reward", trajectories, [](const auto& t) { return t.reward; });
    write_each<double>(file, "advantage", trajectories, [](const auto& t) { return t.advantage; });
    write_each<std::uint8_t>(file, "finish_reason", trajectories,
                             [](const auto& t) { return t.finish_reason; });
    file.set_attribute("finish_reason", "codes",
                       fmt::format("0 {}, 1 {}, 2 {}, 3 {}", name_of(FinishReason::unfinished),
                                   name_of(FinishReason::stop), name_of(FinishReason::length),
                                   name_of(FinishReason::context)));
    std::vector<std::string> texts;
    for (const Trajectory& t : trajectories) texts.push_back(t.text);
    file.write_strings("text", texts);
    write_segments(file, trajectories);
    write_scores(file, trajectories);
    const auto written = file.close();
    return {index, static_cast<std::int64_t>(trajectories.size()), written.bytes, written.checksum};
}

Path commit_rollouts(FileSystem& fs, const Path& dir, const RolloutHeader& header,
                     std::span<const RolloutPart> parts) {
    std::vector<RolloutPart> sorted(parts.begin(), parts.end());
    std::sort(sorted.begin(), sorted.end(),
              [](const RolloutPart& a, const RolloutPart& b) { return a.index < b.index; });
    std::vector<std::string> files, checksums;
    std::vector<std::int64_t> index, trajectories, bytes;
    for (const RolloutPart& part : sorted) {
        files.push_back(part_name(part.index));
        checksums.push_back(to_hex(part.checksum));
        index.push_back(part.index);
        trajectories.push_back(part.trajectories);
        bytes.push_back(part.bytes);
    }
    Path temporary = dir / step_name(header.step);
    temporary += ".tmp";
    Hdf5File file = Hdf5File::create(fs, temporary / "manifest.h5");
    write_header(file, header);
    file.write_strings("parts/file", files);
    file.write_strings("parts/checksum", checksums);
    file.write("parts/index", index);
    file.write("parts/trajectories", trajectories);
    file.write("parts/bytes", bytes);
    file.close();
    return finish_step(fs, dir, header.step);
}

Rollouts read_rollouts(FileSystem& fs, const Path& path) {
    const Path manifest = path / "manifest.h5";
    if (!fs.exists(manifest))
        damaged(manifest, "there is no manifest, so the rollouts were never finished");
    Hdf5File file = Hdf5File::open(fs, manifest);
    Rollouts rollouts;
    rollouts.header = read_header(file);
    const auto checksums = file.read_strings("parts/checksum");
    const auto index = file.read<std::int64_t>("parts/index");
    const auto trajectories = file.read<std::int64_t>("parts/trajectories");
    const auto bytes = file.read<std::int64_t>("parts/bytes");
    const std::size_t count = index.size();
    if (checksums.size() != count || trajectories.size() != count || bytes.size() != count) {
        damaged(manifest, "the list of parts contradicts itself");
    }
    for (std::size_t i = 0; i < count; ++i) {
        const auto checksum = uint128_from_hex(checksums[i]);
        if (!checksum || trajectories[i] < 0)
            damaged(manifest, "the list of parts is no such list");
        auto part = read_part(fs, path / part_name(index[i]),
                              {index[i], trajectories[i], bytes[i], *checksum}, rollouts.header);
        std::move(part.begin(), part.end(), std::back_inserter(rollouts.trajectories));
    }
    return rollouts;
}

}  // namespace rankwise::io
