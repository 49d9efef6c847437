"""Numbers that are none, and rewards that teach nothing."""
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
import program

HUGE = 1.7e308


class Numbers(program.Case):
    def steps(self):
        return [row[:2] for row in self.digests()]

    def test_a_loss_that_is_no_number_ends_the_run_and_names_rank_and_example(self):
        result = self.train("--faults.nan_loss_at", 2, "--faults.throw_rank", 1, ranks=2)
        message = self.assert_refused(result, 5, "phase=update step=2]", "the loss of worked example", "is nan")
        self.assertRegex(message, r"^\[rank 1/2 ")
        self.assertEqual(self.steps(), [("imitate", 1)])
        self.assert_goes_on()

    def test_a_loss_that_is_no_number_in_grpo_names_prompt_and_sample(self):
        # The first stage is past that step when the run goes on from its checkpoint.
        self.assertEqual(self.train("--run.stop_after_steps", 4).code, 3)
        result = self.train("--faults.nan_loss_at", 2, "--faults.throw_rank", 1, ranks=2)
        message = self.assert_refused(result, 5, "phase=update step=2]", "the loss of prompt ", ", sample ", "is nan")
        self.assertRegex(message, r"^\[rank 1/2 ")
        self.assertEqual(self.steps()[-1], ("reinforce", 1))
        self.assert_goes_on()

    def test_a_learning_rate_that_ruins_the_weights_ends_the_run_with_all_ranks_agreed(self):
        result = self.train("--stage.imitate.learning_rate", 1e30, ranks=3)
        self.assert_refused(result, 5, "phase=update", "learning rate")

    def test_a_reward_that_is_not_finite_names_reward_prompt_and_sample(self):
        result = self.train("--stage.reinforce.reward_funcs", "soft_overlong(max_length=2 cache=1),repetition_penalty(ngram_size=1)",
                            "--stage.reinforce.reward_weights", f"{HUGE},{HUGE}", ranks=2)
        self.assert_refused(result, 5, "phase=score step=1]", "the reward of prompt ", ", sample ", "is -inf", "repetition_penalty")

    def test_groups_of_equal_rewards_teach_nothing_and_the_run_goes_on(self):
        self.done("--stage.reinforce.reward_funcs", "countdown", "--stage.reinforce.beta", 0, ranks=2)
        rows = [json.loads(line) for line in (self.run_directory / "metrics.jsonl").read_text().splitlines()]
        rows = [row for row in rows if row["stage"] == "reinforce" and "record" not in row]
        self.assertEqual([row["frac_reward_zero_std"] for row in rows], [1.0] * 3)
        self.assertEqual([row["grad_norm"] for row in rows], [0.0] * 3)
        self.assertEqual([row["loss"] for row in rows], [0.0] * 3)

    def test_equal_rewards_under_dynamic_sampling_end_with_what_to_do(self):
        result = self.train("--stage.reinforce.reward_funcs", "countdown", "--stage.reinforce.dynamic_sampling", "true",
                            "--stage.reinforce.max_sampling_rounds", 3, "--run.checkpoint_in_background", "false", ranks=2)
        self.assert_refused(result, 5, "phase=score step=1]", "after 3 rounds of 4 prompts only 0 groups", "dynamic_sampling")
        self.assertEqual(self.steps()[-1], ("imitate", 3), "what was learnt before is kept")
        self.assertTrue(self.checkpoint(3).is_dir())


if __name__ == "__main__":
    program.main(jobs=4)
