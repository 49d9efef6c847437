#include "src/update/pipeline_run.hpp"

#include <algorithm>
#include <list>
#include <optional>

#include "src/model/stage_mail.hpp"

namespace rankwise::update {
namespace {

using model::LayerStage;
using model::Microbatch;
using parallel::PipelineStep;
using parallel::StepKind;

/// A pass in flight, with what it keeps.
struct Flight {
    explicit Flight(model::Compute keeping) : compute(std::move(keeping)) {}
    model::Compute compute;
    PipelineStep step;  ///< its forward step
    bool open = false;  ///< not backward yet
    std::vector<float> coefficient;
    std::optional<model::StagePass> pass;
    // Destroyed before the pass whose memory they move.
    parallel::Request stream_sent, gradient_received, gradient_sent;
};

/// The same where this data rank has no micro-batch.
struct Follow {
    PipelineStep step;
    model::FollowPass pass;
};

bool same_place(const PipelineStep& a, const PipelineStep& b) {
    return a.micro_batch == b.micro_batch && a.virtual_stage == b.virtual_stage;
}

class Run {
  public:
    Run(model::Compute& compute, const model::Weights& weights, const model::HeadOptions& head,
        std::int64_t recompute, const PipelineWork& work, MinibatchGradients& gradients)
        : compute_(compute),
          weights_(weights),
          head_(head),
          recompute_(recompute),
          work_(work),
          gradients_(gradients),
          part_(weights.pipeline_part()),
          scope_(compute.arena),
          lookups_(compute, weights, work.batches) {}

    void go(const PipelineStep& step) {
        if (step.kind == StepKind::forward) {
            forward(step);
        } else {
            backward(step);
        }
    }

    /// Returns when everything has been received.
    void finish() {
        for (const auto& flight : flights_) land(*flight);
    }

  private:
    [[nodiscard]] const Microbatch* batch_of(const PipelineStep& step) const {
        return work_.batches[static_cast<std::size_t>(step.micro_batch)];
    }
    [[nodiscard]] const LayerStage& stage_of(const PipelineStep& step) const {
        return part_.stages[static_cast<std::size_t>(step.virtual_stage)];
    }

    void forward(const PipelineStep& step) {
        if (step.virtual_stage == 0) lookups_.before(step.micro_batch);
        const Microbatch* batch = batch_of(step);
        const LayerStage& stage = stage_of(step);
        if (batch == nullptr) {
            follows_.push_back(
                {step, {compute_, weights_, stage, recompute_, weights_.uses_mtp()}});
            follows_.back().pass.forward();
            return;
        }
        if (work_.enter_chunk) work_.enter_chunk(step.micro_batch);
        Flight& flight = take_off(step);
        flight.pass.emplace(flight.compute, weights_, head_, *batch, stage, recompute_);
        if (!stage.last) {
            flight.gradient_received = sums::start_receive(
                compute_.tools(), weights_.pipeline(), "gradients:stage", flight.pass->gradient(),
                part_.next(), model::gradient_channel(step.virtual_stage));
        }
        if (!(stage.first && part_.has_embedding))
            model::receive_stream(compute_, weights_, stage, flight.pass->stream());
        flight.pass->forward();
        if (stage.last) {
            flight.coefficient = work_.loss(step.micro_batch, flight.pass->logprobs());
        } else {
            flight.stream_sent =
                sums::start_send(compute_.tools(), weights_.pipeline(), "activations:stage",
                                 flight.pass->stream(), part_.next(), model::kStreamChannel);
        }
    }

    void backward(const PipelineStep& step) {
        work_.begin_wave(step.micro_batch);
        const LayerStage& stage = stage_of(step);
        const bool input = step.kind != StepKind::backward_weight;
        const bool weight = step.kind != StepKind::backward_input;
        if (batch_of(step) == nullptr) {
            const auto follow = std::ranges::find_if(
                follows_, [&](const Follow& one) { return same_place(one.step, step); });
            ensure(follow != follows_.end(), "micro-batch {} goes back before it went forward",
                   step.micro_batch);
            follow->pass.backward(input, weight, gradients_);
            if (weight) follows_.erase(follow);
            return;
        }
        if (work_.enter_chunk) work_.enter_chunk(step.micro_batch);
        Flight& flight = flight_of(step);
        if (input) {
            flight.gradient_received.wait();
            if (weight) {
                flight.pass->backward(flight.coefficient, gradients_);
            } else {
                flight.pass->backward_input(flight.coefficient, gradients_);
            }
            if (!stage.first) send_gradient(flight);
        } else {
            flight.pass->backward_weight(gradients_);
        }
        if (!weight) return;
        flight.open = false;
        if (stage.first) land(flight);
    }

    /// To the rank that has the stage before; rank 0 has its predecessors in the virtual stage
    /// before, on the last rank.
    void send_gradient(Flight& flight) {
        const int stage = flight.step.virtual_stage - (part_.is_first() ? 1 : 0);
        flight.gradient_sent = sums::start_send(compute_.tools(), weights_.pipeline(),
                                                "gradients:stage", flight.pass->gradient(),
                                                part_.previous(), model::gradient_channel(stage));
    }

    Flight& take_off(const PipelineStep& step) {
        auto found = std::find_if(flights_.begin(), flights_.end(),
                                  [](const auto& flight) { return !flight->open; });
        if (found == flights_.end()) {
            kernels::Arena* own = part_.split() ? &compute_.arena.beside(flights_.size()) : nullptr;
            flights_.push_back(std::make_unique<Flight>(
                model::Compute{compute_.device, compute_.stream, compute_.arena, compute_.probe,
                               own, compute_.beat}));
            found = flights_.end() - 1;
        }
        Flight& flight = **found;
        land(flight);
        flight.step = step;
        flight.open = true;
        return flight;
    }

    Flight& flight_of(const PipelineStep& step) {
        const auto found = std::find_if(flights_.begin(), flights_.end(), [&](const auto& flight) {
            return flight->open && same_place(flight->step, step);
        });
        ensure(found != flights_.end(), "micro-batch {} goes back before it went forward",
               step.micro_batch);
        return **found;
    }

    /// Gives back what a pass kept.
    static void land(Flight& flight) {
        flight.stream_sent.wait();
        flight.gradient_sent.wait();
        flight.pass.reset();
    }

    model::Compute& compute_;
    const model::Weights& weights_;
    const model::HeadOptions& head_;
    std::int64_t recompute_;
    const PipelineWork& work_;
    MinibatchGradients& gradients_;
    const model::PipelinePart& part_;
    kernels::Arena::Scope scope_;
    model::EmbeddingLookups lookups_;
    std::vector<std::unique_ptr<Flight>> flights_;
    std::list<Follow> follows_;
};

}  // namespace

void run_pipeline(model::Compute& compute, const model::Weights& weights,
                  const model::HeadOptions& head, parallel::Schedule schedule,
                  std::int64_t recompute, const PipelineWork& work, MinibatchGradients& gradients) {
    const model::PipelinePlace& place = weights.pipeline_part().place;
    // One rank has nobody to wait for.
    if (place.degree == 1) schedule = parallel::Schedule::one_forward_one_backward;
    const std::vector<PipelineStep> steps = parallel::pipeline_steps(
        schedule, place.degree, place.rank, std::ssize(work.batches), place.virtual_stages);
    Run run(compute, weights, head, recompute, work, gradients);
    for (const PipelineStep& step : steps) run.go(step);
    run.finish();
}

}  // namespace rankwise::update
