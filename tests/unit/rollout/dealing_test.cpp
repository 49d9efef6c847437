// How long a phase takes, counted in decode steps, when one answer in ten is ten times longer.
#include <algorithm>
#include <chrono>
#include <condition_variable>

#include "tests/unit/rollout/generate.hpp"

namespace rankwise::rollout {
namespace {

/// Ranks as threads of a busy machine stand still for long; as processes on cores of their own they
/// step together. This keeps them together: nobody begins a step before every other rank has ended
/// the one before, or waits for work. Those who have work may then be ahead of it by as many steps
/// as dealing takes: to end the round that they are in, and to begin the next.
class Lockstep {
  public:
    explicit Lockstep(int ranks) : ranks_(static_cast<std::size_t>(ranks)) {}

    void step_done(int rank) {
        std::unique_lock lock(mutex_);
        const std::int64_t mine = ++at(rank).steps;
        longest_ = std::max(longest_, mine);
        changed_.notify_all();
        const auto others_are_there = [&](bool mind_waiting) {
            return std::ranges::all_of(ranks_, [&](const Rank& other) {
                if (other.gone) return true;
                return other.waits ? !mind_waiting || other.waits_until >= mine
                                   : other.steps >= mine;
            });
        };
        // A thread may be held up just before it asks for work; those who have used up their steps
        // by then go on.
        const auto patience = std::chrono::milliseconds(20);
        if (!changed_.wait_for(lock, patience, [&] { return others_are_there(true); })) {
            changed_.wait(lock, [&] { return others_are_there(false); });
        }
    }
    void wait_for_work(int rank) {
        change(rank, [&](Rank& self) {
            self.waits = true;
            self.waits_until = longest_ + 2;
        });
    }
    /// The wait is over: the rank's next step is at the same time as the slowest of the others'.
    void go_on(int rank) {
        change(rank, [&](Rank& self) {
            std::int64_t slowest = longest_;
            for (const Rank& other : ranks_) {
                if (!other.waits && !other.gone) slowest = std::min(slowest, other.steps);
            }
            self.steps = std::max(self.steps, slowest);
            self.waits = false;
        });
    }
    void leave(int rank) {
        change(rank, [](Rank& self) { self.gone = true; });
    }
    /// Steps from the first to the last, waiting for work included.
    [[nodiscard]] std::int64_t longest() const { return longest_; }

  private:
    struct Rank {
        std::int64_t steps = 0;
        bool waits = false;
        std::int64_t waits_until = 0;  // others go on to this step
        bool gone = false;
    };
    Rank& at(int rank) { return ranks_[static_cast<std::size_t>(rank)]; }
    template <class Change>
    void change(int rank, const Change& change) {
        const std::lock_guard lock(mutex_);
        change(at(rank));
        changed_.notify_all();
    }

    std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<Rank> ranks_;
    std::int64_t longest_ = 0;
};

/// Work of another source, taken in step with the other ranks.
class SteppedWork final : public WorkSource {
  public:
    SteppedWork(WorkSource& work, Lockstep& steps, int rank)
        : work_(work), steps_(steps), rank_(rank) {}
    ~SteppedWork() override { steps_.leave(rank_); }

    std::vector<WorkUnit> poll(std::int64_t free_slots, bool idle) override {
        if (busy_) steps_.step_done(rank_);
        if (idle) steps_.wait_for_work(rank_);
        const std::vector<WorkUnit> units = work_.poll(free_slots, idle);
        busy_ = !idle || !units.empty();
        if (idle) steps_.go_on(rank_);
        return units;
    }
    [[nodiscard]] bool exhausted() const override { return work_.exhausted(); }

  private:
    WorkSource& work_;
    Lockstep& steps_;
    int rank_;
    bool busy_ = false;
};

constexpr std::int64_t kContext = 220;
constexpr std::int64_t kShort = 20;
constexpr std::int64_t kSlots = 8;

/// One layer, narrow: what is counted does not depend on it.
model::ModelConfig counting_config() {
    model::ModelConfig config = test::small_config();
    config.layers = 1;
    config.hidden = 8;
    config.heads = config.kv_heads = 1;
    config.intermediate = 16;
    config.max_position = kContext;
    return config;
}

/// What dealing knows of an answer's length.
enum class Expected { exact, rough, nothing };

struct Phase {
    std::vector<Request> requests;
    std::int64_t tokens = 0;
    std::int64_t longest = 10 * kShort;
};

/// `count` prompts with an answer each, one in ten being ten times longer; where they stand is
/// random. An answer ends where the context does, so its prompt's length decides its own.
Phase skewed(std::int64_t count, Expected expected, std::uint64_t seed) {
    RandomSequence random(RandomStream(seed, Purpose::data_generation));
    std::vector<std::int64_t> lengths;
    for (std::int64_t i = 0; i < count; ++i) {
        lengths.push_back(i % 10 == 0 ? 10 * kShort : kShort);
    }
    random.shuffle(lengths);
    std::vector<std::int64_t> prompts;
    for (const std::int64_t length : lengths) prompts.push_back(kContext - length);
    Phase phase{test::requests_of(prompts, 1), 0};
    for (std::size_t i = 0; i < lengths.size(); ++i) {
        phase.tokens += lengths[i];
        const auto length = static_cast<double>(lengths[i]);
        const double factor = expected == Expected::rough ? 0.5 + random.uniform() : 1.0;
        if (expected != Expected::nothing) {
            phase.requests[i].expected_length = static_cast<std::int64_t>(length * factor);
        }
    }
    return phase;
}

struct Steps {
    std::int64_t longest = 0;  ///< from the first step of any rank to the last
    std::int64_t decode = 0;   ///< most that a rank took
};

Steps steps_of(const Phase& phase, int ranks) {
    Lockstep lockstep(ranks);
    std::mutex mutex;
    Steps steps;
    std::size_t answers = 0;
    parallel::ThreadWorld(ranks).run([&](parallel::Communicator& world) {
        test::SmallModel model(counting_config());
        Generator generator(model.compute, model.weights, {.slots = kSlots}, nullptr,
                            model.config.vocab_size);
        DealtWork dealt(phase.requests, world, 1);
        SteppedWork work(dealt, lockstep, world.rank());
        const auto mine = generator.run(phase.requests, {.max_new_tokens = kContext}, work, 0, {});
        const std::lock_guard lock(mutex);
        answers += mine.size();
        steps.decode = std::max(steps.decode, generator.counts().decode_steps);
    });
    EXPECT_EQ(answers, phase.requests.size());
    steps.longest = lockstep.longest();
    return steps;
}

std::int64_t least_steps(const Phase& phase, int ranks) {
    return std::max(phase.longest, ceil_div(phase.tokens, ranks * kSlots));
}

/// `share` answers a slot: 2 is where the longest rules, 20 where the total does.
std::int64_t requests_for(int ranks, std::int64_t share) {
    return round_up(share * ranks * kSlots, std::int64_t{10});
}

template <class Check>
void for_all_phases(const std::vector<Expected>& knowledge, const Check& check) {
    for (const int ranks : {2, 4}) {
        for (const std::int64_t share : {1, 2, 4, 6, 12, 20}) {
            for (const Expected expected : knowledge) {
                SCOPED_TRACE(testing::Message()
                             << ranks << " ranks, " << share << " answers a slot, knowledge "
                             << static_cast<int>(expected));
                const Phase phase = skewed(requests_for(ranks, share), expected,
                                           static_cast<std::uint64_t>(share * ranks));
                const Steps steps = steps_of(phase, ranks);
                EXPECT_LE(steps.decode, steps.longest);
                check(phase, ranks, steps);
            }
        }
    }
}

TEST(Dealing, WhereLengthsAreExpectedStepsAreWithin15PercentOfTheLeastPossible) {
    for_all_phases({Expected::exact, Expected::rough},
                   [](const Phase& phase, int ranks, const Steps& steps) {
                       const auto least = static_cast<double>(least_steps(phase, ranks));
                       EXPECT_LE(static_cast<double>(steps.longest), 1.15 * least);
                   });
}

// Without any expectation the last answer to be started may be the longest, and no order that does
// not know it can do better than Graham's bound for lists (1966). A slot is filled again one step
// after it became free, and up to ten answers follow each other in it besides the longest.
TEST(Dealing, WhereNothingIsExpectedStepsAreThoseOfAnyListThatKeepsSlotsFull) {
    for_all_phases({Expected::nothing}, [](const Phase& phase, int ranks, const Steps& steps) {
        const std::int64_t slots = ranks * kSlots;
        const std::int64_t refills = ceil_div(phase.tokens, slots * kShort);
        EXPECT_LE(steps.longest, ceil_div(phase.tokens, slots) + phase.longest + 2 * refills);
    });
}

}  // namespace
}  // namespace rankwise::rollout
