"""Models by path: rankwise eval, rankwise export, and stages that start from a model that is there.

What a command says of a model is compared with what the run wrote that made it, with ==: numbers, digests, bytes of files.
"""
import hashlib
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

PROGRAM = pathlib.Path(sys.argv[1])
SOURCE = pathlib.Path(sys.argv[2])
RECIPE = SOURCE / "configs/matrix.ini"
DATA = pathlib.Path(os.environ.get("RANKWISE_TEST_DATA", SOURCE / "../shared/data"))


def run(*words, ranks=1, cwd=None):
    command = [str(PROGRAM), *map(str, words)]
    if ranks > 1:
        command = [str(SOURCE / "tests/support/run_ranks"), str(ranks), *command]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=cwd)


def digest(data):
    """Stands for bytes in comparisons: when they differ, nobody wants to read them."""
    return len(data), hashlib.sha256(data).hexdigest()


def raw_tensors(path):
    """name -> (dtype, shape, bytes) of a safetensors file or of all in a folder."""
    found = {}
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    for file in files:
        data = file.read_bytes()
        (size,) = struct.unpack("<Q", data[:8])
        for name, entry in json.loads(data[8:8 + size]).items():
            if name == "__metadata__":
                continue
            begin, end = entry["data_offsets"]
            found[name] = (entry["dtype"], entry["shape"], data[8 + size + begin:8 + size + end])
    return found


def tensors(path):
    """name -> (dtype, shape, (size, digest)) of the same."""
    return {name: (dtype, shape, digest(data)) for name, (dtype, shape, data) in raw_tensors(path).items()}


def setUpModule():
    """One run for all tests, with a tree of sums of its own, which every way of taking its model has to keep."""
    Models.shared = pathlib.Path(tempfile.mkdtemp(prefix="rankwise_models_"))
    Models.run_directory = Models.shared / "run"
    made = run("train", RECIPE, "--run.directory", Models.run_directory, "--model.policy.reduction", "2,4")
    assert made.returncode == 0, made.stderr
    Models.lines = [json.loads(line) for line in (Models.run_directory / "metrics.jsonl").read_text().splitlines()]
    text = RECIPE.read_text()
    stages, measure = text.index("[stage.imitate]"), text.index("[stage.measure]")
    Models.measuring = Models.shared / "measuring.ini"
    Models.measuring.write_text(text[:stages].replace("imitate, reinforce, measure", "measure") + text[measure:])


def tearDownModule():
    shutil.rmtree(Models.shared, ignore_errors=True)


class Models(unittest.TestCase):
    """A test with a folder of its own, beside the run that all share."""

    maxDiff = None

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="rankwise_models_"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def evaluation(self, stage, step):
        (line,) = [line for line in self.lines
                   if line["stage"] == stage and line["step"] == step and line.get("record") == "evaluation"]
        return {name: value for name, value in line.items() if name.startswith("eval/")}

    def digests(self, stage, step):
        (line,) = [line for line in self.lines
                   if line["stage"] == stage and line["step"] == step and "record" not in line]
        return line["digest/weights"], line["digest/rollouts"]

    def evaluate(self, *words, **how):
        result = run("eval", *words, **how)
        self.assertEqual(result.returncode, 0, result.stderr)
        line = json.loads(result.stdout.splitlines()[-1])
        return line, {name: value for name, value in line.items() if name.startswith("eval/")}, result.stdout

    def assert_refused(self, result, code, *parts):
        self.assertEqual(result.returncode, code, result.stdout + result.stderr)
        for part in parts:
            self.assertIn(part, result.stderr)

    def damaged_run(self, name="run"):
        copy = self.folder / name
        shutil.copytree(self.run_directory, copy)
        return copy, sorted((copy / "checkpoints").glob("step_*"))

    def flip(self, file, at):
        data = bytearray(file.read_bytes())
        data[at] ^= 1
        file.write_bytes(data)


class Eval(Models):
    def test_a_run_is_measured_as_its_evaluate_stage_measured_it(self):
        line, values, text = self.evaluate(self.run_directory)
        self.assertEqual(values, self.evaluation("measure", 1))
        self.assertEqual((line["digest/weights"], line["digest/rollouts"]), self.digests("measure", 1))
        self.assertEqual((line["stage"], line["problems"], line["samples"]), ("measure", 6, 2))
        for word in ("pass@1", "pass@2", "cons@2", "6 held-out problems, 2 answers each"):
            self.assertIn(word, text)

    def test_a_model_folder_is_measured_as_the_stage_that_made_it_measured_itself(self):
        for model, step in (("imitate", 0), ("reinforce", 3)):
            line, values, _ = self.evaluate(RECIPE, "--model", self.run_directory / "models" / model, "--stage",
                                            "reinforce", "--model.policy.reduction", "2,4")
            self.assertEqual(values, self.evaluation("reinforce", step))
        self.assertEqual(line["digest/weights"], self.digests("reinforce", 3)[0])

    def test_every_layout_says_the_same(self):
        plain = self.evaluate(self.run_directory)[2]
        for words, ranks in (((), 3), (("--device.threads", 2, "--device.isa", "avx2"), 1),
                             (("--generation.slots", 3, "--device.kind", "checked"), 2)):
            self.assertEqual(self.evaluate(self.run_directory, *words, ranks=ranks)[2], plain)

    def test_samples_and_problems_go_over_the_stage_and_the_line_goes_to_a_file(self):
        output = self.folder / "line.jsonl"
        line, values, text = self.evaluate(self.run_directory, "--samples", 3, "--problems", 2, "--output", output)
        self.assertEqual((line["problems"], line["samples"]), (2, 3))
        self.assertIn("eval/pass@3", values)
        self.assertLess(values["eval/cons@3/ci95_low"], values["eval/cons@3/ci95_high"])
        self.assertRegex(text, r"\n  cons@3 +\S+  \(95 %: \S+ to \S+\)\n")
        self.assertNotIn("\n  cons@3/ci95", text)
        self.assertEqual(output.read_text(), text.splitlines()[-1] + "\n")

    def test_a_recipe_stands_for_the_run_that_it_makes(self):
        line, values, _ = self.evaluate(RECIPE, "--run.directory", self.run_directory, "--model.policy.reduction", "2,4")
        self.assertEqual(values, self.evaluation("measure", 1))
        self.assertIn("step_00000007", line["model"])

    def test_the_last_evaluate_stage_says_how_else_the_last_stage(self):
        text = RECIPE.read_text()
        recipe = self.folder / "stages.ini"
        for stages, chosen in (("measure, imitate, reinforce", "measure"), ("measure, reinforce, imitate", "measure"),
                               ("imitate, reinforce", "reinforce"), ("reinforce, imitate", "imitate")):
            with self.subTest(stages):
                some = text.replace("imitate, reinforce, measure", stages)
                recipe.write_text(some if "measure" in stages else some[:some.index("[stage.measure]")])
                line, _, _ = self.evaluate(recipe, "--model", self.run_directory, "--problems", 1)
                self.assertEqual(line["stage"], chosen)

    def test_without_a_run_the_recipes_own_model_is_measured(self):
        line, _, _ = self.evaluate(RECIPE, "--run.directory", self.folder / "none", "--model.policy.folder",
                                   self.run_directory / "models/imitate")
        self.assertEqual(line["digest/weights"], self.digests("imitate", 3)[0])

    def test_nothing_in_a_run_changes(self):
        copy, _ = self.damaged_run()
        before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
        self.evaluate(copy)
        self.assertEqual({path: path.stat().st_mtime_ns for path in copy.rglob("*")}, before)

    def test_all_that_is_wrong_is_said_once_and_at_once(self):
        result = run("eval", self.run_directory, "--stage", "nope", "--samples", 0, "--run.sed", 4, ranks=2)
        self.assert_refused(result, 2, "3 problems", "did you mean seed?", "--stage: expected one of imitate, reinforce",
                            "--samples: expected a whole number of at least 1")
        self.assertEqual(result.stderr.count("--stage: expected"), 1)

    def test_a_model_that_is_missing_or_no_model_is_bad_input(self):
        nothing = self.folder / "nothing"
        nothing.mkdir()
        for model, said in ((self.folder / "no", "there is no such model"), (RECIPE, "is a file; give a model folder"),
                            (nothing, "is neither a model folder (config.json), a checkpoint")):
            self.assert_refused(run("eval", RECIPE, "--model", model), 2, str(model), said)
        self.assert_refused(run("eval", RECIPE, "--run.directory", self.folder / "none"), 2, "give --model")
        self.assert_refused(run("eval", self.folder / "none.ini"), 2, "cannot read this recipe")
        (nothing / "checkpoints").mkdir()
        self.assert_refused(run("eval", RECIPE, "--model", nothing), 2, "there is no checkpoint yet")

    def test_a_task_without_held_out_problems_cannot_be_measured(self):
        recipe, data = self.folder / "lines.ini", self.folder / "train.jsonl"
        data.write_text(json.dumps({"prompt": "1,2->3", "completion": "1+2"}) + "\n")
        recipe.write_text(f"[run]\nstages = a\n[task]\nkind = json_lines\ndemonstrations = {data}\n"
                          "[stage.a]\nkind = sft\nsteps = 1\n")
        result = run("eval", recipe, "--model", self.run_directory)
        self.assert_refused(result, 2, "no held-out problems")

    def test_a_damaged_checkpoint_ends_with_4_and_one_that_is_cut_short_is_passed_by(self):
        copy, steps = self.damaged_run()
        shard = steps[-1] / "shard_00000.h5"
        whole = shard.read_bytes()
        self.flip(shard, len(whole) // 2)
        self.assert_refused(run("eval", copy), 4, "shard_00000.h5", "the newest whole checkpoint before it is step 6")
        shard.write_bytes(whole[:-100])
        result = run("eval", copy)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("passed by: ", result.stderr)
        self.assertIn("step_00000006", result.stdout)
        for step in steps:
            (step / "manifest.h5").unlink()
        self.assert_refused(run("eval", copy), 4, "no checkpoint is whole")

    def test_a_model_of_another_vocabulary_is_refused(self):
        folder = self.folder / "other"
        shutil.copytree(self.run_directory / "models/measure", folder)
        text = (folder / "tokenizer.json").read_text()
        self.assertIn('"+"', text)
        (folder / "tokenizer.json").write_text(text.replace('"+"', '"plus"'))
        self.assert_refused(run("eval", RECIPE, "--model", folder), 2, "speak different vocabularies", "'plus'")


class Export(Models):
    def export(self, *words, **how):
        target = self.folder / "model"
        result = run("export", *words[:1], target, *words[1:], **how)
        self.assertEqual(result.returncode, 0, result.stderr)
        return target

    def test_float32_is_the_folder_that_the_run_wrote_to_the_byte(self):
        target = self.export(self.run_directory)
        ours = self.run_directory / "models/measure"
        self.assertEqual(sorted(path.name for path in target.iterdir()), sorted(path.name for path in ours.iterdir()))
        for path in ours.iterdir():
            self.assertEqual(digest((target / path.name).read_bytes()), digest(path.read_bytes()), path.name)
        self.assertEqual(json.loads((target / "config.json").read_text())["rankwise_reduction"], [2, 4])

    def test_a_checkpoint_of_many_ranks_is_the_same_model(self):
        many = self.folder / "many"
        made = run("train", RECIPE, "--run.directory", many, "--model.policy.reduction", "2,4", ranks=3)
        self.assertEqual(made.returncode, 0, made.stderr)
        self.assertEqual(len(list((many / "checkpoints/step_00000007").glob("shard_*"))), 3)
        self.assertEqual(tensors(self.export(many)), tensors(self.run_directory / "models/measure"))

    def test_an_exported_model_answers_as_its_checkpoint_does(self):
        target = self.export(self.run_directory, "--max-shard-gb", "0.0002")
        self.assertGreater(len(list(target.glob("*.safetensors"))), 1)
        asked = ("--prompt", "7,3,2->12", "--samples", 3, "--max-tokens", 40, "--json")
        answers = [run("generate", model, *asked) for model in (self.run_directory, target)]
        self.assertEqual(answers[0].returncode, 0, answers[0].stderr)
        self.assertEqual(answers[0].stdout.count("\n"), 3)
        self.assertEqual(answers[1].stdout, answers[0].stdout)
        line, values, _ = self.evaluate(self.measuring, "--model", target)
        self.assertEqual(values, self.evaluation("measure", 1))
        self.assertEqual((line["digest/weights"], line["digest/rollouts"]), self.digests("measure", 1))

    def test_no_file_is_larger_than_asked_for_and_the_index_knows_all(self):
        target = self.export(self.run_directory, "--max-shard-gb", "0.00015")
        index = json.loads((target / "model.safetensors.index.json").read_text())
        files = sorted(target.glob("*.safetensors"))
        self.assertGreater(len(files), 2)
        for file in files:
            self.assertLessEqual(sum(entry[2][0] for entry in tensors(file).values()), 150000)
            for name in tensors(file):
                self.assertEqual(index["weight_map"][name], file.name)
        self.assertEqual(tensors(target), tensors(self.run_directory / "models/measure"))

    def test_bfloat16_rounds_to_nearest_and_says_so_in_the_configuration(self):
        target = self.export(self.run_directory, "--dtype", "bfloat16")
        written = tensors(target)
        self.assertEqual(json.loads((target / "config.json").read_text())["torch_dtype"], "bfloat16")
        for name, (dtype, shape, data) in raw_tensors(self.run_directory / "models/measure").items():
            bits = struct.unpack(f"<{len(data) // 4}I", data)
            rounded = [(b + 0x7FFF + (b >> 16 & 1)) >> 16 for b in bits]
            self.assertEqual(written[name], ("BF16", shape, digest(struct.pack(f"<{len(bits)}H", *rounded))), name)

    def test_a_public_model_goes_through_unchanged(self):
        model = DATA / "models/stories260K"
        if not model.is_dir():
            self.skipTest(f"{model} is not there")
        target = self.export(model)
        self.assertEqual(tensors(target), tensors(model))
        for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
            self.assertEqual(digest((target / name).read_bytes()), digest((model / name).read_bytes()), name)
        shutil.rmtree(target)
        self.assertEqual(tensors(self.export(model, "--dtype", "bfloat16")), tensors(DATA / "models/stories260K-sharded-bf16"))

    def test_a_folder_that_holds_something_is_left_alone(self):
        target = self.export(self.run_directory)
        before = tensors(target)
        result = run("export", self.run_directory / "models/imitate", target, "--dtype", "int8", "--max-shard-gb", "x")
        self.assert_refused(result, 2, "is there already", "--dtype: expected one of float32, bfloat16, found 'int8'",
                            "--max-shard-gb: expected a number")
        self.assertEqual(tensors(target), before)

    def test_an_export_that_fails_leaves_nothing(self):
        copy, steps = self.damaged_run()
        shard = steps[-1] / "shard_00000.h5"
        self.flip(shard, shard.stat().st_size // 2)
        self.assert_refused(run("export", copy, self.folder / "model"), 4, "shard_00000.h5")
        self.assertEqual([path.name for path in self.folder.iterdir()], ["run"])
        (self.folder / "file").write_text("")
        self.assert_refused(run("export", self.run_directory, self.folder / "file/model"), 6, "file/model")
        self.assert_refused(run("export", self.folder / "none", self.folder / "model"), 2, "there is no such model")


class StartFrom(Models):
    def measured(self, *words, code=0, **how):
        directory = self.folder / "measured"
        shutil.rmtree(directory, ignore_errors=True)
        result = run("train", self.measuring, "--run.directory", directory, "--model.policy.reduction", "2,4", *words, **how)
        self.assertEqual(result.returncode, code, result.stdout + result.stderr)
        if code != 0:
            return result.stderr
        line = json.loads((directory / "metrics.jsonl").read_text().splitlines()[0])
        return line["digest/weights"], line["digest/rollouts"]

    def test_checkpoint_run_and_folder_are_the_same_weights(self):
        expected = self.digests("measure", 1)
        for model in (self.run_directory, self.run_directory / "checkpoints",
                      self.run_directory / "checkpoints/step_00000007", self.run_directory / "models/measure"):
            with self.subTest(model):
                self.assertEqual(self.measured("--stage.measure.start_from", model), expected)
                self.assertEqual(self.measured("--model.policy.folder", model), expected)
        self.assertEqual(self.measured("--stage.measure.start_from", self.run_directory, ranks=3), expected)

    def test_weights_of_another_model_are_refused_with_what_differs(self):
        said = self.measured("--stage.measure.start_from", self.run_directory, "--model.policy.rope_theta", 500,
                             "--model.policy.num_hidden_layers", 4, code=2)
        self.assertIn("num_hidden_layers is 8 and 4; rope_theta is 10000.0 and 500.0", said)

    def test_a_start_that_is_missing_or_not_whole_says_so(self):
        self.assertIn("there is no such model", self.measured("--stage.measure.start_from", "nowhere", code=2))
        copy, steps = self.damaged_run()
        (steps[-1] / "manifest.h5").unlink()
        self.assertIn("never finished", self.measured("--stage.measure.start_from", steps[-1], code=4))
        self.assertIn("never finished", self.measured("--model.policy.folder", steps[-1], code=4))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
