// Counts of calls and bytes, by communicator, operation and kind of content.
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/op.hpp"

namespace rankwise::parallel {

/// The kind of a label: what stands before its first ':'. "weights:layer 3" and "weights:layer 4"
/// are both "weights".
[[nodiscard]] std::string_view kind_of(std::string_view label);

/// What one rank sent. Bytes are payload addressed to other ranks, once for each receiver (a rank's
/// message to itself is free): the logical volume, whatever route the library takes. A reduction
/// counts as if its operand went to all others.
class Traffic {
  public:
    struct Row {
        std::string communicator;
        Op op = Op::barrier;
        std::string kind;
        std::int64_t calls = 0;
        std::int64_t bytes = 0;
        friend bool operator==(const Row&, const Row&) = default;
    };

    void count(std::string_view communicator, Op op, std::string_view label, std::int64_t bytes);
    /// Sorted by communicator, operation, kind.
    [[nodiscard]] std::vector<Row> rows() const;
    [[nodiscard]] std::int64_t bytes() const;
    /// Bytes of each communicator that has sent any.
    [[nodiscard]] std::map<std::string, std::int64_t> bytes_by_communicator() const;
    void reset();

  private:
    struct Key {
        std::string communicator;
        Op op;
        std::string kind;
    };
    struct KeyView {
        std::string_view communicator;
        Op op;
        std::string_view kind;
        auto operator<=>(const KeyView&) const = default;
    };
    struct Less {
        using is_transparent = void;
        static KeyView view(const Key& key) { return {key.communicator, key.op, key.kind}; }
        static const KeyView& view(const KeyView& key) { return key; }
        template <class A, class B>
        bool operator()(const A& a, const B& b) const {
            return view(a) < view(b);
        }
    };
    struct Count {
        std::int64_t calls = 0;
        std::int64_t bytes = 0;
    };

    mutable std::mutex mutex_;
    std::map<Key, Count, Less> counts_;
};

/// The rows as lines of aligned columns with a heading and a total.
[[nodiscard]] std::string table(const std::vector<Traffic::Row>& rows);

}  // namespace rankwise::parallel
