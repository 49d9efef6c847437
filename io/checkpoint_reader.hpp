// Reading a checkpoint into any layout: the caller asks for boxes, whatever boxes the writers had.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "io/fs.hpp"
#include "io/manifest.hpp"
#include "io/verified_file.hpp"

namespace rankwise::io {

/// A checkpoint that is verified while it is read. A shard is opened when a box of it is first
/// wanted; its size is checked then, its checksum by finish(), which reads what nobody asked for.
/// Nothing that was read may be used before finish() has returned. Where the data lies is in the
/// manifest, so that HDF5 never looks into a file that may be damaged. Not for use by several
/// threads at a time.
///
/// Errors are CorruptFile (a shard missing, cut short, altered, of another checkpoint), each naming
/// file, what was expected and found, and the newest whole checkpoint before this one; BadInput for
/// what was never saved here or another model.
class CheckpointReader {
  public:
    /// @param alone  no other process of this machine reads the same files: they need not come
    /// through the system's cache, which brings them once for all, at the price of a copy
    /// @throws as read_manifest.
    CheckpointReader(FileSystem& fs, Path path, bool alone = false);
    /// As if made so: once it is known who reads which files.
    void read_alone() { alone_ = true; }

    [[nodiscard]] const Manifest& manifest() const { return manifest_; }
    [[nodiscard]] const RunState& state() const { return manifest_.state; }
    [[nodiscard]] const Path& path() const { return path_; }

    [[nodiscard]] bool has(const std::string& model, const std::string& kind) const;
    /// @throws BadInput naming the first parameter whose name or shape differs from `table`'s, or a
    /// model that is not here.
    void require_same_model(const std::string& model, const ParameterTable& table) const;

    /// Copies `box` of a parameter, row by row, into `bytes` (box.size() elements of `dtype`, which
    /// is what was saved).
    /// @throws BadInput if that was not saved, or not with this dtype.
    void read(const std::string& model, const std::string& kind, ParameterId parameter,
              const Box& box, DType dtype, std::span<std::byte> bytes);

    /// The same for whoever copies elsewhere: `take(first, piece)` is given the bytes that lie from
    /// byte `first` of that copy on, in memory that is there for the call alone. Pieces come in any
    /// order and are as long as files allow.
    using Take = std::function<void(std::int64_t first, std::span<const std::byte> piece)>;
    void visit(const std::string& model, const std::string& kind, ParameterId parameter,
               const Box& box, DType dtype, const Take& take);

    /// Compares the checksums of all files that were opened since the last call.
    /// @param moved  told of each stretch that is still to be read; null: nobody is
    void finish(const std::function<void()>& moved = {});
    /// Files that a read has opened so far.
    [[nodiscard]] std::int64_t files_opened() const;

  private:
    struct Place {
        ParameterId parameter = 0;
        std::int32_t file = 0;
        std::int32_t content = 0;
        std::int32_t box = 0;
    };
    struct Shard {
        std::unique_ptr<VerifiedFile> file;
        bool verified = false;
        std::vector<std::vector<std::int64_t>> offsets;  ///< per content, per box
    };
    const std::vector<Place>& places(const std::string& model, const std::string& kind);
    VerifiedFile& open(std::int64_t index);
    void finish(std::int64_t index, const std::function<void()>& moved);
    /// If a file that is not as it was written is another checkpoint's, that is the error.
    void refuse_anothers(const ShardEntry& entry) const;
    [[noreturn]] void corrupt(const std::string& file, const std::string& what) const;

    FileSystem& fs_;
    Path path_;
    bool alone_;
    Manifest manifest_;
    std::map<std::pair<std::string, std::string>, std::vector<Place>> places_;
    std::vector<Shard> shards_;
};

}  // namespace rankwise::io
