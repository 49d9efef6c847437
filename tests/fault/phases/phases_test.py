"""One rank fails in each phase of a run: the job ends at once, says why first and once, and the same command goes on."""
import concurrent.futures
import pathlib
import shutil
import signal
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
import program

# Every phase of the small recipe, and the step in which a run first meets it.
PHASES = {"data": 1, "update": 1, "record": 1, "checkpoint": 1, "export": 3, "evaluate": 1, "score": 1, "generate": 1,
          "advantages": 1, "reference": 1}
WATCHDOG = ["--run.watchdog_s", 1, "--run.watchdog_end_s", 1]
JOBS = 4  # at a time: a job that ends waits most of the time
# Ranks that share models, and not only the data.
SHARED = {"tensor x pipeline": (4, ["--parallel.tensor", 2, "--parallel.pipeline", 2]),
          "zero = 3 x pipeline": (4, ["--parallel.zero", 3, "--parallel.pipeline", 2])}
EXPERTS = (4, ["--parallel.expert", 2, "--parallel.tensor", 2, "--parallel.zero", 3])


def plant(phase, rank, how="error", step=0):
    return ["--faults.throw_in", phase, "--faults.throw_rank", rank, "--faults.throw_as", how, "--faults.throw_at", step]


class OneRankThrows(program.Case):
    def assert_said_first_and_once(self, result, directory, rank, ranks, phase, step):
        message = self.assert_refused(result, 6)
        self.assertRegex(message, rf"^\[rank {rank}/{ranks} [\w.-]+:\d+ phase={phase} step={step}\] planted fault: [^\n]*$")
        self.assertTrue(result.err.lstrip().startswith(message), result)
        self.assertIn(f"error: {message}\n", (directory / f"logs/rank_{rank:05}.log").read_text())

    def fail_in_each(self, ranks, rank, layout=()):
        with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
            jobs = {phase: pool.submit(self.train, *plant(phase, rank), *layout, ranks=ranks, directory=self.folder / phase)
                    for phase in PHASES}
        for phase, job in jobs.items():
            with self.subTest(phase):
                self.assert_said_first_and_once(job.result(), self.folder / phase, rank, ranks, phase, PHASES[phase])

    def test_in_each_phase_on_two_ranks_and_the_next_start_goes_on(self):
        self.fail_in_each(2, rank=1)
        with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
            jobs = {phase: pool.submit(self.done, ranks=1, directory=self.folder / phase) for phase in PHASES}
        for phase, job in jobs.items():
            with self.subTest(phase):
                job.result()
                self.assertEqual(self.digests(self.folder / phase), program.whole_run())

    def test_in_each_phase_on_four_ranks(self):
        self.fail_in_each(4, rank=2)

    def test_in_each_phase_where_ranks_share_the_model(self):
        for name, (ranks, layout) in SHARED.items():
            with self.subTest(name):
                self.fail_in_each(ranks, 3, layout)
                for phase in PHASES:
                    shutil.rmtree(self.folder / phase)

    def test_where_ranks_share_out_experts(self):
        ranks, layout = EXPERTS
        for phase in ("update", "generate", "checkpoint"):
            with self.subTest(phase):
                result = self.train(*plant(phase, 2), *layout, ranks=ranks, recipe=program.SOURCE / "configs/tiny_moe.ini",
                                    directory=self.folder / phase, timeout=120)
                self.assertEqual(result.code, 6, result)
                self.assertEqual(len(result.messages()), 1, result)
                self.assertRegex(result.messages()[0], rf"^\[rank 2/4 [\w.-]+:\d+ phase={phase} step=\d+\] planted fault: ")

    def test_while_the_run_is_built_or_restored_all_ranks_leave_in_order(self):
        self.done("--run.stop_after_steps", 0)
        for phase, rank in (("build", 2), ("restore", 3)):
            with self.subTest(phase):
                message = self.assert_refused(self.train(*plant(phase, rank), ranks=4), 6)
                self.assertRegex(message, rf"^rankwise train: planted fault: .* \(rank {rank}\)$")


class RanksThatAreThreads(program.Case):
    THREADS = ["--parallel.thread_ranks", 2]

    def test_an_error_names_the_thread_that_failed(self):
        for phase in ("update", "checkpoint", "advantages"):
            with self.subTest(phase):
                result = self.train(*self.THREADS, *plant(phase, 1), directory=self.folder / phase)
                message = self.assert_refused(result, 6)
                self.assertRegex(message, rf"^\[rank 1/2 phase={phase} step=1\] planted fault: [^\n]*$")

    def test_a_problem_at_the_start_is_said(self):
        message = self.assert_refused(self.train(*self.THREADS, *plant("build", 1)), 6)
        self.assertRegex(message, r"^rankwise train: planted fault: .* \(rank 1\)$")

    def test_a_thread_that_hangs_is_named_and_the_run_ends_with_6(self):
        result = self.train(*self.THREADS, *plant("advantages", 1, "hang"), *WATCHDOG)
        self.assertEqual(result.code, 6, result)
        self.assertLess(result.seconds, program.LONGEST_END_S, result)
        self.assertEqual(result.err.count("watchdog: behind: rank 1 "), 1, result)
        self.assert_goes_on(*self.THREADS)


class RanksThatCompareTheirCalls(program.Case):
    def test_compute_what_others_do(self):
        for ranks, layout in ((3, []), SHARED["tensor x pipeline"]):
            with self.subTest(layout):
                directory = self.folder / str(ranks)
                self.done("--run.check_collectives", "true", *layout, ranks=ranks, directory=directory)
                self.assertEqual(self.digests(directory), program.whole_run())

    def test_must_all_do_so(self):
        words = self.command("--run.check_collectives", "true")
        others = self.command()
        result = self.execute([*program.launcher(1, mpi=True), *words, ":", "-n", "1", *others])
        self.assert_refused(result, 2, "check_collectives is not the same on all ranks")


class OneRankIsGone(program.Case):
    def test_a_killed_rank_ends_the_job_and_the_next_start_goes_on_from_the_last_checkpoint(self):
        result = self.train(*plant("update", 1, "kill", step=3), ranks=2)
        self.assertEqual(result.code, 128 + signal.SIGKILL, result)
        self.assertEqual(result.messages(), [], "nobody is left to say anything")
        self.assertRegex(result.err, r"process rank 1 .* exited on signal 9")
        self.assertLess(result.seconds, program.LONGEST_END_S)
        self.assertEqual([row[1] for row in self.digests()], [1, 2])
        again = self.done(ranks=3)
        # The checkpoint of step 2 may have been under way when the rank died.
        self.assertRegex(again.out, r"going on from \S+/step_0000000[12] ")
        self.assertEqual(self.digests(), program.whole_run())

    def test_a_killed_rank_before_the_first_checkpoint_leaves_nothing_that_the_next_start_trusts(self):
        result = self.train(*plant("checkpoint", 0, "kill"), ranks=2)
        self.assertEqual(result.code, 128 + signal.SIGKILL, result)
        self.assertEqual([row[1] for row in self.digests()], [1], "metrics of a step that no checkpoint holds")
        again = self.done(ranks=2)
        self.assertNotIn("going on from", again.out)
        self.assertEqual(self.digests(), program.whole_run())

    def test_killed_in_any_phase_where_ranks_share_the_model_it_goes_on_in_another_layout(self):
        ranks, layout = SHARED["tensor x pipeline"]
        phases = {**PHASES, "build": 0}
        with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
            jobs = {phase: pool.submit(self.train, *plant(phase, 3, "kill", step=step), *layout, ranks=ranks,
                                       directory=self.folder / phase)
                    for phase, step in phases.items()}
        for phase, job in jobs.items():
            with self.subTest(phase):
                result = job.result()
                self.assertEqual(result.code, 128 + signal.SIGKILL, result)
                self.assertEqual(result.messages(), [], "nobody is left to say anything")
                self.assertRegex(result.err, r"process rank 3 .* exited on signal 9")
        with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
            again = {phase: pool.submit(self.done, "--parallel.zero", 3, ranks=2, directory=self.folder / phase)
                     for phase in phases}
        for phase, job in again.items():
            with self.subTest(phase):
                job.result()
                self.assertEqual(self.digests(self.folder / phase), program.whole_run())

    def test_a_rank_that_hangs_within_a_model_that_ranks_share_is_named(self):
        ranks, layout = SHARED["tensor x pipeline"]
        result = self.train(*plant("update", 3, "hang", step=2), *layout, *WATCHDOG, "--run.checkpoint_in_background", "false", ranks=ranks)
        self.assertEqual(result.code, 6, result)
        self.assertLess(result.seconds, program.LONGEST_END_S, result)
        self.assertRegex(result.err, r"watchdog: behind: rank 3 ")
        self.assert_goes_on(ranks=1)

    def test_a_rank_that_hangs_is_named_with_the_last_communication_of_each_and_ends_with_6(self):
        # Checkpoints at once: one under way would make the ranks meet at another place.
        result = self.train(*plant("advantages", 1, "hang", step=2), *WATCHDOG, "--run.checkpoint_in_background", "false", ranks=2)
        self.assertEqual(result.code, 6, result)
        self.assertLess(result.seconds, program.LONGEST_END_S, result)
        self.assertRegex(result.err, r"\[rank 0/2 [\w.-]+:\d+\] phase=update step=2: nothing has moved for .*; not finished: all_to_all_v 'answers to learn from' on data")
        self.assertRegex(result.err, r"\[rank 1/2 [\w.-]+:\d+\] phase=advantages step=2: nothing has moved for .*; in no communication, the last was all_gather_v 'answers' on data")
        self.assertRegex(result.err, r"watchdog: behind: rank 1 .*; ahead: rank 0")
        self.assertRegex(result.err, r"still nothing moves .* ending the job")
        for rank in range(2):
            log = (self.run_directory / f"logs/rank_{rank:05}.log").read_text()
            self.assertIn("nothing has moved", log)
        self.assert_goes_on(ranks=2)


if __name__ == "__main__":
    program.main()
