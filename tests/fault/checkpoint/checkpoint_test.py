"""Checkpoints that are damaged in every way, met by a restart: nothing damaged is used, what is whole is gone on from, and what
the program says to do works. A run that goes on ends with the bits of a run that was never stopped."""
import pathlib
import re
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
import program

LAST = 5  # steps of the run that is to go on; it has a checkpoint of each
NEWER_FORMAT = sys.argv.pop(3)


class Checkpoint(program.Case):
    @classmethod
    def setUpClass(cls):
        case = cls()
        case.folder = program.shared_folder()
        cls.expected = program.whole_run()
        cls.stopped = program.shared_folder() / "stopped"
        assert case.train("--run.stop_after_steps", LAST, ranks=2, directory=cls.stopped).code == 3

    def setUp(self):
        super().setUp()
        shutil.copytree(self.stopped, self.run_directory)

    def newest(self, name="shard_00000.h5", step=LAST):
        return self.checkpoint(step) / name

    def flip(self, path, share):
        """Changes one bit, at this share of the file's length."""
        raw = bytearray(path.read_bytes())
        raw[int(len(raw) * share)] ^= 0x10
        path.write_bytes(raw)

    def assert_goes_on(self, *options, from_step, ranks=1):
        result = self.done(*options, ranks=ranks)
        self.assertRegex(result.out, rf"going on from \S+/step_{from_step:08} ")
        self.assertEqual(self.digests(), self.expected)
        return result

    def assert_passed_by(self, *words, ranks=1):
        """The newest checkpoint is not whole: the run says so and goes on from the one before."""
        result = self.assert_goes_on(from_step=LAST - 1, ranks=ranks)
        for word in words:
            self.assertIn(str(word), result.out)
        log = (self.run_directory / "logs/rank_00000.log").read_text()
        self.assertIn("not used", log)

    def assert_refused_with_way_out(self, path, *words, ranks=1):
        """Code 4, the file, and a step that is whole; doing what is said leads to the bits of a run that was never stopped."""
        message = self.assert_refused(self.train(ranks=ranks), 4, path, *words)
        advice = re.search(r"resume with (--resume\.step=\d+)", message)
        self.assertIsNotNone(advice, message)
        self.assertEqual(advice[1], f"--resume.step={LAST - 1}")
        self.assert_goes_on(advice[1], from_step=LAST - 1, ranks=ranks)

    # ---- other layouts
    def reshard(self, source, folder, *options):
        return self.execute([str(program.PROGRAM), "reshard", str(source), str(folder), *map(str, options)])

    def test_written_anew_for_other_ranks_it_is_gone_on_from_to_the_same_bits(self):
        for ranks, *layout in ((1,), (3,), (4, "--tensor", 2, "--pipeline", 2), (4, "--pipeline", 2, "--data", 2, "--zero", 3)):
            with self.subTest(ranks=ranks, layout=layout):
                other = self.folder / f"other_{ranks}_{len(layout)}"
                shutil.copytree(self.run_directory, other)
                shutil.rmtree(other / "checkpoints")
                done = self.reshard(self.run_directory, other / "checkpoints", "--ranks", ranks, *layout)
                self.assertEqual(done.code, 0, done)
                shards = sorted(path.name for path in self.checkpoint(LAST, other).glob("shard_*.h5"))
                self.assertEqual(shards, [f"shard_{i:05}.h5" for i in range(ranks)])
                result = self.done(directory=other, ranks=2)
                self.assertRegex(result.out, rf"going on from \S+/step_{LAST:08} ")
                self.assertEqual(self.digests(other), self.expected)

    def test_a_module_that_predicts_further_goes_on_with_its_moments(self):
        recipe = program.SOURCE / "configs/matrix_mtp.ini"
        whole = self.folder / "whole"
        self.assertEqual(self.train(recipe=recipe, directory=whole).code, 0)
        for step in (1, 3):  # in the first step of each stage that trains it
            with self.subTest(step=step):
                stopped = self.folder / f"stopped_{step}"
                result = self.train("--run.stop_after_steps", step, recipe=recipe, ranks=2, directory=stopped)
                self.assertEqual(result.code, 3, result)
                other = self.folder / f"other_{step}"
                shutil.copytree(stopped, other)
                shutil.rmtree(other / "checkpoints")
                done = self.reshard(stopped, other / "checkpoints", "--ranks", 4, "--tensor", 2)
                self.assertEqual(done.code, 0, done)
                for run in (stopped, other):
                    self.assertEqual(self.train(recipe=recipe, ranks=3, directory=run).code, 0)
                    self.assertEqual(self.digests(run), self.digests(whole))

    def test_experts_and_layers_dealt_anew_go_on_to_the_same_bits(self):
        recipe = program.SOURCE / "configs/tiny_moe.ini"
        whole, stopped = self.folder / "whole", self.folder / "stopped"
        self.assertEqual(self.train(recipe=recipe, directory=whole).code, 0)
        result = self.train("--run.stop_after_steps", 4, "--parallel.expert", 2, recipe=recipe, ranks=2, directory=stopped)
        self.assertEqual(result.code, 3, result)
        other = self.folder / "other"
        shutil.copytree(stopped, other)
        shutil.rmtree(other / "checkpoints")
        done = self.reshard(stopped, other / "checkpoints", "--ranks", 8, "--pipeline", 2, "--schedule", "interleaved",
                            "--tensor", 2, "--expert", 4)
        self.assertEqual(done.code, 0, done)
        shown = self.execute([str(program.PROGRAM), "inspect", str(self.checkpoint(4, other))])
        self.assertIn("data 2, expert 4, pipeline 2, tensor 2", shown.out)
        # Read again by three ranks that divide the model otherwise.
        result = self.train("--parallel.pipeline", 3, recipe=recipe, ranks=3, directory=other)
        self.assertEqual(result.code, 0, result)
        self.assertRegex(result.out, r"going on from \S+/step_00000004 ")
        self.assertEqual(self.digests(other), self.digests(whole))

    def test_what_cannot_be_written_anew_is_refused_and_leaves_nothing(self):
        new = self.folder / "new"
        for options, code, words in ((("--ranks", 3, "--tensor", 3), 2, ("--tensor = 3", "1, 2 ranks")),
                                     (("--ranks", 6, "--pipeline", 3, "--expert", 2), 2, ("at most 2 pipeline ranks", "over 1 ranks")),
                                     (("--ranks", 2, "--expert", 3), 2, ("expert = 3", "choose one of 1, 2")),
                                     (("--schedule", "2f2b"), 2, ("--schedule", "interleaved")),
                                     (("--zero", 2), 2, ("zero", "0, 1 or 3")),
                                     (("--ranks", 3, "--tensor", 2), 2, ("tensor",)),
                                     (("--ranks", 0), 2, ("--ranks",))):
            self.assert_refused(self.reshard(self.run_directory, new, *options), code, *words)
        self.assert_refused(self.reshard(self.run_directory, self.run_directory / "checkpoints"), 2, "is there already")
        self.flip(self.newest(), 0.5)
        self.assert_refused(self.reshard(self.checkpoint(LAST), new), 4, self.newest(), "checksum differs")
        self.assertFalse((new / f"step_{LAST:08}").exists())

    def test_damage_is_found_whatever_layout_wrote_the_checkpoint_and_reads_it(self):
        layouts = {"tensor x pipeline": (4, ["--parallel.tensor", 2, "--parallel.pipeline", 2]),
                   "zero = 3": (3, ["--parallel.zero", 3])}
        for name, (ranks, layout) in layouts.items():
            for damage in ("flipped", "missing", "cut short"):
                with self.subTest(name, damage=damage):
                    shutil.rmtree(self.run_directory)
                    result = self.train(*layout, "--run.stop_after_steps", LAST, ranks=ranks)
                    self.assertEqual(result.code, 3, result)
                    shard = self.newest(f"shard_{ranks - 1:05}.h5")
                    if damage == "flipped":
                        self.flip(shard, 0.5)
                        # Read by others than wrote it, one of which needs the part that is damaged.
                        self.assert_refused(self.train("--parallel.tensor", 2, ranks=2), 4, shard, "checksum differs")
                        self.assert_refused_with_way_out(shard, "checksum differs", ranks=2)
                    else:
                        shard.unlink() if damage == "missing" else shard.write_bytes(shard.read_bytes()[:1000])
                        self.assert_passed_by(shard, ranks=2)

    # ---- shards
    def test_undamaged_it_goes_on_from_the_newest(self):
        self.assert_goes_on(from_step=LAST)

    def test_a_shard_that_is_cut_short_is_passed_by(self):
        with open(self.newest(), "r+b") as file:
            file.truncate(1000)
        self.assert_passed_by(self.newest(), "bytes were written, 1000 are there")

    def test_a_shard_that_is_missing_is_passed_by(self):
        self.newest("shard_00001.h5").unlink()
        self.assert_passed_by(self.newest("shard_00001.h5"), "the file is missing", ranks=3)

    def test_a_flipped_bit_anywhere_in_a_shard_is_found_and_the_way_out_works(self):
        pristine = self.folder / "pristine"
        shutil.copytree(self.stopped, pristine)
        for share, shard, ranks in ((0.0, 0, 1), (0.3, 1, 2), (0.6, 0, 3), (0.999, 1, 1)):
            with self.subTest(share=share, shard=shard, ranks=ranks):
                shutil.rmtree(self.run_directory)
                shutil.copytree(pristine, self.run_directory)
                self.flip(self.newest(f"shard_{shard:05}.h5"), share)
                self.assert_refused_with_way_out(self.newest(f"shard_{shard:05}.h5"), "checksum differs", ranks=ranks)

    def test_a_shard_of_another_run_is_found(self):
        other = self.folder / "other"
        self.assertEqual(self.train("--run.seed", 2, "--run.stop_after_steps", LAST, ranks=2, directory=other).code, 3)
        shutil.copy(self.checkpoint(LAST, other) / "shard_00000.h5", self.newest())
        self.assert_refused_with_way_out(self.newest(), ranks=2)

    def test_a_shard_of_another_step_is_found(self):
        shutil.copy(self.newest(step=LAST - 1), self.newest())
        self.assert_refused_with_way_out(self.newest())

    # ---- manifests
    def test_a_manifest_that_is_damaged_is_passed_by(self):
        for name, damage in (("missing", lambda path: path.unlink()),
                             ("empty", lambda path: path.write_bytes(b"")),
                             ("cut short", lambda path: path.write_bytes(path.read_bytes()[:3000])),
                             ("flipped in its header", lambda path: self.flip(path, 0.002)),
                             ("flipped in its body", lambda path: self.flip(path, 0.5))):
            with self.subTest(name):
                shutil.rmtree(self.run_directory)
                shutil.copytree(self.stopped, self.run_directory)
                damage(self.newest("manifest.h5"))
                self.assert_passed_by(self.newest("manifest.h5"))

    def test_a_manifest_that_is_asked_for_and_damaged_is_refused_with_the_way_out(self):
        self.flip(self.newest("manifest.h5"), 0.5)
        message = self.assert_refused(self.train("--resume.step", LAST), 4, self.newest("manifest.h5"), "checksum differs")
        self.assertIn(f"--resume.step={LAST - 1}", message)

    def test_a_step_that_was_never_saved_is_refused_with_those_that_were(self):
        self.assert_refused(self.train("--resume.step", 40), 4, self.checkpoint(40), f"--resume.step={LAST}")

    def test_when_none_is_whole_it_says_so_and_starts_nothing(self):
        for step in range(1, LAST + 1):
            self.flip(self.newest("manifest.h5", step), 0.5)
        before = (self.run_directory / "metrics.jsonl").read_text()
        self.assert_refused(self.train(ranks=2), 4, "no checkpoint is whole", "--run.directory")
        self.assertEqual((self.run_directory / "metrics.jsonl").read_text(), before)

    def test_a_newer_format_is_refused_by_name_and_an_older_step_still_goes_on(self):
        subprocess.run([NEWER_FORMAT, str(self.newest("manifest.h5"))], check=True)
        self.assert_refused(self.train(ranks=2), 2, self.newest("manifest.h5"), "is newer than this program reads", "--resume.step")
        self.assert_goes_on(f"--resume.step={LAST - 1}", from_step=LAST - 1)

    # ---- what unfinished writers leave
    def test_half_written_checkpoints_are_never_used_and_go_away(self):
        # One of the next step, and one of a step to which the run does not come.
        for step in (LAST + 1, LAST + 90):
            shutil.copytree(self.checkpoint(LAST), self.run_directory / f"checkpoints/step_{step:08}.tmp")
            rollouts = self.run_directory / f"rollouts/step_{step:08}.tmp"
            rollouts.mkdir()
            (rollouts / "part_00000.h5").write_bytes(b"half")
        result = self.assert_goes_on(from_step=LAST, ranks=2)
        self.assertIn(f"checkpoints/step_{LAST + 90:08}.tmp: removed, it was never finished", result.out)
        self.assertEqual([path.name for path in self.run_directory.glob("*/*.tmp")], [])

    def test_a_lost_or_damaged_latest_changes_nothing(self):
        latest = self.run_directory / "checkpoints/LATEST"
        for content in (None, "step_00000077\n", "", "\0\0\0"):
            with self.subTest(content=content):
                shutil.rmtree(self.run_directory)
                shutil.copytree(self.stopped, self.run_directory)
                latest.unlink() if content is None else latest.write_text(content)
                self.assert_goes_on(from_step=LAST)

    def test_metrics_that_lost_their_last_lines_or_end_in_half_a_line_go_on(self):
        metrics = self.run_directory / "metrics.jsonl"
        text = metrics.read_text()
        metrics.write_text(text + '{"stage": "reinf')
        self.assert_goes_on(from_step=LAST)

    def test_metrics_that_are_no_metrics_are_named_and_left_alone(self):
        metrics = self.run_directory / "metrics.jsonl"
        lines = metrics.read_text().splitlines(keepends=True)
        metrics.write_text("".join([lines[0], "garbage\n", *lines[1:]]))
        before = metrics.read_bytes()
        self.assert_refused(self.train(ranks=2), 4, f"{metrics}:2")
        self.assertEqual(metrics.read_bytes(), before)

    # ---- other options, other models
    def test_a_logical_change_is_refused_with_both_values_and_can_be_accepted(self):
        change = ["--stage.reinforce.learning_rate", "5e-4"]
        message = self.assert_refused(self.train(*change, ranks=2), 2, self.checkpoint(LAST), "stage.reinforce.learning_rate",
                                      "0.001", "0.0005", "--resume.accept", "--run.directory")
        self.assertNotIn("(rank 0)", message)
        self.done(*change, "--resume.accept", "stage.reinforce.learning_rate")
        self.assertNotEqual(self.digests(), self.expected)

    def test_every_logical_change_is_listed_at_once(self):
        self.assert_refused(self.train("--run.seed", 2, "--stage.reinforce.beta", 0.5), 2, "run.seed", "'1'", "'2'",
                            "stage.reinforce.beta", "0.02", "0.5")

    def test_another_model_is_a_logical_change_and_accepting_it_does_not_mix_weights(self):
        change = ["--model.policy.hidden_size", 32]
        self.assert_refused(self.train(*change, ranks=2), 2, "model.policy.hidden_size", "16", "32")
        self.assert_refused(self.train(*change, "--resume.accept", "model.policy.hidden_size", ranks=2), 2,
                            self.checkpoint(LAST), "model.embed_tokens.weight", "16", "32")

    def test_fewer_stages_than_the_checkpoint_has_done_is_refused(self):
        recipe = self.folder / "short.ini"
        recipe.write_text(program.SMALL.read_text().split("[stage.reinforce]")[0].replace(", reinforce, measure", ""))
        self.assert_refused(self.train(recipe=recipe), 2, "run.stages", "imitate, reinforce, measure")
        self.assert_refused(self.train("--resume.accept", "run.stages", recipe=recipe), 2, self.checkpoint(LAST))

    def test_physical_and_operational_changes_go_on_to_the_same_bits(self):
        self.assert_goes_on("--device.threads", 2, "--device.isa", "avx2", "--generation.slots", 3, "--update.recompute", "layer",
                            "--parallel.zero", 0, "--run.checkpoint_every", 0, "--run.keep_last", 1, from_step=LAST, ranks=3)


if __name__ == "__main__":
    program.main(jobs=4)
