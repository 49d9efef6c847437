#include "parallel/mpi_session.hpp"

#include <mpi.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <deque>
#include <exception>
#include <memory>
#include <utility>
#include <vector>

#include "parallel/mpi_communicator.hpp"

namespace rankwise::parallel {

namespace {

/// States as small messages on a communicator of their own. Failures are ignored: this is the job's
/// last word, and what each rank writes by itself does not depend on it.
class MpiStateExchange final : public StateExchange {
  public:
    MpiStateExchange() {
        MPI_Comm_dup(MPI_COMM_WORLD, &comm_);
        MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN);
        MPI_Comm_rank(comm_, &rank_);
    }
    MpiStateExchange(const MpiStateExchange&) = delete;
    MpiStateExchange& operator=(const MpiStateExchange&) = delete;
    ~MpiStateExchange() override {
        if (std::uncaught_exceptions() > 0) return;
        (void)collect();
        // A state that rank 0 has not picked up by now is of no use; its buffer lives as long as
        // the process.
        for (Sent& sent : sent_) {
            int done = 0;
            MPI_Test(&sent.request, &done, MPI_STATUS_IGNORE);
            if (done == 0) {
                MPI_Request_free(&sent.request);
                (void)sent.state.release();
            }
        }
        MPI_Comm_free(&comm_);
    }

    void publish(const RankState& state) override {
        if (rank_ == 0) {
            own_.push_back(state);
            return;
        }
        Sent& sent = sent_.emplace_back();
        sent.state = std::make_unique<RankState>(state);
        MPI_Isend(sent.state.get(), sizeof(RankState), MPI_BYTE, 0, 0, comm_, &sent.request);
    }

    std::vector<RankState> collect() override {
        std::vector<RankState> states = std::exchange(own_, {});
        while (rank_ == 0) {
            int there = 0;
            MPI_Status status;
            MPI_Iprobe(MPI_ANY_SOURCE, 0, comm_, &there, &status);
            if (there == 0) break;
            RankState state;
            MPI_Recv(&state, sizeof state, MPI_BYTE, status.MPI_SOURCE, 0, comm_,
                     MPI_STATUS_IGNORE);
            states.push_back(state);
        }
        return states;
    }

  private:
    struct Sent {
        std::unique_ptr<RankState> state;
        MPI_Request request = MPI_REQUEST_NULL;
    };
    MPI_Comm comm_ = MPI_COMM_NULL;
    int rank_ = 0;
    std::vector<RankState> own_;
    std::deque<Sent> sent_;
};

}  // namespace

MpiSession::MpiSession(int& argc, char**& argv) {
    // More ranks than cores is normal for us (tests, laptops), and under a batch system Open MPI
    // does not notice: a waiting rank must give up its core. A value that the user has set stays.
    setenv("OMPI_MCA_mpi_yield_when_idle", "1", 0);
    int provided = MPI_THREAD_SINGLE;
    const int code = MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &provided);
    if (code != MPI_SUCCESS) {
        throw EnvironmentError(fmt::format(
            "MPI did not start (error {}): start the program with the mpirun of the MPI that it "
            "was built with",
            code));
    }
    MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
    MPI_Comm_size(MPI_COMM_WORLD, &size_);
    char name[MPI_MAX_PROCESSOR_NAME] = {};
    int length = 0;
    MPI_Get_processor_name(name, &length);
    host_.assign(name, static_cast<std::size_t>(length));
    MPI_Comm node = MPI_COMM_NULL;
    MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node);
    MPI_Comm_size(node, &ranks_here_);
    MPI_Comm_free(&node);
    pid_ = static_cast<std::int64_t>(getpid());
    if (provided < MPI_THREAD_MULTIPLE) {
        MPI_Finalize();
        throw EnvironmentError(fmt::format(
            "this MPI offers thread level {}, expected {} (calls from several threads): use an MPI "
            "that was built with threads",
            provided, static_cast<int>(MPI_THREAD_MULTIPLE)));
    }
}

MpiSession::~MpiSession() {
    if (std::uncaught_exceptions() > 0) abort(ExitCode::internal);
    MPI_Finalize();
}

std::string MpiSession::identity() const {
    return fmt::format("rank {}/{} {}:{}", rank_, size_, host_, pid_);
}

std::unique_ptr<Communicator> MpiSession::world(Instruments instruments, std::int64_t piece_bytes) {
    MPI_Comm copy = MPI_COMM_NULL;
    MPI_Comm_dup(MPI_COMM_WORLD, &copy);
    return std::make_unique<MpiCommunicator>(copy, std::make_shared<const MpiReductions>(), "world",
                                             std::move(instruments), piece_bytes);
}

std::unique_ptr<StateExchange> MpiSession::state_exchange() {
    return std::make_unique<MpiStateExchange>();
}

void MpiSession::abort(ExitCode code) const {
    std::fflush(nullptr);
    MPI_Abort(MPI_COMM_WORLD, static_cast<int>(code));
    std::_Exit(static_cast<int>(code));  // MPI_Abort does not return; the compiler cannot know
}

}  // namespace rankwise::parallel
