// Writing a Hugging Face folder's tensors a few rows at a time, so that nobody needs the whole
// model in memory.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/fs.hpp"
#include "src/base/box.hpp"
#include "src/base/dtype.hpp"

namespace rankwise::io {

/// Writes `model.safetensors`, or numbered shards and `model.safetensors.index.json`. Files have
/// their final names only after finish(); an index is written last.
class SafetensorsWriter {
  public:
    struct Tensor {
        std::string name;
        Shape shape;
        DType dtype = DType::f32;
    };

    /// Lays the files out, tensors in the order given, a new file before one that would grow beyond
    /// `max_file_bytes`.
    /// @throws InternalError on a repeated name or no tensor; EnvironmentError from the file
    /// system.
    SafetensorsWriter(FileSystem& fs, Path folder, std::vector<Tensor> tensors,
                      std::int64_t max_file_bytes = std::int64_t{5} << 30U);
    ~SafetensorsWriter();
    SafetensorsWriter(const SafetensorsWriter&) = delete;
    SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;

    /// Rows [row, row + n) of an F32 or BF16 tensor (to nearest even), in any order, each row once.
    void write_rows(std::string_view name, std::int64_t row, std::span<const float> values);
    /// Rows in the tensor's own dtype.
    void write_rows_raw(std::string_view name, std::int64_t row, std::span<const std::byte> bytes);

    /// Syncs and renames. @throws InternalError naming the first tensor of which a row was not
    /// written, or one twice.
    void finish();

  private:
    struct Placed {
        Tensor tensor;
        std::int64_t file = 0;
        std::int64_t offset = 0;    ///< in the file
        std::vector<bool> written;  ///< per row
    };
    struct Output {
        std::string name;
        std::unique_ptr<File> file;
        std::int64_t data_bytes = 0;
    };
    Placed& placed(std::string_view name);
    void write_header(std::int64_t file);

    FileSystem& fs_;
    Path folder_;
    std::vector<Placed> tensors_;
    std::map<std::string, std::size_t, std::less<>> places_;
    std::vector<Output> files_;
    bool finished_ = false;
};

}  // namespace rankwise::io
