"""A recipe with mistakes: all of them are said at once, once, before anything is computed, and nothing is left behind."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
import program


class Recipe(program.Case):
    def recipe(self, *changes):
        """The small recipe with some of its text replaced: pairs of old and new."""
        text = program.SMALL.read_text()
        for old, new in changes:
            self.assertIn(old, text)
            text = text.replace(old, new, 1)
        path = self.folder / "mine.ini"
        path.write_text(text)
        return path

    def line_of(self, path, words):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if words in line:
                return number
        self.fail(f"no line has {words}")

    def assert_nothing_begun(self):
        self.assertFalse(self.run_directory.exists())

    def test_a_misspelt_key_is_named_with_its_line_and_the_key_that_was_meant(self):
        path = self.recipe(("learning_rate = 1e-3", "learning_rat = 1e-3"))
        self.assert_refused(self.train(recipe=path), 2, f"{path}:{self.line_of(path, 'learning_rat ')}",
                            "learning_rat", "did you mean learning_rate?")
        self.assert_nothing_begun()

    def test_a_misspelt_key_on_the_command_line_is_one_too(self):
        self.assert_refused(self.train("--run.sead", "3"), 2, "command line", "[run] has no key sead", "did you mean seed?")
        self.assert_nothing_begun()

    def test_the_loss_of_a_module_that_the_model_does_not_have_is_refused(self):
        self.assert_refused(self.train("--stage.imitate.mtp_loss_weight", "0.3"), 2, "[stage.imitate] mtp_loss_weight",
                            "[model.policy] has 0 modules", "num_nextn_predict_layers", "exactly one can be trained")
        self.assertFalse((self.run_directory / "metrics.jsonl").exists(), "a stage has run")
        self.assert_refused(self.train("--stage.imitate.mtp_loss_weight", "-1"), 2, "mtp_loss_weight", "-1")

    def test_an_unknown_section_is_named(self):
        path = self.recipe(("[task]", "[tusk]"))
        self.assert_refused(self.train(recipe=path), 2, f"{path}:{self.line_of(path, '[tusk]')}", "tusk", "did you mean task?")

    def test_a_value_of_another_type_is_named_with_what_was_expected(self):
        path = self.recipe(("steps = 3", "steps = many"))
        self.assert_refused(self.train(recipe=path), 2, f"{path}:{self.line_of(path, 'steps = many')}", "steps", "many")

    def test_a_value_out_of_range_is_named_with_the_range(self):
        path = self.recipe(("num_generations = 4", "num_generations = 1"))
        self.assert_refused(self.train(recipe=path), 2, "num_generations", "1", "2")

    def test_a_word_that_is_none_of_the_choices_lists_them(self):
        path = self.recipe(("display = lines", "display = line"))
        self.assert_refused(self.train(recipe=path), 2, "display", "auto", "live", "lines", "off")

    def test_all_mistakes_are_said_at_once_and_once_on_three_ranks(self):
        path = self.recipe(("learning_rate = 1e-3", "learning_rat = 1e-3"), ("steps = 3", "steps = many"),
                           ("num_generations = 4", "num_generations = 1"), ("kind = evaluate", "kind = evaluat"))
        result = self.train(recipe=path, ranks=3)
        message = self.assert_refused(result, 2, "4 problems", "learning_rat", "many", "num_generations", "evaluat")
        self.assertNotIn("(rank", message, "problems that all ranks have are no rank's")
        self.assertEqual(result.err.count("did you mean learning_rate?"), 1)
        self.assert_nothing_begun()

    def test_experts_that_there_are_not_cannot_be_shared_out(self):
        result = self.train("--parallel.expert", 2, ranks=2)
        self.assert_refused(result, 2, "[parallel] expert = 2", "the 0 experts of [model.policy]", "over 1 ranks")

    def test_an_expert_degree_that_cuts_a_chunks_ranks_lists_those_that_do_not(self):
        experts = ["--model.policy.family", "deepseek_v3", "--model.policy.num_attention_heads", 4,
                   "--model.policy.n_routed_experts", 8, "--model.policy.moe_intermediate_size", 8]
        result = self.train(*experts, "--parallel.tensor", 2, "--parallel.expert", 3, ranks=6)
        self.assert_refused(result, 2, "[parallel] expert = 3", "the 8 experts of [model.policy]", "over 1, 2, 6 ranks",
                            "tensor = 2 and data = 3")

    def test_a_stage_without_section_is_named(self):
        path = self.recipe(("stages = imitate, reinforce, measure", "stages = imitate, reinforce, measured"))
        self.assert_refused(self.train(recipe=path), 2, "[stage.measured] is missing", "nothing uses section [stage.measure]")

    def test_a_recipe_that_is_not_there_is_named(self):
        self.assert_refused(self.train(recipe=self.folder / "no.ini"), 2, self.folder / "no.ini")

    def test_stages_that_do_not_fit_the_task_are_refused_before_the_first_computes(self):
        """The last stage of three lacks its data: two stages of work would be for nothing."""
        model = program.shared_model()
        data = self.folder / "train.jsonl"
        data.write_text('{"prompt": "2,3,5->10", "completion": "2"}\n')
        options = ["--task.kind", "json_lines", "--model.policy.folder", model, "--task.demonstrations", data, "--task.train", data]
        result = self.train(*options, "--stage.reinforce.eval_steps", 0, ranks=2)
        self.assert_refused(result, 2, "measure", "[task] evaluation")
        self.assertFalse((self.run_directory / "metrics.jsonl").exists(), "a stage has run")

    def test_a_stage_that_starts_from_another_model_is_refused_before_the_first_computes(self):
        model = program.shared_model()
        result = self.train("--stage.reinforce.start_from", model, "--model.policy.hidden_size", 32, ranks=2)
        self.assert_refused(result, 2, "reinforce", str(model), "hidden_size")
        self.assertFalse((self.run_directory / "metrics.jsonl").exists(), "a stage has run")

    def test_numbers_that_do_not_fit_each_other_are_refused_before_the_first_stage(self):
        result = self.train("--stage.reinforce.num_minibatches", 3, ranks=2)
        self.assert_refused(result, 2, "reinforce", "num_minibatches 3", "num_prompts_per_step 4")
        self.assertFalse((self.run_directory / "metrics.jsonl").exists(), "a stage has run")

    def test_a_reward_that_is_unknown_names_the_nearest_before_the_first_stage(self):
        result = self.train("--stage.reinforce.reward_funcs", "countdwn")
        self.assert_refused(result, 2, "reinforce", "countdwn", "countdown")
        self.assertFalse((self.run_directory / "metrics.jsonl").exists(), "a stage has run")

    def test_more_ranks_on_an_axis_than_there_are_is_refused_once(self):
        self.assert_refused(self.train("--parallel.data", 3, ranks=2), 2, "data", "3", "2")

    def test_tensor_ranks_that_cannot_give_the_bits_of_one_are_refused_with_those_that_can(self):
        # 6 heads, 3 KV heads: the list 3, 2.
        six = ["--model.policy.num_attention_heads", 6, "--model.policy.num_key_value_heads", 3,
               "--model.policy.hidden_size", 48]
        self.assert_refused(self.train("--parallel.tensor", 2, *six, ranks=2), 2,
                            "[parallel] tensor = 2", "[model.policy] has 6 heads, 3 KV heads", "list 3, 2", "over 1, 3, 6 ranks")

    def test_tensor_ranks_that_do_not_divide_the_ranks_are_refused_with_what_fits(self):
        message = self.assert_refused(self.train("--parallel.tensor", 2, ranks=3), 2, "1 x 1 x 2 = 2 ranks, but 3 were started", "3 x 1 x 1", "1 x 1 x 3")
        self.assertNotIn("(rank", message)

    def test_more_pipeline_ranks_than_layers_are_refused_with_how_many_fit(self):
        self.assert_refused(self.train("--parallel.pipeline", 3, ranks=3), 2,
                            "[parallel] pipeline = 3", "[model.policy] has 2 layers", "at most 2 pipeline ranks")

    def test_interleaved_pipeline_ranks_need_two_layers_each(self):
        self.assert_refused(self.train("--parallel.pipeline", 2, "--parallel.schedule", "interleaved", ranks=2), 2,
                            "schedule interleaved (2 on each rank at least)", "at most 1 pipeline rank")

    def test_ranks_that_divide_themselves_otherwise_are_named(self):
        for axis in ("pipeline", "expert"):
            with self.subTest(axis):
                command = [*program.launcher(2)[:1], "1", *self.command(f"--parallel.{axis}", 2), ":", "-n", "1",
                           *self.command(f"--parallel.{axis}", 1)]
                self.assert_refused(self.execute(command), 2, "division of the ranks is not the same on all ranks",
                                    f"parallel.{axis}")

    def test_ranks_with_other_recipes_are_named(self):
        command = [*self.command(ranks=2), ":", "-n", "1", *self.command("--run.seed", 7)]
        self.assert_refused(self.execute(command), 2, "the recipe is not the same on all ranks: rank 2 of 3 differ",
                            "run.seed")

    def test_a_physical_difference_between_ranks_is_none(self):
        command = [*program.launcher(2)[:1], "1", *self.command("--device.threads", 2), ":", "-n", "1", *self.command("--device.threads", 1)]
        self.assertEqual(self.execute(command).code, 0)


if __name__ == "__main__":
    program.main(jobs=4)
