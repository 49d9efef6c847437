"""Disks that are full or read-only, files that may not grow, directories that are somebody else's: code 6 and the path; when the
trouble is over, the same command goes on from the last whole checkpoint, to the bits of a run that had none."""
import os
import pathlib
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
import program

LONG = ["--stage.imitate.steps", 100000, "--run.checkpoint_every", 50]  # a run that a test ends


class SmallDisk:
    """A file system of some bytes at `folder`, which only commands that are started through it see."""

    def __init__(self, folder, size):
        self.folder = folder
        folder.mkdir()
        own_user = [] if os.geteuid() == 0 else ["-r"]
        self.holder = subprocess.Popen(
            ["unshare", *own_user, "-m", "sh", "-c", f"mount -t tmpfs -o size={size} none '{folder}' && echo ready && exec sleep 600"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        if self.holder.stdout.readline() != "ready\n":
            self.close()
            raise unittest.SkipTest("this machine lets no test mount a small file system")
        enter = ["-U", "--preserve-credentials"] if own_user else []
        self.through = ["nsenter", "-t", str(self.holder.pid), *enter, "-m"]
        self.inside = pathlib.Path(f"/proc/{self.holder.pid}/root{folder}")

    def remount(self, how):
        subprocess.run([*self.through, "mount", "-o", f"remount,{how}", str(self.folder)], check=True)

    def close(self):
        self.holder.kill()
        self.holder.wait()
        self.holder.stdout.close()


class Environment(program.Case):
    def disk(self, size):
        disk = SmallDisk(self.folder / "disk", size)
        self.addCleanup(disk.close)
        self.run_directory = disk.folder / "run"
        return disk

    def train_on(self, disk, *options, **where):
        return self.execute([*disk.through, *self.command(*options, **where)])

    def assert_ends_well(self, disk, **where):
        result = self.train_on(disk, **where)
        self.assertEqual(result.code, 0, result)
        self.assertEqual(self.digests(disk.inside / "run"), program.whole_run())

    def test_a_disk_that_fills_at_any_moment_ends_the_run_with_6_and_nothing_is_lost(self):
        disk = self.disk("16m")
        filler = disk.inside / "filler"
        for free_kib, ranks in ((0, 1), (40, 2), (200, 1), (500, 2), (900, 1), (1500, 2), (1900, 1)):
            with self.subTest(free_kib=free_kib, ranks=ranks):
                shutil.rmtree(disk.inside / "run", ignore_errors=True)
                with open(filler, "wb") as file:
                    file.write(bytes((16 * 1024 - free_kib) * 1024))
                result = self.train_on(disk, ranks=ranks)
                self.assert_refused(result, 6, self.run_directory, "No space left on device")
                filler.unlink()
                self.assert_ends_well(disk, ranks=ranks)

    def test_a_disk_that_becomes_read_only_ends_the_run_with_6_and_nothing_is_lost(self):
        disk = self.disk("16m")
        self.assertEqual(self.train_on(disk, "--run.stop_after_steps", 2).code, 3)
        disk.remount("ro")
        self.assert_refused(self.train_on(disk, ranks=2), 6, self.run_directory, "Read-only file system")
        disk.remount("rw")
        self.assert_ends_well(disk, ranks=2)

    def test_a_directory_below_a_file_ends_the_start_with_6(self):
        (self.folder / "file").write_text("")
        self.run_directory = self.folder / "file/run"
        self.assert_refused(self.train(ranks=3), 6, self.run_directory, "Not a directory")

    @unittest.skipIf(os.geteuid() == 0, "root may write everywhere")
    def test_a_directory_without_permission_ends_the_start_with_6(self):
        self.run_directory.mkdir(mode=0o500)
        self.assert_refused(self.train(ranks=2), 6, self.run_directory, "Permission denied")

    # ---- one run a directory
    def started(self, ranks):
        """A run that has its first checkpoint and much to do."""
        job = self.start(self.command(*LONG, ranks=ranks))
        self.addCleanup(job.wait)
        self.addCleanup(job.kill)
        end = time.monotonic() + 30
        while not self.checkpoint(50).exists():
            self.assertIsNone(job.poll())
            self.assertLess(time.monotonic(), end)
            time.sleep(0.05)
        return job

    def test_files_that_may_grow_no_more_end_the_run_with_6_and_the_path(self):
        job = self.started(ranks=1)
        begin = time.monotonic()
        resource.prlimit(job.pid, resource.RLIMIT_FSIZE, (4096, 4096))
        out, err = job.communicate(timeout=20)
        result = program.Result(job.returncode, out, err, time.monotonic() - begin)
        self.assert_refused(result, 6, self.run_directory, "File too large")
        result = self.train(*LONG, "--run.stop_after_steps", 1)
        self.assertEqual(result.code, 3, result)
        self.assertIn("going on from", result.out)

    def test_a_directory_of_a_live_run_is_refused_with_host_and_pid_and_the_live_run_goes_on(self):
        job = self.started(ranks=1)
        before = sorted((self.run_directory / "checkpoints").iterdir())
        message = self.assert_refused(self.train(ranks=2), 6, self.run_directory / "run.lock", socket.gethostname(), job.pid)
        self.assertNotIn("(rank 0)", message)
        self.assertIsNone(job.poll())
        self.assertTrue(set(before) - set((self.run_directory / "checkpoints").iterdir()) <= set(before))
        job.send_signal(signal.SIGTERM)
        out, err = job.communicate(timeout=20)
        self.assertEqual(job.returncode, 3, out + err)

    def test_the_lock_of_a_run_that_was_killed_is_taken_over(self):
        job = self.started(ranks=1)
        job.send_signal(signal.SIGKILL)
        job.communicate(timeout=20)
        self.assertTrue((self.run_directory / "run.lock").exists())
        result = self.train(*LONG, "--run.stop_after_steps", 1, ranks=2)
        self.assertEqual(result.code, 3, result)
        self.assertIn("going on from", result.out)


if __name__ == "__main__":
    program.main(jobs=4)
