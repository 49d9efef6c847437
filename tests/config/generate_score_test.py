"""Models and texts: rankwise generate and rankwise score.

What is drawn, what is scored and what a run recorded are compared with ==: ids, and log-probabilities to the bit.
"""
import concurrent.futures
import json
import os
import pathlib
import pty
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

try:
    import h5py
except ImportError:
    h5py = None

PROGRAM = pathlib.Path(sys.argv[1])
SOURCE = pathlib.Path(sys.argv[2])
RECIPE = SOURCE / "configs/matrix.ini"
DATA = pathlib.Path(os.environ.get("RANKWISE_TEST_DATA", SOURCE / "../shared/data"))
STORIES = DATA / "models/stories260K"
NO_DATA = "needs the models of RANKWISE_TEST_DATA"
OTHER_LAYOUTS = [
    (2, []),
    (3, ["--generation.deal_interval", "5", "--generation.slots", "1"]),
    (1, ["--generation.slots", "3", "--generation.prefill_tokens", "2"]),
    (1, ["--device.isa", "avx2", "--device.threads", "2"]),
    (1, ["--device.kind", "checked"]),
]


def command_of(words, ranks=1):
    launcher = [str(SOURCE / "tests/support/run_ranks"), str(ranks)] if ranks > 1 else []
    return [*launcher, str(PROGRAM), *map(str, words)]


def run(*words, ranks=1, stdin="", cwd=None):
    return subprocess.run(command_of(words, ranks), capture_output=True, text=True, errors="replace", timeout=60,
                          input=stdin, cwd=cwd)


def each_once(pairs):
    fields = dict(pairs)
    assert len(fields) == len(pairs), f"a field twice: {pairs}"
    return fields


def rows_of(text):
    return [json.loads(line, object_pairs_hook=each_once) for line in text.splitlines()]


def lines_of(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def bits(values):
    return struct.pack(f"<{len(values)}f", *values)


def setUpModule():
    """One run for all tests."""
    Case.shared = pathlib.Path(tempfile.mkdtemp(prefix="rankwise_texts_"))
    Case.run_directory = Case.shared / "run"
    made = run("train", RECIPE, "--run.directory", Case.run_directory)
    assert made.returncode == 0, made.stderr
    Case.model = Case.run_directory / "models/measure"


def tearDownModule():
    shutil.rmtree(Case.shared, ignore_errors=True)


class Case(unittest.TestCase):
    """A test with a folder of its own, beside the run that all share."""

    maxDiff = None

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="rankwise_texts_"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def done(self, *words, **how):
        result = run(*words, **how)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout

    def refused(self, code, *words, problems, **how):
        """The command ends with `code` and says each of `problems` once."""
        result = run(*words, **how)
        self.assertEqual(result.returncode, code, result.stderr)
        self.assertEqual(result.stdout, "")
        for problem in problems:
            self.assertEqual(result.stderr.count(problem), 1, f"'{problem}' in:\n{result.stderr}")
        return result.stderr

    def recorded(self, step):
        """A step's rollouts, as rows that generate and score take."""
        if h5py is None:
            self.skipTest("needs h5py, which reads rollouts: python3-h5py")
        rows = []
        folder = self.run_directory / f"rollouts/step_{step:08d}"
        for part in sorted(folder.glob("part_*.h5")):
            with h5py.File(part) as file:
                offsets = file["offsets"][:]
                for i, prompt_id in enumerate(file["prompt_id"][:]):
                    tokens = file["tokens"][offsets[i]:offsets[i + 1]].tolist()
                    logprobs = file["logprobs"][offsets[i]:offsets[i + 1]].tolist()
                    given = logprobs.index(next(value for value in logprobs if value != 0.0))
                    rows.append({"prompt_id": int(prompt_id), "sample": int(file["sample"][i]),
                                 "prompt_tokens": tokens[:given], "tokens": tokens[given:],
                                 "logprobs": logprobs[given:], "finish_reason": int(file["finish_reason"][i])})
        self.assertTrue(rows)
        return rows


class Generate(Case):
    def test_answers_are_the_same_in_every_layout_and_from_a_run_its_checkpoint_or_its_folder(self):
        prompts = self.folder / "prompts.txt"
        prompts.write_text("3,5,7->22\n\n12,1,4->9\r\n2,2,2->6\n")
        words = ["--file", prompts, "--samples", "3", "--max-tokens", "30", "--json"]
        expected = self.done("generate", self.run_directory, *words)
        self.assertEqual(len(rows_of(expected)), 9)
        self.assertEqual([row["sample"] for row in rows_of(expected)], [0, 1, 2] * 3)
        self.assertGreater(len({row["completion"] for row in rows_of(expected)}), 6)
        (newest,) = (self.run_directory / "checkpoints").glob("step_*7")
        for model in (newest, self.run_directory / "checkpoints", self.model):
            self.assertEqual(self.done("generate", model, *words), expected, model)
        for ranks, layout in OTHER_LAYOUTS:
            self.assertEqual(self.done("generate", self.run_directory, *words, *layout, ranks=ranks), expected, layout)
        others = self.done("generate", self.run_directory, *words, "--seed", "2")
        self.assertNotEqual([row["tokens"] for row in rows_of(others)], [row["tokens"] for row in rows_of(expected)])

    def test_text_is_that_of_the_json_lines_on_one_rank_and_on_two(self):
        words = ["generate", self.run_directory, "--samples", "2", "--max-tokens", "20"]
        prompts = "3,5,7->22\n12,1,4->9\n"
        answers = [row["completion"] for row in rows_of(self.done(*words, "--json", stdin=prompts))]
        headings = [f"# standard input:{line}, sample {sample}" for line in (1, 2) for sample in (0, 1)]
        expected = "\n".join(f"{heading}\n{answer}\n" for heading, answer in zip(headings, answers))
        for ranks in (1, 2):
            self.assertEqual(self.done(*words, stdin=prompts, ranks=ranks), expected)
        one = self.done("generate", self.run_directory, "--prompt", "3,5,7->22", "--max-tokens", "20")
        self.assertEqual(one, answers[0] + "\n")

    def test_a_recorded_answer_is_drawn_again_by_its_names(self):
        recorded = self.recorded(7)
        prompts = {row["prompt_id"]: {"prompt_id": row["prompt_id"], "prompt_tokens": row["prompt_tokens"],
                                      "step": 0xFFFFFFFF} for row in recorded}
        file = self.folder / "prompts.jsonl"
        file.write_text(lines_of(prompts.values()))
        answers = rows_of(self.done("generate", self.run_directory, "--file", file, "--samples", "2", "--json",
                                    "--temperature", "0.8", "--top-p", "0.95", "--max-tokens", "40"))
        names = lambda row: (row["prompt_id"], row["sample"])
        again = {names(row): row for row in answers}
        self.assertEqual(len(again), len(recorded))
        for row in recorded:
            self.assertEqual(again[names(row)]["tokens"], row["tokens"])
            self.assertEqual(bits(again[names(row)]["logprobs"]), bits(row["logprobs"]))

    def test_fields_of_a_row_are_passed_on_so_that_answers_can_be_graded(self):
        row = {"id": 7, "task": "countdown", "prompt": "3,5,7->22", "nums": [3, 5, 7], "target": 22, "note": "größer"}
        answer = self.done("generate", self.run_directory, "--format", "json", "--max-tokens", "8", "--json",
                           stdin=lines_of([row]))
        found = rows_of(answer)[0]
        self.assertEqual({key: found[key] for key in row}, row)
        self.assertEqual(found["prompt_id"], 7)
        graded = run("grade", "-", "--rewards", "countdown,format", stdin=answer)
        self.assertEqual(graded.returncode, 0, graded.stderr)

    def test_stop_strings_end_an_answer_and_the_limit_is_a_reason(self):
        words = ["generate", self.run_directory, "--prompt", "3,5,7->22", "--json"]
        whole = rows_of(self.done(*words, "--max-tokens", "30"))[0]
        self.assertEqual(whole["finish_reason"], "length")
        self.assertEqual(len(whole["tokens"]), 30)
        stop = whole["completion"][4:6]
        cut = rows_of(self.done(*words, "--max-tokens", "30", "--stop", stop))[0]
        self.assertEqual(cut["finish_reason"], "stop")
        self.assertTrue(cut["completion"].endswith(stop) and whole["completion"].startswith(cut["completion"]), cut)
        context = rows_of(self.done(*words, "--max-tokens", "100000", "--temperature", "0"))[0]
        if context["finish_reason"] == "context":
            self.assertEqual(len(context["prompt_tokens"]) + len(context["tokens"]), 256)

    @unittest.skipUnless(STORIES.exists(), NO_DATA)
    def test_greedy_answers_of_a_hugging_face_folder_are_those_of_its_reference(self):
        results = json.loads((STORIES / "reference.json").read_text())["results"]
        rows = [{"prompt": result["prompt"]} for result in results]
        answers = rows_of(self.done("generate", STORIES, "--format", "json", "--json", "--temperature", "0",
                                    "--max-tokens", max(len(result["greedy_new_ids"]) for result in results),
                                    stdin=lines_of(rows)))
        self.assertGreater(len(answers), 1)
        for answer, result in zip(answers, results):
            self.assertEqual(answer["prompt_tokens"], result["input_ids"])
            self.assertEqual(answer["tokens"][:len(result["greedy_new_ids"])], result["greedy_new_ids"])

    @unittest.skipUnless(STORIES.exists(), NO_DATA)
    def test_text_flows_while_it_is_made_and_a_signal_ends_it(self):
        prompts = self.folder / "prompts.txt"
        prompts.write_text("Once upon a time\n" * 200000)
        words = ["generate", STORIES, "--file", prompts, "--max-tokens", "500"]
        process = subprocess.Popen(command_of(words), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        try:
            first = b""
            while first.count(b" ") < 8:
                piece = os.read(process.stdout.fileno(), 64)
                self.assertTrue(piece)
                first += piece
            self.assertIsNone(process.poll())
            self.assertTrue(first.startswith(b"# "), first)
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(timeout=20), -signal.SIGTERM)
        finally:
            process.kill()
            process.stdout.close()
            process.wait()

    def test_a_terminal_is_a_dialogue_of_lines(self):
        own, others = pty.openpty()
        words = ["generate", self.run_directory, "--max-tokens", "12"]
        process = subprocess.Popen(command_of(words), stdin=others, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        os.close(others)

        def read_until(end):
            output = ""
            deadline = time.monotonic() + 20
            while not output.endswith(end):
                self.assertTrue(select.select([process.stdout], [], [], deadline - time.monotonic())[0], output)
                piece = os.read(process.stdout.fileno(), 4096)
                self.assertTrue(piece, output)
                output += piece.decode()
            return output

        try:
            read_until("> ")
            os.write(own, b"3,5,7->22\n")
            answer = read_until("> ")
            os.write(own, b"3 apples\n")  # the vocabulary has no such word
            problem = read_until("> ")
            os.write(own, b"12,1,4->9\n\x04")
            self.assertEqual(process.wait(timeout=20), 0)
        finally:
            process.kill()
            os.close(own)
            rest = process.stdout.read().decode()
            process.stdout.close()
            process.wait()
        expected = self.done("generate", self.run_directory, "--max-tokens", "12", "--prompt", "3,5,7->22")
        self.assertEqual(answer, expected + "> ")
        self.assertIn("standard input:1: ", problem)
        self.assertIn("2 answers", rest)

    def test_everything_wrong_on_the_command_line_is_said_at_once(self):
        self.refused(2, "generate", self.run_directory, "--prompt", "x", "--file", "y", "--top-p", "2", "--temperature",
                     "hot", "--samples", "0", "--device.isa", "sse", "--generation.slots", "0", "--run.seed", "1",
                     problems=["--top-p: expected a number from 0 to 1, found '2'", "--temperature: expected a number",
                               "--samples: expected a whole number from 1", "expected one of automatic, avx2, avx512, avx512_bf16",
                               "[generation] slots: expected a whole number of at least 1", "section [run]",
                               "--prompt and --file: give one of them"], ranks=2)
        self.refused(2, "generate", problems=["rankwise generate needs MODEL"])
        self.refused(2, "generate", self.run_directory, "--tmperature", "1", problems=["did you mean --temperature?"])

    def test_every_wrong_line_is_named(self):
        file = self.folder / "prompts.jsonl"
        file.write_text(lines_of([{"prompt": "3,5,7->22"}, {"promt": "3,5,7->22"}, [1], {"prompt": 5},
                                  {"prompt_tokens": [1, 122]}, {"prompt_tokens": []}, {"prompt": "1,1,1->3", "step": -1},
                                  {"prompt_tokens": [1] * 256}, {"prompt": "1,1,1->3", "prompt_id": 0.5}]) + "{\n")
        problems = [":2: has neither prompt nor prompt_tokens", ":3: expected an object of JSON, found '[1]'",
                    ":4: prompt: expected text, found number", ":5: prompt_tokens: expected ids from 0 to 121, found 122",
                    ":6: the prompt has no token", ":7: step: expected a whole number from 0 to 4294967295, found -1",
                    ":8: the prompt has 256 tokens, which leaves no room in the model's context of 256",
                    ":9: prompt_id: expected a whole number", ":10: expected an object of JSON, found '{'"]
        self.refused(2, "generate", self.run_directory, "--file", file, ranks=2,
                     problems=[f"{file}{problem}" for problem in problems])

    def test_what_cannot_be_read_or_written_is_an_error_with_its_code(self):
        prompt = ["--prompt", "3,5,7->22"]
        self.refused(2, "generate", self.folder / "none", *prompt, problems=["there is no such model"])
        self.refused(2, "generate", RECIPE, *prompt, problems=["is a file; give a model folder"])
        self.refused(2, "generate", self.folder, *prompt, problems=["is neither a model folder"])
        self.refused(2, "generate", self.run_directory, "--file", "no/such", problems=["cannot read no/such: No such file"])
        self.refused(2, "generate", self.run_directory, "--file", "/dev/null", problems=["/dev/null: there is no prompt"])
        self.refused(6, "generate", self.run_directory, *prompt, "--output", self.folder / "no/such",
                     problems=["cannot write", "No such file"])
        self.refused(6, "generate", self.run_directory, *prompt, "--output", "/dev/full",
                     problems=["cannot write /dev/full: No space left on device"])

    def test_a_damaged_checkpoint_is_a_corrupt_file_and_a_run_falls_back_to_the_one_before(self):
        copied = self.folder / "run"
        shutil.copytree(self.run_directory, copied)
        newest = max((copied / "checkpoints").glob("step_*"))
        (shard,) = newest.glob("shard_*.h5")
        data = bytearray(shard.read_bytes())
        data[len(data) // 2] ^= 1
        shard.write_bytes(data)
        self.refused(4, "generate", newest, "--prompt", "3,5,7->22", problems=["checksum"])
        shard.write_bytes(data[:-1])
        result = run("generate", copied, "--prompt", "3,5,7->22", "--max-tokens", "4")
        others = [path for path in (copied / "checkpoints").glob("step_*") if path != newest]
        if others:
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertIn("passed by: ", result.stderr)
        else:
            self.assertEqual(result.returncode, 4, result.stderr)

    def test_ranks_that_see_other_weights_under_the_same_path_are_refused(self):
        here, there = self.folder / "here", self.folder / "there"
        shutil.copytree(self.model, here / "model")
        shutil.copytree(self.run_directory / "models/imitate", there / "model")
        words = [str(PROGRAM), "generate", "model", "--prompt", "3,5,7->22"]
        command = [str(SOURCE / "tests/support/run_ranks"), "1", *words, ":", "-n", "1", "-wdir", str(there), *words]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=here)
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertEqual(result.stderr.count("the model is not the same on all ranks"), 1, result.stderr)

    def test_a_folder_without_a_tokenizer_works_with_ids_or_a_tokenizer_from_elsewhere(self):
        bare = self.folder / "bare"
        shutil.copytree(self.model, bare)
        (bare / "tokenizer.json").unlink()
        (bare / "tokenizer_config.json").unlink()
        words = ["--prompt", "3,5,7->22", "--max-tokens", "9", "--json"]
        expected = rows_of(self.done("generate", self.model, *words))[0]
        self.refused(2, "generate", bare, *words, problems=["--prompt: is text, but the model has no tokenizer.json"])
        self.refused(2, "generate", bare, "--prompt", "x", problems=["has no tokenizer.json: give --tokenizer, or --json"])
        self.refused(2, "generate", bare, *words, "--stop", "x", problems=["or --json without --stop"])
        with_other = rows_of(self.done("generate", bare, *words, "--tokenizer", self.model))[0]
        self.assertEqual(with_other, expected)
        ids = rows_of(self.done("generate", bare, "--format", "json", "--json", "--max-tokens", "9", "--prompt",
                                json.dumps({"prompt_tokens": expected["prompt_tokens"]})))[0]
        self.assertNotIn("completion", ids)
        self.assertEqual(len(ids["tokens"]), 9)  # ids of padded rows may be among them
        if STORIES.exists():
            self.refused(2, "generate", bare, "--prompt", "x", "--tokenizer", STORIES,
                         problems=["has 512 ids, but the vocabulary of"])


class Score(Case):
    def test_scores_are_the_bits_that_were_drawn_with_in_every_layout(self):
        file = self.folder / "answers.jsonl"
        for temperature in ("1", "0.7", "0"):
            drawn = self.done("generate", self.run_directory, "--samples", "40", "--max-tokens", "70", "--json",
                              "--temperature", temperature, stdin="3,5,7->22\n12,1,4->9\n2,3,4->20\n")
            file.write_text(drawn)
            words = ["score", self.run_directory, "--file", file, "--temperature", temperature]
            scored = self.done(*words)
            for before, after in zip(rows_of(drawn), rows_of(scored), strict=True):
                self.assertEqual(bits(after["logprobs"]), bits(before["logprobs"]))
                self.assertEqual(after["tokens"], before["tokens"])
                self.assertEqual(after["completion"], before["completion"])
                self.assertEqual(after["logprob"], sum(struct.unpack(f"<{len(after['tokens'])}f", bits(after["logprobs"]))))
                self.assertEqual(len(after["entropies"]), len(after["tokens"]))
                self.assertTrue(all(entropy >= 0 for entropy in after["entropies"]))
        for ranks, layout in OTHER_LAYOUTS:
            output = self.folder / "scored.jsonl"
            self.assertEqual(self.done(*words, *layout, "--output", output, ranks=ranks), "")
            self.assertEqual(output.read_text(), scored, layout)

    def test_a_model_that_computes_in_bfloat16_does_so_here_and_draws_what_it_scores(self):
        model = self.folder / "model"
        shutil.copytree(self.model, model)
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps({**config, "rankwise_dtype": "bfloat16"}))
        file = self.folder / "answers.jsonl"
        drawn = self.done("generate", model, "--samples", "20", "--max-tokens", "70", "--json",
                          stdin="3,5,7->22\n12,1,4->9\n")
        file.write_text(drawn)
        exact = rows_of(self.done("score", self.model, "--file", file))
        for ranks, layout in [(1, []), *OTHER_LAYOUTS]:
            scored = rows_of(self.done("score", model, "--file", file, *layout, ranks=ranks))
            for before, after, float32 in zip(rows_of(drawn), scored, exact, strict=True):
                self.assertEqual(bits(after["logprobs"]), bits(before["logprobs"]), layout)
                self.assertNotEqual(bits(after["logprobs"]), bits(float32["logprobs"]))
                for found, expected in zip(after["logprobs"], float32["logprobs"], strict=True):
                    self.assertLess(abs(found - expected), 0.1)

    def test_rollouts_of_a_run_score_as_they_were_recorded(self):
        rows = self.recorded(7)
        scored = rows_of(self.done("score", self.run_directory, "--temperature", "0.8", stdin=lines_of(rows)))
        for before, after in zip(rows, scored, strict=True):
            self.assertEqual(bits(after["logprobs"]), bits(before["logprobs"]))

    @unittest.skipUnless(STORIES.exists(), NO_DATA)
    def test_scores_of_a_hugging_face_folder_are_those_of_its_reference(self):
        results = json.loads((STORIES / "reference.json").read_text())["results"]
        results = [result for result in results if result["prompt"]]
        scored = rows_of(self.done("score", STORIES, stdin=lines_of([{"text": r["prompt"]} for r in results])))
        for row, result in zip(scored, results, strict=True):
            self.assertEqual(row["prompt_tokens"] + row["tokens"], result["input_ids"])
            for found, exact in zip(row["logprobs"], result["teacher_forced_logprobs"], strict=True):
                self.assertLess(abs(found - exact), 1e-5 * max(1.0, abs(exact)))

    def test_texts_ids_and_completions_say_the_same(self):
        text = "3,5,7->22"
        row = rows_of(self.done("score", self.run_directory, stdin=lines_of([{"text": text}])))[0]
        ids = row["prompt_tokens"] + row["tokens"]
        self.assertEqual(len(row["prompt_tokens"]), 1)
        forms = [{"tokens": ids}, {"completion": text}, {"prompt_tokens": ids[:1], "tokens": ids[1:]},
                 {"prompt_tokens": ids[:1], "tokens": ids[1:], "prompt": 5, "completion": None}]
        for found in rows_of(self.done("score", self.run_directory, stdin=lines_of(forms))):
            for key in ("prompt_tokens", "tokens", "logprobs", "entropies", "logprob"):
                self.assertEqual(found[key], row[key])
        (nothing,) = rows_of(self.done("score", self.run_directory, stdin=lines_of([{"tokens": ids[:1]}])))
        self.assertEqual((nothing["tokens"], nothing["logprobs"], nothing["logprob"]), ([], [], 0))

    def test_lines_that_cannot_be_scored_are_named(self):
        file = self.folder / "rows.jsonl"
        file.write_text(lines_of([{"prompt": "3,5,7->22"}, {"prompt": "3,5,7->22", "text": "3"}, {"tokens": []},
                                  {"tokens": [1] * 257}, {"prompt_tokens": [1] * 200, "tokens": [1] * 57},
                                  {"tokens": [-1]}, {"tokens": "abc"}, {"completion": "apple"}, {"tokens": [1] * 256}]))
        problems = [":1: has nothing to score: completion, tokens or text", ":2: has a prompt and a text",
                    ":3: has no token to score", ":4: has 257 tokens, but the model's context 256",
                    ":5: has 257 tokens, but the model's context 256", ":6: tokens: expected ids from 0 to 121, found -1",
                    ":7: tokens: expected a list of ids, found string", ":8: completion: "]
        said = self.refused(2, "score", self.run_directory, "--file", file, ranks=2,
                            problems=[f"{file}{problem}" for problem in problems])
        self.assertNotIn(":9:", said)
        file.write_text("{}\n" * 1000)
        said = self.refused(2, "score", self.run_directory, "--file", file, problems=["there may be more"])
        self.assertEqual(said.count("has nothing to score"), 10)
        self.refused(2, "score", self.run_directory, "--temperature", "-1", problems=["--temperature: expected a number"])
        self.refused(2, "score", self.run_directory, problems=["standard input: there is no row in it"])
        file.write_text(lines_of([{"tokens": [1] * 256}]))
        self.refused(6, "score", self.run_directory, "--file", file, "--output", "/dev/full",
                     problems=["cannot write /dev/full"])

    def test_weights_that_are_no_numbers_or_lead_to_none_are_found(self):
        broken = self.folder / "broken"
        shutil.copytree(self.model, broken)
        (file,) = broken.glob("*.safetensors")
        data = file.read_bytes()
        words = ["--prompt", "3,5,7->22"]
        file.write_bytes(data[:-4] + struct.pack("<f", float("nan")))
        self.refused(2, "generate", broken, *words, problems=["model.norm.weight holds nan"])
        file.write_bytes(data[:-128] + 32 * struct.pack("<f", 3e38))  # a norm that overflows
        self.refused(5, "score", broken, stdin='{"tokens": [1, 2, 3]}\n', problems=["standard input:1: ", "not finite"])
        self.refused(5, "generate", broken, *words, problems=["is not finite"])


class Together(unittest.TestSuite):
    """Tests at the same time: most of theirs is spent waiting for programs to start."""

    def run(self, result, debug=False):
        def outcome_of(test):
            outcome = unittest.TestResult()
            test(outcome)
            return outcome

        setUpModule()
        try:
            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                for outcome in pool.map(outcome_of, self):
                    result.testsRun += outcome.testsRun
                    result.failures += outcome.failures
                    result.errors += outcome.errors
                    result.skipped += outcome.skipped
        finally:
            tearDownModule()
        return result


def load_tests(loader, classes, pattern):
    return Together(test for tests in classes for test in tests)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
