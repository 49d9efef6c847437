// Weights that lie off the device while nothing reads them.
#include <gtest/gtest.h>

#include "parallel/thread_world.hpp"
#include "src/model/decoder.hpp"
#include "tests/support/small_model.hpp"
#include "tests/support/throws.hpp"
#include "tests/unit/io/scratch.hpp"

namespace rankwise::model {
namespace {

/// A policy, and a reference with a residence of its own.
struct Pair {
    Pair(const Residence& residence, const ModelAxes& axes = {})
        : policy(test::small_config(), test::plain_device(), 1, 0.4, axes),
          reference(*policy.device, policy.config, Passes::forward, axes, residence) {}
    void refresh() {
        const OnDevice here(policy.compute, reference);
        reference.copy_from(policy.weights, policy.compute);
    }
    [[nodiscard]] std::vector<float> scored(Weights& weights) {
        Microbatch batch;
        const std::vector<TokenId> tokens{1, 5, 9, 30, 2, 7};
        append_sequence(batch, tokens, 2);
        const OnDevice here(policy.compute, weights);
        return score(policy.compute, weights, {.ids = 37}, batch).logprob;
    }
    test::SmallModel policy;
    Weights reference;
};

std::vector<Residence> residences(io::FileSystem& fs, const io::test::Scratch& folder) {
    return {{.where = Residency::device},
            {.where = Residency::host},
            {.where = Residency::disk, .files = &fs, .file = folder.path() / "deep" / "weights"}};
}

TEST(Residency, ScoresAreTheSameWhereverTheWeightsLieBetweenUses) {
    const auto fs = io::posix_file_system();
    const io::test::Scratch folder;
    for (const Residence& residence : residences(*fs, folder)) {
        Pair pair(residence);
        pair.refresh();
        const std::vector<float> expected = pair.scored(pair.policy.weights);
        EXPECT_EQ(pair.scored(pair.reference), expected);
        EXPECT_EQ(pair.scored(pair.reference), expected);
    }
}

TEST(Residency, ScoresOfShardedWeightsAreTheSameToo) {
    const auto fs = io::posix_file_system();
    Pair alone({});
    const std::vector<float> expected = alone.scored(alone.policy.weights);
    parallel::ThreadWorld(3).run([&](parallel::Communicator& data) {
        const io::test::Scratch folder;
        for (const Residence& residence : residences(*fs, folder)) {
            Pair pair(residence, {.shards = &data});
            pair.refresh();
            EXPECT_EQ(pair.scored(pair.reference), expected);
        }
    });
}

TEST(Residency, OffTheDeviceWeightsLeaveItToOthers) {
    const auto fs = io::posix_file_system();
    const io::test::Scratch folder;
    std::vector<std::int64_t> held;
    for (const Residence& residence : residences(*fs, folder)) {
        Pair pair(residence);
        pair.refresh();
        held.push_back(pair.policy.device->bytes_in_use() - pair.policy.arena.capacity_bytes());
    }
    EXPECT_LT(held[1], held[0]);
    EXPECT_EQ(held[1], held[2]);
}

TEST(Residency, AFileThatIsNoLongerWhatWasPutThereIsFound) {
    const auto fs = io::posix_file_system();
    const io::test::Scratch folder;
    const Residence residence = residences(*fs, folder).back();
    {
        Pair pair(residence);
        pair.refresh();
        std::string bytes = io::test::get(residence.file);
        bytes[bytes.size() / 2] ^= 1;
        io::test::put(residence.file, bytes);
        EXPECT_THROW_WITH((void)pair.scored(pair.reference), CorruptFile, residence.file.string());
        io::test::put(residence.file, bytes.substr(0, 10));
        EXPECT_THROW_WITH((void)pair.scored(pair.reference), CorruptFile, "10 of");
    }
    EXPECT_FALSE(fs->exists(residence.file)) << "it is removed with the weights";
}

}  // namespace
}  // namespace rankwise::model
