// main() of test programs that run on several ranks: only rank 0 prints, all ranks agree on the
// result, and a rank that fails a test that the others passed ends the job, since those may be
// waiting for it.
#include <gtest/gtest.h>

#include <cstdint>
#include <cstdio>

#include "tests/support/mpi_test.hpp"

namespace {

rankwise::parallel::MpiSession* the_session = nullptr;

/// Prints failures of ranks other than 0, whose usual output is off, and makes sure that a test
/// ends on all ranks alike.
class RankListener : public testing::EmptyTestEventListener {
  public:
    explicit RankListener(int rank) : rank_(rank) {}

    void OnTestPartResult(const testing::TestPartResult& result) override {
        if (rank_ == 0 || !result.failed()) return;
        std::fprintf(stderr, "[rank %d] %s:%d: %s\n", rank_,
                     result.file_name() != nullptr ? result.file_name() : "?", result.line_number(),
                     result.message());
    }
    void OnTestEnd(const testing::TestInfo& info) override {
        if (info.result()->Failed()) {
            // After a failure the ranks no longer make the same calls.
            std::fprintf(stderr, "[rank %d] failed in %s.%s\n", rank_, info.test_suite_name(),
                         info.name());
            the_session->abort(rankwise::ExitCode::internal);
        }
    }

  private:
    int rank_;
};

}  // namespace

rankwise::parallel::MpiSession& rankwise::test::mpi_session() {
    return *the_session;
}

int main(int argc, char** argv) {
    rankwise::parallel::MpiSession session(argc, argv);
    the_session = &session;
    testing::InitGoogleTest(&argc, argv);
    auto& listeners = testing::UnitTest::GetInstance()->listeners();
    if (session.rank() != 0) delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new RankListener(session.rank()));
    const std::int64_t result = RUN_ALL_TESTS();
    return static_cast<int>(session.world({})->all_reduce_max("result of tests", result));
}
