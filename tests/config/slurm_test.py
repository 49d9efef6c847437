"""jobs/train.sbatch under a Slurm of its own: warned jobs go on by themselves, others stay ended, the bits are the same.

A throw-away Slurm (munged, slurmctld, two slurmd on this host) is started in a temporary folder on free ports, and ended with
the test. Needs root and Debian's slurm-wlm and munge; ends with 77 (skipped) without them.

  slurm_test.py PROGRAM SOURCE                 warnings are sent by hand, as scancel can
  slurm_test.py PROGRAM SOURCE --time-limit    the warning is Slurm's, before a limit of one minute (takes minutes)
Arguments of unittest may follow, like -k cancelled.
"""
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

PROGRAM, SOURCE = sys.argv[1], pathlib.Path(sys.argv[2])
WITH_LIMIT = "--time-limit" in sys.argv[3:]
NODES = 2
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "scancel", "mpirun")
# Long enough to be stopped on the way.
RECIPE = [str(SOURCE / "configs/tiny.ini"), "--stage.grpo.steps", "12", "--stage.grpo.eval_steps", "0"]


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Slurm:
    def __init__(self, folder):
        self.folder = folder
        self.conf = folder / "slurm.conf"
        self.environment = dict(os.environ, SLURM_CONF=str(self.conf), RANKWISE=PROGRAM,
                                OMPI_MCA_btl="self,tcp")  # nodes of one host share no memory
        self.pid_files = []

    def start(self):
        host = socket.gethostname().split(".")[0]
        ports = free_ports(NODES + 1)
        for name in ("state", "log", "munge"):
            (self.folder / name).mkdir()
        self.folder.chmod(0o755)
        (self.folder / "munge").chmod(0o711)
        key = self.folder / "munge/key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        lines = [
            "ClusterName=test", f"SlurmctldHost={host}(127.0.0.1)", f"SlurmctldPort={ports[0]}", "SlurmUser=root",
            "SlurmdUser=root", "AuthType=auth/munge", "CredType=cred/munge",
            # A requeued job waits for as long as its credential lives; less than 5 s counts as 120.
            f"AuthInfo=socket={self.folder}/munge/socket,cred_expire=5", "MpiDefault=none",
            "ProctrackType=proctrack/linuxproc", "TaskPlugin=task/none", "JobAcctGatherType=jobacct_gather/none",
            "AccountingStorageType=accounting_storage/none", "SelectType=select/cons_tres",
            "SelectTypeParameters=CR_Core", "SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=2",
            f"StateSaveLocation={self.folder}/state", f"SlurmdSpoolDir={self.folder}/spool.%n",
            f"SlurmctldPidFile={self.folder}/slurmctld.pid", f"SlurmdPidFile={self.folder}/slurmd.%n.pid",
            f"SlurmctldLogFile={self.folder}/log/slurmctld", f"SlurmdLogFile={self.folder}/log/slurmd.%n",
            "SlurmdParameters=config_overrides", "ReturnToService=2", "KillWait=10", "JobRequeue=1",
            f"PartitionName=test Nodes=n[1-{NODES}] Default=YES MaxTime=INFINITE State=UP"]
        for node in range(1, NODES + 1):
            (self.folder / f"spool.n{node}").mkdir()
            lines.insert(-1, f"NodeName=n{node} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[node]} CPUs=2 "
                             "RealMemory=1000 State=UNKNOWN")
        self.conf.write_text("\n".join(lines) + "\n")
        munge = self.folder / "munge"
        self.daemon(["munged", f"--key-file={key}", f"--socket={munge}/socket", f"--pid-file={self.folder}/munged.pid",
                     f"--log-file={munge}/log", f"--seed-file={munge}/seed", "--force"], "munged.pid")
        self.daemon(["slurmctld", "-i", "-f", str(self.conf)], "slurmctld.pid")
        for node in range(1, NODES + 1):
            self.daemon(["slurmd", "-N", f"n{node}", "-f", str(self.conf)], f"slurmd.n{node}.pid")
        self.wait_for(lambda: set(self.run("sinfo", "-h", "-o", "%T", check=False).split()) == {"idle"}, 60, "idle nodes")

    def daemon(self, words, pid_file):
        self.pid_files.append(self.folder / pid_file)
        subprocess.run(words, check=True, env=self.environment, capture_output=True, timeout=60)

    def stop(self):
        self.run("scancel", "--state=RUNNING", check=False)
        self.run("scancel", "--state=PENDING", check=False)
        deadline = time.monotonic() + 20
        for file in reversed(self.pid_files):
            if not file.exists():
                continue
            pid = int(file.read_text())
            try:
                os.kill(pid, signal.SIGTERM)
                while time.monotonic() < deadline:
                    os.kill(pid, 0)
                    time.sleep(0.1)
            except ProcessLookupError:
                pass

    def run(self, *words, check=True):
        return subprocess.run(words, check=check, env=self.environment, capture_output=True, text=True,
                              cwd=self.folder, timeout=60).stdout

    def submit(self, run_directory, *settings, options=()):
        out = self.run("sbatch", "--parsable", f"--nodes={NODES}", "--ntasks-per-node=1", *options,
                       str(SOURCE / "jobs/train.sbatch"), *settings, "--run.directory", str(run_directory))
        return out.strip()

    def job(self, number):
        text = self.run("scontrol", "show", "job", number)
        return dict(re.findall(r"(\w+)=(\S*)", text))

    def log(self, number):
        return (self.folder / f"rankwise-{number}.log").read_text(errors="replace")

    def wait_for(self, condition, seconds, what):
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {seconds} s in vain for {what}\n"
                                     f"{self.run('squeue', check=False)}{self.logs()}")
            time.sleep(0.1)

    def logs(self):
        return "\n".join(f"== {file}\n{file.read_text()[-3000:]}" for file in self.folder.glob("*.log"))

    def wait_for_end(self, number, seconds):
        self.wait_for(lambda: self.job(number)["JobState"] in ENDED, seconds, f"the end of job {number}")
        return self.job(number)


def lines_of(directory):
    file = directory / "metrics.jsonl"
    return file.read_text().splitlines() if file.exists() else []


def digests(directory):
    """What must not depend on where a run stopped: digests of every line that has them."""
    found = []
    for line in lines_of(directory):
        entry = json.loads(line)
        if "digest/rollouts" in entry:
            found.append((entry["stage"], entry["step"], entry["digest/weights"], entry["digest/rollouts"]))
    return found


def ranks_of(directory):
    """Process ids of the ranks of a run."""
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0] == PROGRAM.encode() and str(directory).encode() in words:
            found.append(int(entry.name))
    return found


class Jobs(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="slurm-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        cls.slurm = Slurm(cls.folder)
        cls.addClassCleanup(cls.slurm.stop)
        cls.slurm.start()
        whole = cls.folder / "whole"
        subprocess.run([PROGRAM, "train", *RECIPE, "--run.directory", str(whole)], check=True,
                       stdout=subprocess.DEVNULL, timeout=300)
        cls.expected = digests(whole)

    def start(self, name, *options):
        directory = self.folder / name
        number = self.slurm.submit(directory, *RECIPE, options=options)
        self.slurm.wait_for(lambda: len(lines_of(directory)) >= 3 or self.slurm.job(number)["JobState"] in ENDED, 120,
                            "the third step")
        self.assertEqual(self.slurm.job(number)["JobState"], "RUNNING", self.slurm.logs())
        return directory, number

    @unittest.skipIf(WITH_LIMIT, "the other test of warnings")
    def test_a_warned_job_saves_queues_itself_and_goes_on_to_the_same_bits(self):
        directory, number = self.start("warned")
        self.slurm.run("scancel", "--batch", "--signal=USR1", number)
        job = self.slurm.wait_for_end(number, 240)
        self.assertEqual((job["JobState"], job["ExitCode"]), ("COMPLETED", "0:0"))
        self.assertEqual(int(job["Restarts"]), 1)
        self.assertEqual(digests(directory), self.expected)
        log = self.slurm.log(number)
        self.assertIn("saved; going on in a later turn", log)
        self.assertIn(f"going on from {directory}/checkpoints/", log)
        self.assertNotIn("mpirun detected", log)
        self.assertNotRegex(log, "-{70}")

    @unittest.skipUnless(WITH_LIMIT, "takes minutes: --time-limit")
    def test_a_job_whose_limit_is_short_goes_on_by_itself_to_the_same_bits(self):
        longer = [*RECIPE, "--stage.grpo.steps", "150"]
        whole, directory = self.folder / "longer", self.folder / "limit"
        subprocess.run([PROGRAM, "train", *longer, "--run.directory", str(whole)], check=True,
                       stdout=subprocess.DEVNULL, timeout=1200)
        number = self.slurm.submit(directory, *longer, options=("--time=1", "--signal=B:USR1@40"))
        job = self.slurm.wait_for_end(number, 1200)
        print(f"a limit of one minute: {job['JobState']} after {job['Restarts']} restarts", file=sys.stderr)
        self.assertEqual((job["JobState"], job["ExitCode"]), ("COMPLETED", "0:0"))
        self.assertGreaterEqual(int(job["Restarts"]), 1)
        self.assertEqual(digests(directory), digests(whole))

    def test_where_requeuing_is_not_allowed_a_new_job_of_the_same_size_goes_on(self):
        directory, number = self.start("successor", "--no-requeue")
        self.slurm.run("scancel", "--batch", "--signal=USR1", number)
        self.assertEqual(self.slurm.wait_for_end(number, 60)["ExitCode"], "3:0")
        job = self.slurm.wait_for_end(str(int(number) + 1), 240)
        self.assertEqual((job["JobState"], job["NumNodes"], job["NumTasks"]), ("COMPLETED", str(NODES), str(NODES)))
        self.assertEqual(digests(directory), self.expected)

    def test_a_job_whose_rank_is_killed_stays_ended_and_its_log_names_the_rank(self):
        directory, number = self.start("killed")
        os.kill(max(ranks_of(directory)), signal.SIGKILL)
        job = self.slurm.wait_for_end(number, 60)
        self.assertEqual((job["JobState"], job["ExitCode"], job["Restarts"]), ("FAILED", "137:0", "0"))
        log = self.slurm.log(number)
        self.assertRegex(log, r"mpirun noticed that process rank \d with PID \d+ on node \S+ exited on signal 9")
        self.assertIn("ended with code 137", log)

    def test_a_job_whose_node_is_lost_is_queued_again_by_slurm_and_goes_on_to_the_same_bits(self):
        directory, number = self.start("node", "--open-mode=append")
        self.slurm.run("scontrol", "update", "NodeName=n2", "State=DOWN", "Reason=test")
        self.slurm.wait_for(lambda: self.slurm.job(number)["JobState"] == "PENDING", 60, "a queued job")
        self.slurm.run("scontrol", "update", "NodeName=n2", "State=RESUME", check=False)  # or it came back by itself
        job = self.slurm.wait_for_end(number, 240)
        self.assertEqual((job["JobState"], job["Restarts"]), ("COMPLETED", "1"))
        self.assertEqual(digests(directory), self.expected)

    def test_a_job_that_ends_with_an_error_stays_ended(self):
        number = self.slurm.submit(self.folder / "error", *RECIPE, "--stage.grpo.lerning_rate", "1")
        job = self.slurm.wait_for_end(number, 60)
        self.assertEqual((job["JobState"], job["ExitCode"], job["Restarts"]), ("FAILED", "2:0", "0"))

    def test_a_job_that_is_asked_to_stop_saves_and_stays_ended(self):
        directory, number = self.start("stopped")
        self.slurm.run("scancel", "--batch", "--signal=INT", number)
        job = self.slurm.wait_for_end(number, 60)
        self.assertEqual((job["JobState"], job["ExitCode"], job["Restarts"]), ("FAILED", "3:0", "0"))
        saved = (directory / "checkpoints/LATEST").read_text().strip()
        steps = sum('"digest/rollouts"' in line for line in lines_of(directory))
        self.assertEqual(saved, f"step_{steps:08d}")

    def test_a_cancelled_job_stays_cancelled_and_goes_on_when_it_is_submitted_again(self):
        directory, number = self.start("cancelled")
        self.slurm.run("scancel", number)
        self.slurm.wait_for(lambda: self.slurm.job(number)["JobState"] == "CANCELLED", 60, "the end")
        self.slurm.wait_for(lambda: not self.slurm.run("squeue", "-h").strip(), 60, "an empty queue")
        time.sleep(3)
        self.assertEqual(self.slurm.run("squeue", "-h").strip(), "")
        again = self.slurm.submit(directory, *RECIPE)
        job = self.slurm.wait_for_end(again, 240)
        self.assertEqual((job["JobState"], job["Restarts"]), ("COMPLETED", "0"))
        self.assertEqual(digests(directory), self.expected)


if __name__ == "__main__":
    absent = [name for name in NEEDED if shutil.which(name) is None]
    if absent or os.geteuid() != 0:
        print(f"skipped: {'not installed: ' + ', '.join(absent) if absent else 'a Slurm of its own needs root'}")
        sys.exit(77)
    unittest.main(argv=sys.argv[:1] + [word for word in sys.argv[3:] if word != "--time-limit"], verbosity=2)
