// Reading the tensors of a Hugging Face folder (safetensors: 8-byte little-endian length, JSON
// header, data).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "io/fs.hpp"
#include "src/base/box.hpp"
#include "src/base/dtype.hpp"

namespace rankwise::io {

class MappedFile;

/// Where one tensor lies.
struct SafetensorsEntry {
    DType dtype = DType::f32;
    std::vector<std::int64_t> shape;  ///< as the file says, any number of dimensions
    std::string file;                 ///< path, for messages
    std::span<const std::byte> bytes;
};

/// Rows and columns of the blocks of an F8_E4M3 tensor X that share a scale, which X_scale_inv
/// holds: F32 [blocks of rows, blocks of columns], the last ones perhaps cut short.
struct Fp8Blocks {
    std::int64_t rows = 128;
    std::int64_t cols = 128;
};

/// All tensors of `model.safetensors`, or of the files that `model.safetensors.index.json` names.
/// Files are mapped, so only what is read takes memory. Reading is safe from several threads.
///
/// Errors are BadInput that names file and tensor: no such file; a header that is cut short, too
/// long or no JSON; a tensor with an unknown dtype, offsets that leave the file, overlap another
/// tensor or do not fit its shape; a shard or a tensor that the index names and is not there; a
/// tensor twice.
class SafetensorsFolder {
  public:
    /// @param path  the folder, or one .safetensors file.
    explicit SafetensorsFolder(const Path& path, Fp8Blocks blocks = {});
    ~SafetensorsFolder();
    SafetensorsFolder(SafetensorsFolder&&) noexcept;
    SafetensorsFolder& operator=(SafetensorsFolder&&) noexcept;

    /// Ascending.
    [[nodiscard]] const std::vector<std::string>& names() const { return names_; }
    [[nodiscard]] bool has(std::string_view name) const;
    /// @throws BadInput if there is no such tensor (names the folder and the nearest name).
    [[nodiscard]] const SafetensorsEntry& at(std::string_view name) const;
    /// @throws BadInput unless the tensor has one or two dimensions and this shape.
    void require_shape(std::string_view name, Shape shape) const;

    /// A box of an F32, BF16 or F16 tensor as floats, exactly, row by row; of an F8_E4M3 tensor
    /// each value times its block's scale, rounded once. @throws BadInput for other dtypes, a box
    /// that leaves the tensor, scales that are missing or do not fit.
    void read(std::string_view name, const Box& box, std::span<float> values) const;
    /// A box as it is in the file (F8_E4M3 and integers too), row by row.
    void read_raw(std::string_view name, const Box& box, std::span<std::byte> bytes) const;

  private:
    void add_file(const Path& path);
    void read_fp8(std::string_view name, const Box& box, std::span<float> values) const;

    Path path_;
    Fp8Blocks blocks_;
    std::vector<std::unique_ptr<MappedFile>> files_;
    std::unordered_map<std::string, SafetensorsEntry> tensors_;
    std::vector<std::string> names_;
};

/// The name of the scales of an F8_E4M3 tensor.
[[nodiscard]] std::string scales_of(std::string_view name);

/// The two-dimensional shape of a tensor with one or two dimensions; a scalar is a vector of one.
/// @throws BadInput for more dimensions (`where` is named).
[[nodiscard]] Shape shape_of(std::span<const std::int64_t> shape, const std::string& where);

}  // namespace rankwise::io
