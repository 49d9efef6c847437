"""Memory is known before a run begins: what is said, what is refused, and that a run keeps to it."""
import json
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
import program

CONFIGS = program.SOURCE / "configs"


class Memory(program.Case):
    def plan(self, *words):
        return self.execute([str(program.PROGRAM), "plan", *map(str, words)])

    def assert_at_most(self, megabytes, plan):
        """What the program itself takes differs a little from process to process."""
        said = re.search(r"memory: at most (\d+) MB a rank", plan)
        self.assertIsNotNone(said, plan)
        self.assertAlmostEqual(int(said[1]), megabytes, delta=1)

    def test_a_plan_names_every_stage_and_the_largest(self):
        result = self.plan(CONFIGS / "r1_countdown.ini", "--ranks", 4)
        self.assertEqual(result.code, 0, result)
        memory, _, traffic = result.out.partition("MB that a rank sends")
        rows = [line.split() for line in memory.splitlines() if line.startswith("  ")]
        self.assertEqual([row[0] for row in rows[1:]],
                         "base zero cold_answers cold reasoning answers tuned final small_base distilled small_zero".split())
        largest = max(rows[1:], key=lambda row: float(row[-1]))
        self.assertIn(f"in stage {largest[0]} ", result.out.splitlines()[-1])
        sent = {tuple(line.split()[:3]): float(line.split()[3]) for line in traffic.splitlines() if line.startswith("  ")
                and not line.split()[0] == "stage"}
        # Gradients of every wave, and weights once, of 3/4 of 804,224 parameters; the rest are rows of the embedding.
        self.assertGreater(sent["zero", "update", "data"], 2 * 0.75 * 4 * 0.80)
        self.assertAlmostEqual(sent["zero", "optimizer", "data"], 0.75 * 4 * 0.804224, delta=0.02)

    def test_more_ranks_and_recomputed_layers_need_less(self):
        def megabytes(*words):
            out = self.plan(CONFIGS / "countdown.ini", *words).out
            return float([line for line in out.splitlines() if line.startswith("  grpo")][0].split()[-1])
        few = megabytes("--ranks", 1)
        self.assertLess(megabytes("--ranks", 8), few)
        self.assertLess(megabytes("--ranks", 1, "--update.recompute", "layer"), few)

    def test_as_few_layers_are_computed_again_as_make_a_rank_fit(self):
        recipe = CONFIGS / "matrix.ini"
        activations = ["--stage.reinforce.chunk_tokens", 3000, "--generation.slots", 4]  # most of what a rank takes
        def planned(*words):
            lines = self.plan(recipe, *activations, *words).out.splitlines()
            most = next(float(line.split()[3]) for line in lines if line.startswith("memory: at most"))
            said = [line.split()[-1] for line in lines if line.startswith("recompute = fit")]
            return (most, *said)
        none, = planned()
        every, = planned("--update.recompute", "layer")
        self.assertLess(every, none)
        # Megabytes of one process: those of another may be rounded otherwise.
        there_is_enough, layers = planned("--update.recompute", "fit")
        self.assertAlmostEqual(there_is_enough, none, delta=1)
        self.assertEqual(layers, "-")
        between = (none + every) / 2
        least, layers = planned("--update.recompute", "fit", "--memory-gb", between / 1000)
        self.assertLessEqual(least, between)
        self.assertIn(int(layers), range(1, 8))
        self.assertAlmostEqual(planned("--update.recompute", "layer", "--update.recompute_layers", layers)[0], least, delta=1)
        self.assertGreater(planned("--update.recompute", "layer", "--update.recompute_layers", int(layers) - 1)[0], between,
                           "one layer less would not do")
        # A run chooses as the plan does, keeps to it, and computes the same.
        directories = [self.folder / name for name in ("kept", "fitted")]
        limits = [[], ["--update.recompute", "fit", "--run.memory_gb", between / 1000]]
        for directory, limit in zip(directories, limits):
            self.done(*activations, *limit, recipe=recipe, directory=directory, ranks=2)
        self.assertEqual(*map(self.digests, directories))
        chosen = next(line for line in self.log(directories[1]) if "the backward pass computes" in line)
        self.assertIn(int(chosen.split("activations of ")[1].split()[0]), range(1, 9))
        for line in (directories[1] / "memory.jsonl").read_text().splitlines():
            self.assertLessEqual(json.loads(line)["memory/planned_bytes"], between * 1e6)

    def test_of_the_layouts_that_fit_the_one_that_splits_least_is_proposed(self):
        recipe = CONFIGS / "matrix.ini"
        def layouts(gigabytes):
            lines = self.plan(recipe, "--ranks", 8, "--memory-gb", gigabytes).out.splitlines()
            begin = next(i for i, line in enumerate(lines) if line.startswith("layouts"))
            return [line.split() for line in lines[begin + 2:-1]], lines[-1]
        rows, proposed = layouts(1)
        self.assertEqual(proposed, "proposed: [parallel] pipeline = 1, tensor = 1, zero = 1")
        self.assertTrue(all(row[0] == "*" for row in rows))
        shapes = {tuple(row[1:5]) for row in rows}
        self.assertEqual(len(shapes), len(rows))
        for shape in (("8", "1", "1", "3"), ("2", "2", "2", "1"), ("1", "8", "1", "1"), ("1", "1", "8", "1")):
            self.assertIn(shape, shapes)
        # What is listed is what the plan of that layout says.
        whole = self.plan(recipe, "--ranks", 8, "--parallel.pipeline", 2, "--parallel.zero", 3).out
        listed = next(row for row in rows if row[1:5] == ["4", "2", "1", "3"])
        self.assert_at_most(int(listed[7]), whole)
        # Less memory: more is split; too little: it says what the least is.
        least = min(int(row[7]) for row in rows)
        _, proposed = layouts(1.05 * least / 1000)
        self.assertNotIn("pipeline = 1, tensor = 1", proposed)
        self.assertIn("none fits: the smallest takes", layouts(0.001)[1])

    def test_where_a_model_has_experts_ranks_that_share_them_out_are_among_the_layouts(self):
        recipe = [CONFIGS / "tiny_moe.ini", "--ranks", 4, "--model.policy.moe_intermediate_size", 512]
        def layouts(gigabytes):
            lines = self.plan(*recipe, "--memory-gb", gigabytes).out.splitlines()
            begin = next(i for i, line in enumerate(lines) if line.startswith("layouts"))
            rows = [line.lstrip("* ").split() for line in lines[begin + 2:-1]]
            return {tuple(row[:5]): int(row[6]) for row in rows}, lines[-1]
        rows, proposed = layouts(1)
        self.assertEqual(proposed, "proposed: [parallel] pipeline = 1, tensor = 1, zero = 1")
        for shape in (("4", "1", "1", "1", "1"), ("4", "1", "1", "1", "4"), ("2", "1", "2", "3", "2"), ("2", "2", "1", "1", "2")):
            self.assertIn(shape, rows)
        whole = self.plan(*recipe, "--parallel.expert", 4).out
        self.assert_at_most(rows["4", "1", "1", "1", "4"], whole)
        plain, shared = rows["4", "1", "1", "1", "1"], rows["4", "1", "1", "1", "4"]
        self.assertLess(shared, plain - 10)
        self.assertIn("pipeline = 1, tensor = 1, zero = 1, expert = ", layouts((plain + shared) / 2000)[1])

    def test_a_recipe_that_needs_more_than_there_is_is_refused_with_the_table(self):
        result = self.train("--generation.slots", 4_000_000, "--stage.reinforce.num_generations", 2048,
                            "--stage.reinforce.max_completion_length", 1_000_000,
                            "--model.policy.max_position_embeddings", 1_000_100, ranks=2)
        message = self.assert_refused(result, 6, "MB for the 2 ranks of this node", "but they may take", "KV cache", "memory_check")
        self.assertIn("stage", message)
        self.assertFalse((self.run_directory / "metrics.jsonl").exists())

    def test_a_mistake_in_the_recipe_is_told_by_plan_too(self):
        result = self.plan(program.SMALL, "--generation.slotz", 3)
        self.assertEqual(result.code, 2, result)
        self.assertIn("slots", result.err)

    def test_a_run_keeps_to_its_plan_within_a_tenth(self):
        for recipe in ("matrix.ini", "matrix_chain.ini"):
            with self.subTest(recipe):
                directory = self.folder / recipe
                self.done(ranks=2, recipe=CONFIGS / recipe, directory=directory)
                lines = [json.loads(line) for line in (directory / "memory.jsonl").read_text().splitlines()]
                self.assertGreater(len(lines), 2)
                for line in lines:
                    self.assertLessEqual(line["memory/peak_bytes"], 1.1 * line["memory/planned_bytes"], line)
                first = [line for line in self.log(directory) if "MB a rank at most" in line]
                self.assertEqual(len(first), 1, "the table stands in the log")

    def test_what_ranks_send_is_counted_beside_the_plan_which_it_keeps_to(self):
        for settings, axes in ((("--parallel.tensor", 2, "--parallel.pipeline", 2), {"tensor", "pipeline"}),
                               (("--parallel.zero", 3), {"data"})):
            with self.subTest(settings):
                directory = self.folder / settings[0]
                self.done(*settings, ranks=4, recipe=CONFIGS / "matrix.ini", directory=directory)
                lines = [json.loads(line) for line in (directory / "memory.jsonl").read_text().splitlines()]
                kinds = {stage["stage"]: {key.split("/", 2)[2]: (stage[key], stage[key.replace("planned", "sent")])
                                          for key in stage if key.startswith("traffic/planned_bytes")} for stage in lines}
                for axis in axes:
                    self.assertIn(f"update/{axis}", kinds["imitate"])
                    self.assertIn(f"generate/{axis}", kinds["reinforce"])
                    self.assertIn(f"reference/{axis}", kinds["reinforce"])
                for stage, rows in kinds.items():
                    for name, (planned, sent) in rows.items():
                        if planned > 0:
                            self.assertLessEqual(sent, planned, (stage, name))
                            if name.startswith("update"):  # chunks are about as large as the largest
                                self.assertGreater(sent, 0.3 * planned, (stage, name))
                report = (directory / "report.html").read_text()
                self.assertIn("<h2>Sent</h2>", report)

    def test_the_plan_tells_kinds_of_memory_apart(self):
        table = self.plan(CONFIGS / "matrix.ini").out.splitlines()
        heading = next(line for line in table if "weights" in line)
        self.assertEqual(heading.split(), "stage kind weights reference gradients optimizer KV cache activations buffers "
                                          "saving in all".split())
        row = next(line for line in table if line.split()[:1] == ["reinforce"]).split()
        weights, reference, gradients, optimizer, cache, activations, buffers, saving, all_of_it = map(float, row[2:])
        self.assertAlmostEqual(optimizer, 2 * gradients, delta=0.2)
        self.assertGreater(weights, gradients)
        self.assertGreater(reference, gradients)
        self.assertGreater(activations, 0)
        again = self.plan(CONFIGS / "matrix.ini", "--update.recompute", "layer").out.splitlines()
        less = next(line for line in again if line.split()[:1] == ["reinforce"]).split()
        self.assertLess(float(less[7]), activations)
        self.assertAlmostEqual(float(less[3]) + float(less[4]), reference + gradients, delta=0.2)

    def log(self, directory):
        return (directory / "logs/rank_00000.log").read_text().splitlines()


if __name__ == "__main__":
    program.main()
