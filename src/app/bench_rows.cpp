#include "src/app/bench_rows.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <time.h>

#include <algorithm>
#include <sstream>

#include "src/app/nearest.hpp"
#include "src/app/recipe.hpp"
#include "src/model/held_parts.hpp"

namespace rankwise::app {
namespace {

/// Whether `row` is `choice` or lies below it.
bool lies_below(const std::string& row, const std::string& choice) {
    return row == choice || (row.starts_with(choice) && row[choice.size()] == '/');
}

/// Processor time of the calling thread.
class ThreadClock final : public Clock {
  public:
    [[nodiscard]] double now_s() const override {
        timespec time{};
        ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
        return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
    }
};

std::unique_ptr<Clock> make_clock(bool processor_time) {
    if (processor_time) return std::make_unique<ThreadClock>();
    return std::make_unique<SteadyClock>();
}

}  // namespace

BenchSizes usual_sizes() {
    return {.matmuls = {{128, 256},
                        {128, 768},
                        {384, 128},
                        {256, 256},
                        {512, 512},
                        {576, 576},
                        {576, 1536},
                        {1536, 576},
                        {1024, 1024},
                        {2048, 2048}},
            .matmul_rows = {8, 64, 512},
            .attention_tokens = {8192, 32768},
            .models = bench_models(),
            .decode_batches = {1, 8, 64, 512}};
}

BenchContext::BenchContext(Session& session, const BenchOptions& options, const BenchSizes& sizes)
    : session_(session),
      options_(options),
      clock_(make_clock(options.processor_time)),
      files_(io::posix_file_system()),
      device_(options.device.make()),
      stream_(device_->make_stream()),
      arena_(std::make_unique<kernels::Arena>(*device_)),
      compute_(std::make_unique<model::Compute>(model::Compute{*device_, *stream_, *arena_})),
      limits_(std::make_unique<DeviceLimits>(*device_, *stream_, *clock_, sizes.stream_bytes)),
      mesh_(std::make_unique<parallel::Mesh>(session.world(),
                                             options.parallel.shape(session.size()))) {
    require(mesh_->shape().data * mesh_->shape().tensor == session.size(),
            "rankwise bench measures data and tensor ranks: leave out the other axes of "
            "[parallel]");
}

BenchContext::~BenchContext() = default;

stages::PhysicalOptions BenchContext::physical() const {
    return {.slots = options_.generation.slots,
            .prefill_tokens = options_.generation.prefill_tokens,
            .deal_interval = options_.generation.deal_interval,
            .recompute = options_.update.layers_again(),
            .head_bytes = options_.update.head_bytes,
            .head = options_.update.logits(),
            .zero = options_.parallel.zero};
}

void BenchContext::expect_peak(DType type, Meter& meter) const {
    using kernels::Arithmetic;
    if (type == DType::bf16 && device().spin(Arithmetic::bf16, 1, stream()) > 0)
        meter.expect(Arithmetic::bf16);
}

const char* suffix_of(DType type) {
    return type == DType::bf16 ? "_bf16" : "";
}

model::ModelSet& BenchContext::models(const BenchModel& model) {
    const std::string wanted = model.name + suffix_of(model.config.dtype);
    if (model_ == wanted) return *models_;
    for (const std::string& problem : model::misfits(model.name, model.config, mesh_->shape(),
                                                     parallel::Schedule::one_forward_one_backward))
        throw BadInput("[parallel] " + problem);
    models_.reset();  // before the new one is made
    models_ = std::make_unique<model::ModelSet>();
    model_ = wanted;
    model::Weights& policy =
        models_->add("policy", std::make_unique<model::Weights>(
                                   *device_, model.config, model::Passes::forward_and_backward,
                                   stages::model_axes(*mesh_, physical())));
    fill_for_bench(policy, *compute_);
    return *models_;
}

kernels::DeviceBuffer<float> BenchContext::random(std::int64_t size) {
    kernels::DeviceBuffer<float> buffer(*device_, size);
    std::vector<float> values(static_cast<std::size_t>(size));
    std::uint32_t state = 1;
    for (float& value : values) {  // a linear congruential generator: fast, and good enough
        state = state * 1664525U + 1013904223U;
        value = static_cast<float>(state >> 8U) * 0x1p-24F - 0.5F;
    }
    device_->upload(std::span<const float>(values), buffer.span(), *stream_);
    return buffer;
}

kernels::DeviceBuffer<std::byte> BenchContext::random(std::int64_t size, DType type) {
    const auto floats = random(size);
    kernels::DeviceBuffer<std::byte> elements(*device_, size * size_of(type));
    device_->round({.from = kernels::ConstMatrix(floats.span(), 1, size),
                    .to = {elements.span().handle(), type, 1, size, size}},
                   *stream_);
    return elements;
}

kernels::DeviceBuffer<float> BenchContext::zeros(std::int64_t size) {
    kernels::DeviceBuffer<float> buffer(*device_, size);
    device_->zero(cast_span<std::byte>(buffer.span()), *stream_);
    return buffer;
}

std::vector<BenchRow> bench_rows(const BenchSizes& sizes, const BenchOptions& options, int ranks) {
    std::vector<BenchRow> rows;
    append_limit_rows(sizes, options, ranks, rows);
    append_matmul_rows(sizes, rows);
    append_attention_rows(sizes, rows);
    append_element_rows(sizes, rows);
    append_phase_rows(sizes, rows);
    append_sum_rows(sizes, ranks, rows);
    append_step_rows(sizes, rows);
    append_file_rows(sizes, rows);
    return rows;
}

std::vector<BenchRow> chosen_rows(std::vector<BenchRow> rows, const std::string& only) {
    if (only.empty()) return rows;
    std::vector<std::string> choices;
    std::istringstream in(only);
    for (std::string choice; std::getline(in, choice, ',');) choices.push_back(choice);
    std::vector<std::string> problems;
    for (const std::string& choice : choices) {
        if (std::ranges::any_of(rows,
                                [&](const BenchRow& row) { return lies_below(row.name, choice); }))
            continue;
        std::vector<std::string> groups;  // in order, each once
        std::vector<std::string> names;
        for (const BenchRow& row : rows) {
            const std::string group = row.name.substr(0, row.name.find('/'));
            if (std::ranges::find(groups, group) == groups.end()) groups.push_back(group);
            names.push_back(row.name);
        }
        names.insert(names.end(), groups.begin(), groups.end());
        const std::string near = nearest(choice, names);
        problems.push_back(fmt::format(
            "--only {}: there is no such row{}; there are {} (--list shows what is in each)",
            choice, near.empty() ? "" : fmt::format("; did you mean {}?", near),
            fmt::join(groups, ", ")));
    }
    if (!problems.empty()) throw Problems(std::move(problems));
    std::erase_if(rows, [&](const BenchRow& row) {
        return std::ranges::none_of(
            choices, [&](const std::string& choice) { return lies_below(row.name, choice); });
    });
    return rows;
}

}  // namespace rankwise::app
