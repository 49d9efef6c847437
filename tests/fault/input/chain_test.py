"""Chains of stages: what does not hang together is refused before the first stage computes; a chain that is stopped after every step,
each time on another number of ranks, ends as one that nothing stopped."""
import json
import pathlib
import shutil
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
import program

CHAIN = program.SOURCE / "configs/matrix_chain.ini"


class Chain(program.Case):
    def train(self, *options, ranks=2, **where):
        return super().train(*options, ranks=ranks, recipe=CHAIN, **where)

    def assert_refused_at_start(self, result, *words):
        self.assert_refused(result, 2, *words)
        self.assertFalse((self.run_directory / "metrics.jsonl").exists(), "a stage has run")

    def test_a_source_that_does_not_exist_is_named(self):
        self.assert_refused_at_start(self.train("--stage.cold.start_from", "bsae"), "stage.cold", "bsae", "there is no such model")

    def test_a_source_that_runs_later_or_is_the_stage_itself_is_refused(self):
        self.assert_refused_at_start(self.train("--stage.base.start_from", "zero", "--stage.zero.start_from", "base"),
                                     "base", "\"zero\" runs after it")
        self.assert_refused_at_start(self.train("--stage.zero.start_from", "zero"), "zero", "the stage itself")

    def test_data_must_be_what_an_earlier_reject_stage_keeps_or_a_file(self):
        for data in ("answers", "zero", "nothing"):  # a later stage, one that keeps nothing, no stage
            with self.subTest(data):
                self.assert_refused_at_start(self.train("--stage.cold.data", data), "stage.cold", f"\"{data}\"", "(kept)")

    def test_a_model_of_other_sizes_is_refused(self):
        self.assert_refused_at_start(self.train("--stage.distilled.start_from", "cold"), "distilled", "hidden_size")

    def test_a_source_with_another_tokenizer_is_refused(self):
        base = self.folder / "first"
        self.assertEqual(self.train("--run.stop_after_steps", 4, directory=base).code, 3)
        model = self.folder / "model"
        shutil.copytree(base / "models/base", model)
        tokenizer = json.loads((model / "tokenizer.json").read_text())
        words = tokenizer["model"]["vocab"]
        words["41"], words["42"] = words["42"], words["41"]
        (model / "tokenizer.json").write_text(json.dumps(tokenizer))
        self.assert_refused_at_start(self.train("--stage.cold.start_from", model), "stage.cold", str(model), "token")

    def test_a_stage_with_nothing_to_learn_from_ends_with_5_and_names_prompts(self):
        result = self.train("--stage.kept.min_score", 7)
        message = self.assert_refused(result, 5, "stage kept", "none of 48 answers to 12 prompts", "->")
        self.assertIn("min_score", message)

    def test_a_changed_recipe_is_refused_in_the_middle_of_the_chain(self):
        self.assertEqual(self.train("--run.stop_after_steps", 7).code, 3)
        result = self.train("--stage.base.learning_rate", 0.5)
        self.assert_refused(result, 2, "stage.base.learning_rate")
        self.assert_refused(self.train("--stage.answers.num_generations", 5), 2, "stage.answers.num_generations")

    def test_stopped_after_every_step_on_changing_ranks_it_is_the_same_chain(self):
        whole = self.folder / "whole"
        self.assertEqual(self.train(ranks=3, directory=whole).code, 0)
        steps = len(program.digests_of(whole))
        for start in range(steps + 1):
            result = self.train("--run.stop_after_steps", 1, ranks=1 + start % 3)
            self.assertIn(result.code, (0, 3), result)
            if result.code == 0:
                break
        self.assertEqual(result.code, 0, result)
        self.assertEqual(program.digests_of(self.run_directory), program.digests_of(whole))
        for stage in ("kept", "answers"):
            rows = f"data/{stage}.jsonl"
            self.assertEqual((self.run_directory / rows).read_bytes(), (whole / rows).read_bytes())


if __name__ == "__main__":
    program.main(jobs=3)
