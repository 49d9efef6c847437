// What `rankwise bench` measures: a table of rows, and what they compute with.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "io/fs.hpp"
#include "kernels/device.hpp"
#include "parallel/mesh.hpp"
#include "src/app/bench_meter.hpp"
#include "src/app/bench_models.hpp"
#include "src/app/engine_options.hpp"
#include "src/app/session.hpp"
#include "src/model/model_set.hpp"

namespace rankwise::app {

/// How large the rows are. Tests take tiny ones.
struct BenchSizes {
    std::vector<std::pair<std::int64_t, std::int64_t>> matmuls;  ///< (inputs, outputs)
    std::vector<std::int64_t> matmul_rows;
    std::int64_t update_rows = 2048;
    std::vector<std::int64_t> attention_tokens;
    std::int64_t head_vocabulary = 49152;
    std::int64_t elements = std::int64_t{16} << 20;  ///< of what goes through element by element
    std::vector<BenchModel> models;
    std::vector<std::int64_t> decode_batches;
    std::int64_t prefill_prompts = 32;
    std::int64_t prefill_tokens = 128;
    std::int64_t stream_bytes = std::int64_t{512} << 20;
    std::int64_t link_bytes = std::int64_t{64} << 20;
};
[[nodiscard]] BenchSizes usual_sizes();

/// How rows compute: [device], [parallel], [generation], [update].
struct BenchOptions {
    DeviceOptions device;
    ParallelOptions parallel;
    GenerationOptions generation;
    UpdateOptions update;
    MeterOptions meter;
    bool processor_time = false;  ///< of the one thread that computes, instead of the clock on the
                                  ///< wall: other programs cannot take of it
    io::Path folder;              ///< for files that are measured; made, and removed
};

/// What rows share.
class BenchContext {
  public:
    /// Collective.
    BenchContext(Session& session, const BenchOptions& options, const BenchSizes& sizes);
    BenchContext(const BenchContext&) = delete;
    BenchContext& operator=(const BenchContext&) = delete;
    ~BenchContext();

    [[nodiscard]] parallel::Communicator& world() const { return session_.world(); }
    [[nodiscard]] const BenchOptions& options() const { return options_; }
    [[nodiscard]] const Clock& clock() const { return *clock_; }
    [[nodiscard]] kernels::Device& device() const { return *device_; }
    [[nodiscard]] kernels::Stream& stream() const { return *stream_; }
    [[nodiscard]] model::Compute& compute() const { return *compute_; }
    [[nodiscard]] DeviceLimits& limits() const { return *limits_; }
    [[nodiscard]] const parallel::Mesh& mesh() const { return *mesh_; }
    [[nodiscard]] io::FileSystem& files() const { return *files_; }
    [[nodiscard]] stages::PhysicalOptions physical() const;

    /// Operations of a type are compared with the peak of the arithmetic that the device has for
    /// it: without any for bf16, elements are widened.
    void expect_peak(DType type, Meter& meter) const;

    /// The set whose policy is this model, filled and packed for forward and backward passes. Kept
    /// until another is asked for.
    [[nodiscard]] model::ModelSet& models(const BenchModel& model);

    /// Device memory with small random numbers.
    [[nodiscard]] kernels::DeviceBuffer<float> random(std::int64_t size);
    /// The same as elements of a type.
    [[nodiscard]] kernels::DeviceBuffer<std::byte> random(std::int64_t size, DType type);
    [[nodiscard]] kernels::DeviceBuffer<float> zeros(std::int64_t size);

  private:
    Session& session_;
    BenchOptions options_;
    std::unique_ptr<Clock> clock_;
    std::unique_ptr<io::FileSystem> files_;
    std::unique_ptr<kernels::Device> device_;
    std::unique_ptr<kernels::Stream> stream_;
    std::unique_ptr<kernels::Arena> arena_;
    std::unique_ptr<model::Compute> compute_;
    std::unique_ptr<DeviceLimits> limits_;
    std::unique_ptr<parallel::Mesh> mesh_;
    std::unique_ptr<model::ModelSet> models_;
    std::string model_;  // whose models_ these are, and the type they compute in
};

/// What a row's name has behind its first word where it computes in this type: "", "_bf16".
[[nodiscard]] const char* suffix_of(DType type);

/// What a row says besides its times.
struct RowFacts {
    BenchWork work;         ///< of one call, on this rank
    double units = 0.0;     ///< of what a user counts, over all ranks …
    std::string unit = {};  ///< … "tokens"
};

/// One row of the table.
struct BenchRow {
    std::string name;  ///< "matmul/128x256/64": from the general to the particular
    std::string what;  ///< one line for --list
    /// Collective. Measures with the meter.
    std::function<RowFacts(BenchContext& context, Meter& meter)> run;
};

// Each family appends its rows.
void append_limit_rows(const BenchSizes& sizes, const BenchOptions& options, int ranks,
                       std::vector<BenchRow>& rows);
void append_matmul_rows(const BenchSizes& sizes, std::vector<BenchRow>& rows);
void append_attention_rows(const BenchSizes& sizes, std::vector<BenchRow>& rows);
void append_element_rows(const BenchSizes& sizes, std::vector<BenchRow>& rows);
void append_phase_rows(const BenchSizes& sizes, std::vector<BenchRow>& rows);
void append_sum_rows(const BenchSizes& sizes, int ranks, std::vector<BenchRow>& rows);
void append_step_rows(const BenchSizes& sizes, std::vector<BenchRow>& rows);
void append_file_rows(const BenchSizes& sizes, std::vector<BenchRow>& rows);

/// All rows, in the order in which they are measured. @param ranks  of the job: some rows need
/// several
[[nodiscard]] std::vector<BenchRow> bench_rows(const BenchSizes& sizes, const BenchOptions& options,
                                               int ranks);

/// Those that `only` chooses: names, or beginnings of names up to a "/", with commas between them;
/// empty: all.
/// @throws Problems that list what can be chosen, if one chooses nothing.
[[nodiscard]] std::vector<BenchRow> chosen_rows(std::vector<BenchRow> rows,
                                                const std::string& only);

}  // namespace rankwise::app
