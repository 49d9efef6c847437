"""Traces of updates: equal in every layout, and where a rule is broken `rankwise compare` names the operation.

usage: trace_test.py PROGRAM SOURCE
"""
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

PROGRAM, SOURCE = sys.argv[1], pathlib.Path(sys.argv[2])
RUN_RANKS = SOURCE / "tests/support/run_ranks"
STEPS = "imitate:2, reinforce:1"


def run(*words, ranks=1):
    launcher = [RUN_RANKS, str(ranks)] if ranks > 1 else []
    return subprocess.run([*launcher, PROGRAM, *words], capture_output=True, text=True, timeout=120)


class Traces(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="rankwise_trace_")
        cls.addClassCleanup(cls.folder.cleanup)
        cls.plain = cls.train("plain")

    @classmethod
    def train(cls, name, *options, ranks=1, recipe="matrix.ini"):
        directory = os.path.join(cls.folder.name, name)
        done = run("train", str(SOURCE / "configs" / recipe), "--run.directory", directory, "--run.trace", STEPS,
                   "--run.stop_after_steps", "4", *options, ranks=ranks)
        assert done.returncode == 3, done.stdout + done.stderr
        return directory

    def compared(self, other, plain=None):
        done = run("compare", plain or self.plain, other)
        return done.returncode, done.stdout

    def test_are_the_same_in_other_layouts(self):
        for name, ranks, options in (("tensor", 2, ["--parallel.tensor", "2", "--update.recompute", "layer"]),
                                     ("pipeline", 4, ["--parallel.pipeline", "2", "--parallel.schedule", "zero_bubble",
                                                      "--parallel.zero", "3"])):
            with self.subTest(name):
                code, text = self.compared(self.train(name, *options, ranks=ranks))
                self.assertIn("traces      equal (2 steps that both have)", text)
                self.assertEqual(code, 0, text)

    def test_name_a_sum_of_gradients_in_another_order(self):
        code, text = self.compared(self.train("chunks", "--faults.break_rule", "chunk_order", ranks=2))
        self.assertEqual(code, 5)
        self.assertRegex(text, r"traces +first difference at stage imitate, step 2, minibatch 1, ")
        # The step before it has changed the weights: what follows from them differs from the start.
        self.assertRegex(text, r"chunk 0, forward, layer 0: ")
        first = self.train("first", "--faults.break_rule", "chunk_order", "--run.trace", "imitate:1", ranks=2)
        again = os.path.join(self.folder.name, "plain_first")
        done = run("train", str(SOURCE / "configs/matrix.ini"), "--run.directory", again, "--run.trace", "imitate:1",
                   "--run.stop_after_steps", "1")
        self.assertEqual(done.returncode, 3)
        done = run("compare", again, first)
        self.assertRegex(done.stdout, r"imitate, step 1, minibatch 1, gradient of \S+\n +A  \w{32} on rank 0\n +B  \w{32} on ranks? [01]")

    def test_are_the_same_where_experts_are_shared_out_and_name_a_broken_rule_there(self):
        plain = self.train("all experts", recipe="tiny_moe.ini")
        for name, ranks, options in (("over data", 2, ["--parallel.zero", "3"]),
                                     ("over tensor", 4, ["--parallel.tensor", "2", "--parallel.pipeline", "2"])):
            with self.subTest(name):
                shared = self.train(name, "--parallel.expert", "2", *options, ranks=ranks, recipe="tiny_moe.ini")
                code, text = self.compared(shared, plain)
                self.assertIn("traces      equal (2 steps that both have)", text)
                self.assertEqual(code, 0, text)
        broken = self.train("broken", "--parallel.expert", "2", "--faults.break_rule", "chunk_order", "--run.trace", "imitate:1",
                            ranks=4, recipe="tiny_moe.ini")
        first = self.train("first of all experts", "--run.trace", "imitate:1", recipe="tiny_moe.ini")
        code, text = self.compared(broken, first)
        self.assertEqual(code, 5)
        self.assertRegex(text, r"imitate, step 1, minibatch 1, gradient of \S+\n +A  \w{32} on rank 0\n +B  \w{32} on ranks? [0-3]")

    def test_a_step_of_no_stage_is_refused(self):
        for text in ("imitate", "imitate:0", "imitat:1", "imitate:x"):
            done = run("train", str(SOURCE / "configs/matrix.ini"), "--run.directory", os.path.join(self.folder.name, "no"),
                       "--run.trace", text)
            self.assertEqual(done.returncode, 2)
            self.assertIn(f'trace: "{text}" is no STAGE:STEP', done.stderr)
        done = run("train", str(SOURCE / "configs/matrix.ini"), "--run.directory", os.path.join(self.folder.name, "no"),
                   "--run.trace", "measure:1")
        self.assertEqual(done.returncode, 2)
        self.assertIn("stage measure (evaluate) updates no weights", done.stderr)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
