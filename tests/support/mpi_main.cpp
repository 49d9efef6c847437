// main() of test programs that run on several ranks: only rank 0 prints, all ranks agree on the
// result, and a rank that fails a test that the others passed ends the job, since those may be
// waiting for it.
#include <gtest/gtest.h>
#include <mpi.h>

#include <cstdio>
#include <string>

namespace {

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
            std::fflush(nullptr);
            MPI_Abort(MPI_COMM_WORLD, 1);
        }
    }

  private:
    int rank_;
};

}  // namespace

int main(int argc, char** argv) {
    int provided = 0;
    MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &provided);
    int rank = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    testing::InitGoogleTest(&argc, argv);
    auto& listeners = testing::UnitTest::GetInstance()->listeners();
    if (rank != 0) delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new RankListener(rank));
    int result = RUN_ALL_TESTS();
    MPI_Allreduce(MPI_IN_PLACE, &result, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
    MPI_Finalize();
    return result;
}
