#include "kernels/attention.hpp"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "kernels/cpu/attention_call.hpp"
#include "kernels/cpu/attention_chunks.hpp"
#include "kernels/cpu/checks.hpp"
#include "kernels/cpu/cpu_device.hpp"

namespace rankwise::kernels::cpu {
namespace {

/// Rows of one run that are attended to together; or runs of one row each that share a beginning:
/// `forks` of them, from `source` on in a list of forks.
struct Chunk {
    std::int32_t source = 0;
    Range rows;  ///< inside the source
    std::int64_t forks = 0;
    std::int64_t shared = 0;  ///< positions, of forks
};

/// Tasks that forks are split into, where one prompt has them all.
constexpr std::int64_t kTasksAThread = 4;
/// Rows a task when rows are only moved: few, so that a thread writes the keys that it reads next.
constexpr std::int64_t kRowsMoved = 8;

/// Runs from `first` on that share a beginning, one row each; 1: it is alone.
std::int64_t count_forks(std::span<const PagedRun> runs, std::int64_t first) {
    const auto run = [&](std::int64_t i) -> const PagedRun& {
        return runs[static_cast<std::size_t>(i)];
    };
    std::int64_t end = first + 1;
    if (run(first).rows != 1 || end == std::ssize(runs)) return 1;
    const std::int64_t shared = run(end).shared;
    while (end < std::ssize(runs) && run(end).rows == 1 && run(end).shared == shared && shared > 0)
        ++end;
    return end - first;
}

/// Runs [first, first + count) as forks, and those in chunks of about the same size, at most
/// `most`: enough of them for every thread to have some. Positions ascend in a chunk.
void append_forks(const PagedAttentionArgs& args, std::int64_t first, std::int64_t count,
                  std::int64_t most, std::vector<AttentionFork>& forks,
                  std::vector<Chunk>& chunks) {
    const auto begin = std::ssize(forks);
    for (const PagedRun& run :
         args.runs.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count))) {
        forks.push_back({.row = run.row_begin,
                         .position = run.position,
                         .table = args.page_table.data() + run.page_begin});
    }
    std::sort(
        forks.begin() + begin, forks.end(),
        [](const AttentionFork& a, const AttentionFork& b) { return a.position < b.position; });
    const std::int64_t parts = ceil_div(count, most);
    for (std::int64_t part = 0; part < parts; ++part) {
        const Range range = split(count, parts, part);
        chunks.push_back({.source = narrow<std::int32_t>(begin + range.begin),
                          .forks = range.size(),
                          .shared = args.runs[static_cast<std::size_t>(first + 1)].shared});
    }
}

void check_pages(const char* op, const KvPages& pages) {
    ensure(pages.dtype == DType::f32 || pages.dtype == DType::bf16,
           "{}: pages of {}; this device keeps F32 and BF16", op, name_of(pages.dtype));
    ensure(pages.dtype == DType::f32 || pages.head_dim % 2 == 0,
           "{}: keys of size {}, of which BF16 elements make no pairs", op, pages.head_dim);
    ensure(pages.kv_heads > 0 && pages.head_dim > 0 && pages.value_dim > 0 && pages.pages >= 0,
           "{}: {} pages of {} KV heads of size {} with values of size {}", op, pages.pages,
           pages.kv_heads, pages.head_dim, pages.value_dim);
}

void check_page(const char* op, std::int64_t page, const KvPages& pages) {
    ensure(page >= 0 && page < pages.pages, "{}: page {} of {}", op, page, pages.pages);
}

/// Each row of `rows` in one run, and each run's pages there.
void check_runs(const PagedAttentionArgs& args) {
    thread_local std::vector<Range> ranges;
    ranges.clear();
    for (const PagedRun& run : args.runs) {
        ensure(run.rows >= 0 && run.row_begin >= 0 && run.position >= 0,
               "paged_attention: a run of {} rows from row {} on at position {}", run.rows,
               run.row_begin, run.position);
        const std::int64_t before = &run == args.runs.data() ? 0 : (&run - 1)->position;
        ensure(run.shared >= 0 && run.shared <= std::min(run.position, before),
               "paged_attention: a run at position {} shares {} positions with one at {}",
               run.position, run.shared, before);
        if (run.rows == 0) continue;
        ranges.push_back({run.row_begin, run.row_begin + run.rows});
        const std::int64_t pages = ceil_div(run.position + run.rows, kKeyBlock);
        ensure(run.page_begin >= 0 && run.page_begin + pages <= std::ssize(args.page_table),
               "paged_attention: a run has pages [{}, {}) of a table of {}", run.page_begin,
               run.page_begin + pages, args.page_table.size());
        for (std::int64_t i = 0; i < pages; ++i) {
            check_page("paged_attention",
                       args.page_table[static_cast<std::size_t>(run.page_begin + i)], args.pages);
        }
    }
    std::sort(ranges.begin(), ranges.end(),
              [](const Range& a, const Range& b) { return a.begin < b.begin; });
    std::int64_t row = 0;
    for (const Range& range : ranges) {
        ensure(range.begin == row, "paged_attention: row {} is in no run, or row {} in two", row,
               range.begin);
        row = range.end;
    }
    ensure(row == args.q.rows, "paged_attention: the runs cover {} rows of {}", row, args.q.rows);
}

/// A key into its place among those of a page: pairs of bf16 elements stay together.
void write_key(const float* from, std::int64_t head_dim, float* to) {
    for (std::int64_t d = 0; d < head_dim; ++d) to[d * kKeyPanel] = from[d];
}
void write_key(const std::uint16_t* from, std::int64_t head_dim, std::uint16_t* to) {
    for (std::int64_t d = 0; d < head_dim; d += 2) std::copy_n(from + d, 2, to + d * kKeyPanel);
}

}  // namespace

void CpuDevice::kv_write(const KvWriteArgs& args, Stream& /*stream*/) {
    const KvPages& pages = args.pages;
    check_pages("kv_write", pages);
    const std::int64_t rows = std::ssize(args.slots);
    const std::int64_t head_dim = pages.head_dim;
    const std::int64_t value_dim = pages.value_dim;
    check_operand("kv_write", "k", args.k, pages.dtype, rows, pages.kv_heads * head_dim);
    check_operand("kv_write", "v", args.v, pages.dtype, rows, pages.kv_heads * value_dim);
    for (std::int64_t slot : args.slots)
        check_page("kv_write", slot < 0 ? -1 : slot / kKeyBlock, pages);
    with_elements(pages.dtype, [&]<class Element>(Element /*element*/) {
        const auto* k = elements<Element>(args.k);
        const auto* v = elements<Element>(args.v);
        auto* base = reinterpret_cast<Element*>(at(pages.handle));
        constexpr std::int64_t kTogether = std::is_same_v<Element, float> ? 1 : 2;
        team_->run(ceil_div(rows, kRowsMoved), [&](std::int64_t task) {
            const std::int64_t end = std::min(rows, (task + 1) * kRowsMoved);
            for (std::int64_t t = task * kRowsMoved; t < end; ++t) {
                const std::int64_t slot = args.slots[static_cast<std::size_t>(t)];
                const std::int64_t place = slot % kKeyBlock;
                Element* page = base + slot / kKeyBlock * pages.page_elements();
                for (std::int64_t head = 0; head < pages.kv_heads; ++head) {
                    Element* to = page + head * (head_dim + value_dim) * kKeyBlock;
                    write_key(k + t * args.k.stride + head * head_dim, head_dim,
                              to + place / kKeyPanel * kKeyPanel * head_dim +
                                  place % kKeyPanel * kTogether);
                    std::copy_n(v + t * args.v.stride + head * value_dim, value_dim,
                                to + head_dim * kKeyBlock + place * value_dim);
                }
            }
        });
    });
}

void CpuDevice::kv_copy(const KvCopyArgs& args, Stream& /*stream*/) {
    check_pages("kv_copy", args.pages);
    ensure(args.from.size() == args.to.size(), "kv_copy: {} pages onto {}", args.from.size(),
           args.to.size());
    for (std::int32_t page : args.from) check_page("kv_copy", page, args.pages);
    for (std::int32_t page : args.to) check_page("kv_copy", page, args.pages);
    const std::int64_t bytes = args.pages.page_elements() * size_of(args.pages.dtype);
    std::byte* base = at(args.pages.handle);
    team_->run(std::ssize(args.from), [&](std::int64_t i) {
        const auto index = static_cast<std::size_t>(i);
        std::memmove(base + args.to[index] * bytes, base + args.from[index] * bytes,
                     static_cast<std::size_t>(bytes));
    });
}

void CpuDevice::paged_attention(const PagedAttentionArgs& args, Stream& /*stream*/) {
    const KvPages& pages = args.pages;
    check_pages("paged_attention", pages);
    const HeadShape shape = check_heads("paged_attention", args.q, args.heads, pages.kv_heads,
                                        pages.head_dim, pages.value_dim);
    check_operand("paged_attention", "q", args.q, pages.dtype, args.q.rows,
                  args.heads * shape.head_dim);
    check_operand("paged_attention", "out", args.out, pages.dtype, args.q.rows,
                  args.heads * shape.value_dim);
    check_runs(args);

    thread_local std::vector<Chunk> chunks;
    chunks.clear();
    thread_local std::vector<AttentionFork> forks;
    forks.clear();
    const std::int64_t most_forks =
        std::clamp<std::int64_t>(args.q.rows * shape.kv_heads / (kTasksAThread * team_->threads()),
                                 1, chunk_rows(kChunkPairs, shape.group));
    for (std::int64_t i = 0; i < std::ssize(args.runs);) {
        const std::int64_t count = count_forks(args.runs, i);
        if (count > 1) {
            append_forks(args, i, count, most_forks, forks, chunks);
        } else {
            const PagedRun& run = args.runs[static_cast<std::size_t>(i)];
            each_chunk(run.position, run.rows, shape.group, [&](Range rows) {
                chunks.push_back({.source = narrow<std::int32_t>(i), .rows = rows});
            });
        }
        i += count;
    }
    const std::span<const Chunk> work(chunks);
    const AttentionFork* const planned = forks.data();
    with_elements(pages.dtype, [&]<class Element>(Element /*element*/) {
        const AttentionKernels<Element>& kernels = attention_kernels<Element>(isa_);
        const auto* q = elements<Element>(args.q);
        auto* out = elements<Element>(args.out);
        const auto* base = reinterpret_cast<const Element*>(at(pages.handle));
        const auto attend = [&](std::int64_t i, std::int64_t head) {
            const Chunk& chunk = work[static_cast<std::size_t>(i)];
            const std::int64_t pairs = std::max(chunk.rows.size(), chunk.forks) * shape.group;
            auto kv_head = head_of(shape, head, args, q, out, base + head * block_size(shape),
                                   pages.page_elements());
            kv_head.scratch =
                task_scratch().take(kernels.rows_scratch(pairs, shape.head_dim, shape.value_dim));
            if (chunk.forks > 0) {
                kernels.attend_forks({.head = kv_head,
                                      .forks = planned + chunk.source,
                                      .count = chunk.forks,
                                      .shared = chunk.shared});
                return;
            }
            const PagedRun& run = args.runs[static_cast<std::size_t>(chunk.source)];
            to_row(kv_head, run.row_begin + chunk.rows.begin);
            kernels.attend_pages({.head = kv_head,
                                  .rows = chunk.rows.size(),
                                  .position = run.position + chunk.rows.begin,
                                  .table = args.page_table.data() + run.page_begin});
        };
        run_for_heads(*team_, std::ssize(work), shape.kv_heads, attend);
    });
}

}  // namespace rankwise::kernels::cpu
