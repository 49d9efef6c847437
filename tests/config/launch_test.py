"""How the program ends: the cause once, the right exit code, at once, on every kind of failure."""
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

PROGRAM = sys.argv[1]
RUN_RANKS = sys.argv[2]
RANKS = 3


def run(*words):
    begin = time.monotonic()
    result = subprocess.run([RUN_RANKS, str(RANKS), PROGRAM, *words], capture_output=True, text=True, timeout=60)
    result.seconds = time.monotonic() - begin
    return result


def error_lines(text):
    return [line for line in text.splitlines() if re.match(r"\[rank \d", line) or line.startswith("rankwise")]


class Launch(unittest.TestCase):
    def test_an_error_of_one_rank_ends_the_job_with_its_code_and_one_line(self):
        cases = {
            "numbers": (5, "the loss is not finite"),
            "corrupt": (4, "shard damaged"),
            "memory": (6, "out of memory"),
            "defect": (70, "defect of the program: index out of range"),
            "unknown": (70, "defect of the program: an unknown exception"),
        }
        for what, (code, message) in cases.items():
            with self.subTest(what):
                result = run("one", what)
                self.assertEqual(result.returncode, code, result.stderr)
                lines = error_lines(result.stderr)
                self.assertEqual(len(lines), 1, result.stderr)
                self.assertRegex(lines[0], r"^\[rank 1/3 [\w.-]+:\d+ phase=update step=1203\] ")
                self.assertIn(message, lines[0])
                self.assertLess(result.seconds, 10)

    def test_an_exception_that_leaves_a_thread_is_said_and_ends_with_70(self):
        result = run("one", "thread")
        self.assertEqual(result.returncode, 70, result.stderr)
        self.assertIn("in a thread", result.stderr)
        self.assertLess(result.seconds, 10)

    def test_a_rank_that_dies_silently_ends_the_job(self):
        result = run("one", "exit")
        self.assertEqual(result.returncode, 9)
        self.assertLess(result.seconds, 10)

    def test_an_error_of_all_ranks_is_said_once(self):
        result = run("all")
        self.assertEqual(result.returncode, 5)
        lines = error_lines(result.stderr)
        self.assertEqual(len(lines), 1, result.stderr)
        self.assertRegex(lines[0], r"^\[rank 0/3 .* phase=score step=7\] the reward is not finite$")

    def test_problems_at_start_are_merged_and_said_once(self):
        result = run("start")
        self.assertEqual(result.returncode, 2)
        self.assertEqual(result.stderr.count("no such model"), 1, result.stderr)
        self.assertIn("rankwise start: 2 problems:\n  no such model\n  too little memory here (rank 1)\n", result.stderr)

    def test_ranks_with_another_program_are_found_at_start(self):
        with tempfile.TemporaryDirectory() as folder:
            other = pathlib.Path(folder, "other")
            shutil.copy(PROGRAM, other)
            with open(other, "ab") as file:
                file.write(b"x")
            result = subprocess.run(
                [RUN_RANKS, "2", PROGRAM, "work", ":", "-n", "1", str(other), "work"],
                capture_output=True, text=True, timeout=60)
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertIn("the program is not the same on all ranks: rank 2 of 3 differ", result.stderr)

    def test_the_time_limit_stops_all_ranks_with_3(self):
        result = run("work", "--limit", "0.3")
        self.assertEqual(result.returncode, 3)
        self.assertIn("stopped by the time limit", result.stdout)

    def start_working(self):
        job = subprocess.Popen([RUN_RANKS, str(RANKS), PROGRAM, "work"], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
        pid = int(job.stdout.readline().split()[1])
        return job, pid

    def test_usr1_to_mpirun_stops_all_ranks_with_3(self):
        job, _ = self.start_working()
        job.send_signal(signal.SIGUSR1)
        out, _ = job.communicate(timeout=20)
        self.assertEqual(job.returncode, 3)
        self.assertIn("stopped by SIGUSR1", out)

    def test_a_signal_to_one_rank_stops_all(self):
        import os
        for number, name in ((signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C")):
            with self.subTest(name):
                job, pid = self.start_working()
                os.kill(pid, number)
                out, _ = job.communicate(timeout=20)
                self.assertEqual(job.returncode, 3)
                self.assertIn(f"stopped by {name}", out)

    def test_a_rank_that_hangs_is_named_and_the_job_ends_with_6(self):
        result = run("hang")
        self.assertEqual(result.returncode, 6, result.stderr)
        self.assertRegex(result.stderr, r"rank 0/3 .*phase=generate step=4: nothing has moved for")
        self.assertRegex(result.stderr, r"behind: rank 1")
        self.assertLess(result.seconds, 10)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
