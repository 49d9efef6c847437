"""The program as a user meets it: help, mistakes on the command line, exit codes."""
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

PROGRAM = pathlib.Path(sys.argv[1])
SOURCE = pathlib.Path(sys.argv[2])
RUN_RANKS = SOURCE / "tests/support/run_ranks"


def run(*words, ranks=None, stdin=None):
    command = [str(PROGRAM), *words]
    if ranks:
        command = [str(RUN_RANKS), str(ranks), *command]
    return subprocess.run(command, capture_output=True, text=True, input=stdin, timeout=60)


class Program(unittest.TestCase):
    def test_help_of_the_program_lists_every_command_and_each_has_a_help(self):
        result = run("--help")
        self.assertEqual(result.returncode, 0)
        lines = result.stdout.split("Commands\n")[1].split("\n\n")[0].splitlines()
        commands = [line.split()[0] for line in lines if line[2] != " "]
        self.assertIn("compare", commands)
        for command in commands:
            with self.subTest(command):
                help_text = run(command, "--help")
                self.assertEqual(help_text.returncode, 0)
                self.assertIn(f"rankwise {command}", help_text.stdout)
                self.assertEqual(help_text.stderr, "")

    def test_unknown_command_names_the_nearest_and_ends_with_2(self):
        result = run("comprae", "a", "b")
        self.assertEqual(result.returncode, 2)
        self.assertIn("did you mean compare?", result.stderr)

    def test_mistakes_are_said_once_on_many_ranks(self):
        result = run("comprae", ranks=3)
        self.assertEqual(result.returncode, 2)
        self.assertEqual(result.stderr.count("there is no command comprae"), 1)

    def test_a_mistake_is_said_though_the_rank_that_says_it_is_late(self):
        wait = 'test "${OMPI_COMM_WORLD_RANK-${PMIX_RANK-$PMI_RANK}}" != 0 || sleep 2; exec "$@"'
        result = subprocess.run([str(RUN_RANKS), "3", "sh", "-c", wait, "late", str(PROGRAM), "comprae"],
                                capture_output=True, text=True, timeout=60)
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertEqual(result.stderr.count("there is no command comprae"), 1, result.stderr)

    def test_a_command_without_ranks_runs_once_on_many(self):
        result = run("version", ranks=3)
        self.assertEqual(result.returncode, 0)
        self.assertEqual(result.stdout.count("numerics"), 1)

    def test_missing_file_is_bad_input(self):
        for words in (["inspect", "no/such"], ["report", "no/such"], ["compare", "no", "such"],
                      ["grade", "no/such", "--rewards", "format"]):
            with self.subTest(words):
                result = run(*words)
                self.assertEqual(result.returncode, 2)
                self.assertTrue(result.stderr.startswith(f"rankwise {words[0]}: "), result.stderr)
                self.assertEqual(result.stderr.count("\n"), 1)

    def test_version_tells_what_it_was_built_with(self):
        text = run("version").stdout
        for word in ("commit", "MPI", "HDF5", "numerics", "program"):
            self.assertIn(word, text)
        digest = text.split("program")[1].split()[0]
        self.assertRegex(digest, "^[0-9a-f]{32}$")

    def test_the_commit_is_that_of_the_last_build_and_its_header_stays_while_it_does(self):
        with tempfile.TemporaryDirectory() as folder:
            header = pathlib.Path(folder, "commit.hpp")
            clone = pathlib.Path(folder, "clone")
            clone.mkdir()

            def git(*words):
                result = subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=clone,
                                        capture_output=True, text=True, check=True)
                return result.stdout.strip()

            def written():
                subprocess.run(["cmake", f"-DROOT={clone}", f"-DOUT={header}", "-P", SOURCE / "cmake/commit.cmake"],
                               check=True)
                return header.read_text().split('"')[1]

            self.assertEqual(written(), "")  # no clone
            git("init", "-q")
            for text in ("one", "two"):
                (clone / "file").write_text(text)
                git("add", "file")
                git("commit", "-qm", text)
                self.assertEqual(written(), git("rev-parse", "--short", "HEAD"))
            before = header.stat().st_mtime_ns
            written()
            self.assertEqual(header.stat().st_mtime_ns, before)
            (clone / "file").write_text("three")
            self.assertTrue(written().endswith("-dirty"))

    def test_options_lists_sections_and_the_physical_ones_for_programs(self):
        self.assertIn("[run]", run("options").stdout)
        self.assertIn("seed = 1", run("options", "run").stdout)
        self.assertIn("did you mean run?", run("options", "rnu").stderr)
        for kind in ("sft", "grpo", "evaluate", "reject"):
            self.assertIn(f"kind = {kind}", run("options", kind).stdout)
        self.assertIn("start_from", run("options", "stage.NAME").stdout)
        for line in run("options", "--physical").stdout.splitlines():
            section, kind, name, default, values = line.split("\t")
            self.assertTrue(section and kind and name and values, line)

    def test_grade_judges_lines_and_names_what_is_wrong(self):
        row = {"id": 1, "task": "countdown", "prompt": "7,3,2->12", "nums": [7, 3, 2], "target": 12,
               "completion": "<think>7+3=10,10+2=12</think><answer>7+3+2</answer>"}
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder, "answers.jsonl")
            output = pathlib.Path(folder, "graded.jsonl")
            file.write_text(json.dumps(row) + "\n")
            result = run("grade", str(file), "--rewards", "countdown,format", "--weights", "1,0.5",
                         "--output", str(output))
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertEqual(json.loads(output.read_text())["reward"], 1.5)
            self.assertIn("1 rows, reward 1.500 on average", result.stderr)
            self.assertEqual(run("grade", "-", "--rewards", "countdown", stdin=file.read_text()).returncode, 0)
            self.assertIn("did you mean", run("grade", str(file), "--rewards", "countdwn").stderr)
            self.assertEqual(run("grade", str(file), "--rewards", "format", "--weights", "x").returncode, 2)
            self.assertEqual(run("grade", str(file), "--rewards", "format", "--output",
                                 folder + "/no/such").returncode, 6)
        self.assertIn("countdown", run("grade", "--list").stdout)
        self.assertEqual(run("grade").returncode, 2)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
