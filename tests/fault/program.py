"""Runs the program as a user does, and looks at what it says and what it leaves. For the tests of this folder.

A test file ends with program.main(); CMake gives it the program and the source folder.
"""
import atexit
import concurrent.futures
import functools
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest

PROGRAM = pathlib.Path(sys.argv[1])
SOURCE = pathlib.Path(sys.argv[2])
SMALL = SOURCE / "tests/fault/small.ini"
_sharing = threading.RLock()
_shared = []
_whole = []
LONGEST_END_S = 10.0  # from an error to the end of the job


def launcher(count, mpi=False):
    """What stands before a command that is to run on `count` ranks; on one there is none, unless `mpi` asks for it."""
    if count == 1 and not mpi:
        return []
    return [str(SOURCE / "tests/support/run_ranks"), str(count)]


class Result:
    def __init__(self, code, out, err, seconds):
        self.code, self.out, self.err, self.seconds = code, out, err, seconds

    def __str__(self):
        return f"exit code {self.code} after {self.seconds:.1f} s\n--- out\n{self.out}\n--- err\n{self.err}"

    def messages(self):
        """The program's own error messages: lines that begin as it begins them, each with the lines that follow it."""
        text = re.split(r"^-{20,}$|^\[[\w.-]+:\d+\] ", self.err, flags=re.M)[0]  # what mpirun adds comes after
        found = re.split(r"^(?=rankwise[ :]|\[rank \d+/\d+ )", text, flags=re.M)
        return [part.strip() for part in found if part.startswith(("rankwise", "[rank "))]


class Case(unittest.TestCase):
    """A test with a folder of its own, and a run in it."""

    maxDiff = None

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="rankwise_fault_"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.run_directory = self.folder / "run"

    # ---- running
    def command(self, *options, ranks=1, recipe=SMALL, directory=None):
        directory = self.run_directory if directory is None else directory
        return [*launcher(ranks), str(PROGRAM), "train", str(recipe), "--run.directory", str(directory), *map(str, options)]

    def execute(self, command, timeout=60):
        begin = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=timeout, cwd=self.folder)
        return Result(done.returncode, done.stdout, done.stderr, time.monotonic() - begin)

    def train(self, *options, timeout=60, **where):
        return self.execute(self.command(*options, **where), timeout)

    def start(self, command):
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
                                cwd=self.folder)

    def done(self, *options, **where):
        """A run that has to succeed."""
        result = self.train(*options, **where)
        self.assertEqual(result.code, 0, result)
        return result

    # ---- what it says
    def assert_refused(self, result, code, *words):
        """Ended with `code` and exactly one message, which holds `words`; in time."""
        self.assertEqual(result.code, code, result)
        messages = result.messages()
        self.assertEqual(len(messages), 1, result)
        for word in words:
            self.assertIn(str(word), messages[0], result)
        self.assertLess(result.seconds, LONGEST_END_S, result)
        return messages[0]

    # ---- what it leaves
    def checkpoint(self, step, directory=None):
        return (directory or self.run_directory) / f"checkpoints/step_{step:08}"

    def digests(self, directory=None):
        return digests_of(directory or self.run_directory)

    def assert_goes_on(self, *options, **where):
        """The same command, started again, ends as the run that nothing disturbs."""
        self.done(*options, **where)
        self.assertEqual(self.digests(), whole_run())


def _made_once(make):
    """Tests that run at the same time wait for the one that makes what they share."""
    @functools.wraps(make)
    def locked():
        with _sharing:
            return make()
    return locked


@_made_once
def whole_run():
    """Digests of the small run that nothing disturbs; run once a test program."""
    if not _whole:
        with tempfile.TemporaryDirectory(prefix="rankwise_whole_") as folder:
            subprocess.run([str(PROGRAM), "train", str(SMALL), "--run.directory", folder], check=True, capture_output=True, timeout=60)
            _whole.extend(digests_of(folder))
    return _whole


def digests_of(directory):
    """(stage, step, digest of weights, digest of rollouts) of every step, in the order of the file."""
    rows = []
    with open(pathlib.Path(directory) / "metrics.jsonl") as file:
        for line in file:
            row = json.loads(line)
            if "record" not in row:
                rows.append((row["stage"], row["step"], row["digest/weights"], row["digest/rollouts"]))
    return rows


@_made_once
def shared_folder():
    """A folder for what several tests of a program use; made when first asked for, removed at the end."""
    if not _shared:
        _shared.append(pathlib.Path(tempfile.mkdtemp(prefix="rankwise_shared_")))
        atexit.register(shutil.rmtree, _shared[0], ignore_errors=True)
    return _shared[0]


@_made_once
def shared_model():
    """A model folder that a small run has exported."""
    folder = shared_folder()
    if not (folder / "model").exists():
        first = SMALL.read_text().split("[stage.reinforce]")[0]
        (folder / "first.ini").write_text(first.replace("imitate, reinforce, measure", "imitate"))
        command = [str(PROGRAM), "train", str(folder / "first.ini"), "--run.directory", str(folder / "run")]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        (folder / "run/models/imitate").rename(folder / "model")
    return folder / "model"


def main(jobs=1):
    """Runs the tests of the calling file, `jobs` at a time: a run waits more than it computes. Names of tests may follow the
    program and the source folder."""
    names = sys.argv[3:]
    if jobs == 1:
        unittest.main(argv=[sys.argv[0], *names])
    tests = _flat(unittest.defaultTestLoader.loadTestsFromModule(sys.modules["__main__"]))
    tests = [test for test in tests if not names or any(name in test.id() for name in names)]
    for test_class in dict.fromkeys(type(test) for test in tests):
        test_class.setUpClass()
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        results = list(pool.map(lambda test: test.run(), tests))
    for test, result in zip(tests, results):
        for what, found in (("FAIL", result.failures), ("ERROR", result.errors), ("skipped", result.skipped)):
            for case, text in found:
                print(f"{'=' * 100}\n{what}: {case}\n{text}")
    failed = [test.id() for test, result in zip(tests, results) if not result.wasSuccessful()]
    print(f"{len(tests)} tests, {len(failed)} failed" + "".join(f"\n  {name}" for name in failed))
    sys.exit(1 if failed or not tests else 0)


def _flat(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from _flat(test)
        else:
            yield test
