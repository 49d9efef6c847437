"""Data files with mistakes: file and line are named, before anything is computed."""
import json
import pathlib
import shutil
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
import program

GOOD = [{"prompt": f"{a},3,5->{a + 15}", "completion": f"{a}+3*5"} for a in range(2, 9)]


class Data(program.Case):
    @classmethod
    def setUpClass(cls):
        cls.model = program.shared_model()

    def file(self, rows, name="data.jsonl"):
        path = self.folder / name
        path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
        return path

    def options(self, train, evaluation=None, demonstrations=None):
        return ["--task.kind", "json_lines", "--model.policy.folder", self.model, "--task.train", train,
                "--task.evaluation", evaluation or train, "--task.demonstrations", demonstrations or train,
                "--stage.reinforce.reward_funcs", "soft_overlong(max_length=24 cache=20)",
                "--stage.measure.reward_funcs", "soft_overlong(max_length=24 cache=20)",
                "--stage.imitate.reward_funcs", "soft_overlong(max_length=24 cache=20)"]

    def assert_data_refused(self, rows, *words, more=(), which="train"):
        good = self.file(GOOD, "good.jsonl")
        files = {"train": good, "evaluation": good, "demonstrations": good}
        files[which] = self.file(rows) if rows is not None else self.folder / "data.jsonl"
        result = self.train(*self.options(**files), *more, ranks=2)
        message = self.assert_refused(result, 2, str(files[which]), *words)
        self.assertFalse((self.run_directory / "metrics.jsonl").exists(), "a stage has run")
        return message

    def test_good_data_is_taken(self):
        self.done(*self.options(self.file(GOOD)), ranks=2)

    def test_a_file_that_is_not_there(self):
        self.assert_data_refused(None, "there is no such file")

    def test_an_empty_file(self):
        self.assert_data_refused([], "is empty")

    def test_a_line_that_is_no_json_is_named(self):
        self.assert_data_refused([*GOOD[:2], '{"prompt": "2,3', *GOOD[3:]], ":3", )

    def test_a_line_that_is_no_object_is_named(self):
        self.assert_data_refused([*GOOD[:2], "[1, 2]"], ":3")

    def test_a_line_without_a_prompt_is_named(self):
        self.assert_data_refused([GOOD[0], {"question": "2"}], ":2", "prompt")

    def test_a_demonstration_without_response_is_named(self):
        self.assert_data_refused([GOOD[0], {"prompt": "2,3,5->10"}], ":2", "completion", which="demonstrations")

    def test_a_line_that_is_too_long_is_named(self):
        self.assert_data_refused([GOOD[0], {"prompt": "1" * 5000, "completion": "2"}], ":2", "bytes", "4000",
                                 more=["--task.max_characters", 4000])

    def test_a_prompt_that_is_longer_than_the_context_is_named(self):
        for which in ("train", "evaluation"):
            with self.subTest(which):
                shutil.rmtree(self.run_directory, ignore_errors=True)
                self.assert_data_refused([GOOD[0], {"prompt": "1+" * 300, "completion": "2"}], ":2", "601", "256", which=which)

    def test_a_demonstration_that_is_longer_than_the_context_is_named(self):
        self.assert_data_refused([GOOD[0], {"prompt": "1,2,3->4", "completion": "1+" * 300}], ":2", "256", which="demonstrations")

    def test_of_many_rows_that_are_too_long_some_are_named_and_the_others_counted(self):
        path = self.file([{"prompt": "1+" * 300 + str(i), "completion": "2"} for i in range(2, 10)])
        good = self.file(GOOD, "good.jsonl")
        message = self.assert_refused(self.train(*self.options(path, good, good)), 2, f"{path}:1: ", f"{path}:5: ", "3 more rows")
        self.assertNotIn(f"{path}:6: ", message)

    def test_a_generated_example_that_is_longer_than_the_context_says_what_to_change(self):
        result = self.train("--model.policy.max_position_embeddings", 30, ranks=2)
        self.assert_refused(result, 2, "worked example", "the model's context is 30", "[task] teacher_max_tokens")

    def test_bytes_that_are_no_utf8_are_named(self):
        path = self.folder / "data.jsonl"
        path.write_bytes(b'{"prompt": "1,2,3->4", "completion": "2"}\n{"prompt": "\xff\xfe", "completion": "2"}\n')
        result = self.train(*self.options(self.file(GOOD, "good.jsonl"), demonstrations=path))
        self.assert_refused(result, 2, f"{path}:2")


if __name__ == "__main__":
    program.main(jobs=4)
