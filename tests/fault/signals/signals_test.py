"""Signals at random moments: the run saves and says so, or is killed; either way the same command goes on to the same bits."""
import concurrent.futures
import os
import pathlib
import random
import signal
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
import program

# Long enough that a random moment falls into any phase.
LONG = ["--stage.imitate.steps", 12, "--stage.reinforce.steps", 8, "--run.checkpoint_every", 3]
RANKS = 2
SEED = random.SystemRandom().randrange(1000)
HOW = {"USR1": "SIGUSR1", "TERM": "SIGTERM", "INT": "Ctrl-C"}


def processes_of(job):
    """Process ids of a job's ranks, rank 0 first."""
    children = pathlib.Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
    ranks = {}
    for child in children:
        try:
            words = pathlib.Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        for word in words:
            if word.startswith(b"OMPI_COMM_WORLD_RANK="):
                ranks[int(word.split(b"=")[1])] = int(child)
    return [ranks[rank] for rank in sorted(ranks)]


class Signals(program.Case):
    @classmethod
    def setUpClass(cls):
        with tempfile.TemporaryDirectory(prefix="rankwise_whole_") as folder:
            run = program.Case()
            run.folder = pathlib.Path(folder)
            run.done(*LONG, directory=folder)
            cls.whole = program.digests_of(folder)

    def interrupt(self, name, target, moment, directory):
        """Starts a job, sends the signal at `moment`: so many lines of metrics, and so many seconds. @return result, seconds to its end"""
        job = self.start(self.command(*LONG, ranks=RANKS, directory=directory))
        self.addCleanup(job.kill)
        first = job.stdout.readline()
        lines, seconds = moment
        metrics = pathlib.Path(directory) / "metrics.jsonl"
        while job.poll() is None and lines > 0 and not (metrics.exists() and metrics.read_bytes().count(b"\n") >= lines):
            time.sleep(0.001)
        time.sleep(seconds)
        pid = job.pid if target == "mpirun" else (processes_of(job) or [job.pid] * RANKS)[target]
        begin = time.monotonic()
        try:
            os.kill(pid, getattr(signal, "SIG" + name))
        except ProcessLookupError:
            pass  # it was done before
        out, err = job.communicate(timeout=60)
        return program.Result(job.returncode, first + out, err, time.monotonic() - begin)

    def assert_stopped(self, result, name, may_be_killed):
        self.assertLess(result.seconds, program.LONGEST_END_S, result)
        if result.code == 3:
            self.assertEqual(result.out.count(f"stopped by {HOW[name]} after step "), 1, result)
            self.assertIn("saved. The same command goes on from here", result.out)
            self.assertEqual(result.messages(), [], result)
        elif not may_be_killed:
            self.assertEqual(result.code, 0, result)

    def assert_goes_on_to_the_end(self, directory):
        self.done(*LONG, ranks=3, directory=directory)
        self.assertEqual(self.digests(directory), self.whole)

    def check(self, cases):
        moments = random.Random(SEED)
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            jobs = []
            for number, (name, target) in enumerate(cases):
                # By the run's own progress, which no load of the machine moves; then anywhere within a step or two.
                moment = (moments.randrange(15), moments.uniform(0.0, 0.05))
                directory = self.folder / f"{number}"
                jobs.append((name, target, moment, directory, pool.submit(self.interrupt, name, target, moment, directory)))
        self.assertIn(3, [job.result().code for *_, job in jobs], "every run was at its end before its signal came")
        for name, target, moment, directory, job in jobs:
            with self.subTest(f"{name} to {target} after {moment[0]} lines and {moment[1]:.3f} s, seed {SEED}"):
                # On TERM and INT mpirun kills its ranks after a second, ready or not.
                self.assert_stopped(job.result(), name, may_be_killed=target == "mpirun" and name != "USR1")
                self.assert_goes_on_to_the_end(directory)

    def test_a_signal_to_one_rank_stops_all_ranks_with_3(self):
        self.check([("TERM", 0), ("USR1", 1), ("INT", 0), ("TERM", 1)])

    def test_a_signal_to_mpirun_loses_nothing(self):
        self.check([("USR1", "mpirun"), ("TERM", "mpirun"), ("INT", "mpirun"), ("USR1", "mpirun")])

    def test_a_signal_before_the_first_step_stops_after_it(self):
        job = self.start(self.command(*LONG, "--run.display", "off", ranks=1))
        self.addCleanup(job.kill)
        deadline = time.monotonic() + 20
        while not (self.run_directory / "run.lock").exists() and time.monotonic() < deadline:
            time.sleep(0.001)
        job.send_signal(signal.SIGTERM)
        job.communicate(timeout=60)
        self.assertEqual(job.returncode, 3)
        self.assertGreaterEqual(len(self.digests()), 1)
        self.assert_goes_on_to_the_end(self.run_directory)

    def test_a_second_interrupt_ends_at_once_and_nothing_is_trusted_that_is_half_written(self):
        job = self.start(self.command("--faults.throw_in", "advantages", "--faults.throw_at", 2, "--faults.throw_as", "hang", *LONG))
        self.addCleanup(job.kill)
        while "reinforce 1/" not in job.stdout.readline():
            self.assertIsNone(job.poll())
        time.sleep(0.3)
        job.send_signal(signal.SIGINT)
        time.sleep(0.5)
        self.assertIsNone(job.poll(), "the first one waits for the end of the step")
        begin = time.monotonic()
        job.send_signal(signal.SIGINT)
        job.communicate(timeout=20)
        self.assertLess(time.monotonic() - begin, 5)
        self.assertEqual(job.returncode, 130)
        self.assert_goes_on_to_the_end(self.run_directory)


if __name__ == "__main__":
    program.main()
