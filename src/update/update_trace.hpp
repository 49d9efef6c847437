// What an update computed, as digests in an order that no layout changes, so that two runs which
// part can be compared operation by operation.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "src/base/uint128.hpp"
#include "src/model/decoder.hpp"
#include "src/sums/gradient_owners.hpp"

namespace rankwise::update {

/// Parts of an update in the order in which a chunk goes through them; gradients are those of all
/// chunks.
enum class TracePass : std::uint8_t { forward, head, backward, gradient };

/// One value of an update: the digest of its bits.
struct TraceRecord {
    std::int64_t update = 0;  ///< of the step, from 0: a step may have several minibatches
    std::int64_t chunk = -1;  ///< of the minibatch (NUMERICS N3); -1: of all
    TracePass pass = TracePass::forward;
    std::int64_t layer = -1;  ///< -1: of none
    std::int64_t order = 0;   ///< among the layer's operations in this pass, as they are computed;
                              ///< gradients: the parameter's place in the table
    std::string op;           ///< operation, or parameter
    /// Where tensor ranks hold parts of a value: which of how many. Only equal splits have such
    /// values in common; what every tensor rank has all of is 0 of 0.
    std::int64_t part = 0;
    std::int64_t parts = 0;
    /// XXH3-128 of the value; of a gradient the sum over the rows that this rank owns, so that the
    /// sum over all ranks is that of the whole (N8).
    UInt128 digest;
};

/// Records the updates of a trainer that is given it (Trainer::watch), on each rank what it
/// computes itself. Changes no bit of them; reads every activation, so the step takes longer.
class UpdateTrace {
  public:
    explicit UpdateTrace(const model::Weights& weights) : weights_(weights) {}

    /// A minibatch begins.
    void begin_update();
    /// What comes is of this chunk.
    void enter_chunk(std::int64_t chunk) { chunk_ = chunk; }
    /// What an operation of a layer gave. @throws BadNumbers if it has been recorded before, when
    /// it was computed first, with other bits (the backward pass computes activations again).
    void layer(const model::Probed& value, model::Compute& compute);
    /// Log-probabilities and entropies of a chunk's answer tokens, and d loss / d logprob.
    void head(const model::Logprobs& values, std::span<const float> coefficient);
    /// The totals of the minibatch, in the rows that this rank owns.
    void gradients(const sums::GradientOwners& owners, model::Compute& compute);

    /// In the order in which they were computed here.
    [[nodiscard]] const std::vector<TraceRecord>& records() const { return records_; }

  private:
    /// Whether this rank speaks for all that hold the same.
    [[nodiscard]] bool first_of_tensor() const { return weights_.part().place.rank == 0; }
    /// Takes its place among the operations of its layer, on every rank the same one.
    void add(TraceRecord record, bool speaks, const std::function<UInt128()>& digest);

    const model::Weights& weights_;
    std::int64_t update_ = -1;
    std::int64_t chunk_ = -1;
    std::vector<TraceRecord> records_;
    /// Where an operation is recorded; nowhere on ranks that others speak for.
    using Recorded = std::optional<std::size_t>;
    using Pass = std::tuple<std::int64_t, TracePass, std::int64_t>;  // chunk, pass, layer
    /// Of this update: the operations of each pass of a layer and where they are recorded.
    std::map<Pass, std::map<std::string, Recorded>> seen_;
};

}  // namespace rankwise::update
