"""Sweeps by jobs of SLURM, here by submitit's processes of this machine."""

import dataclasses
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

# Here, since it sets up logging anew, which closes the streams of a test's capture.
import submitit  # noqa: F401
from fake_runs import asked
from ray_cluster import below

from experiments import sweep
from experiments.runner import batch_loop
from experiments.runner.launchers import launcher_of
from experiments.setup.validate import ConfigError
from transformer_jax.training.json_files import read_json, write_json
from transformer_jax.training.signals import Stop

USER = Path(__file__).parents[1] / "user"
ROOT = Path(__file__).parents[2]


def test_the_command_waits_also_while_no_run_is_under_way(tmp_path, monkeypatch):
  """As at the first look, when all jobs are queued: the time left is unknown."""
  monkeypatch.setattr(batch_loop, "POLL", 0.0)
  (tmp_path / "runs/abc").mkdir(parents=True)
  write_json(tmp_path / "sweep.json", {"question": "q", "runs": [{"id": "abc"}]})
  looks = iter([False, True])
  job = SimpleNamespace(job_id="1", done=lambda: next(looks, True))
  job.result = lambda: '{"refused": ""}'
  request = SimpleNamespace(workdir=tmp_path)
  folders = {"abc": tmp_path / "runs/abc"}
  work = SimpleNamespace(request=request, folders=folders, stop=Stop())
  loop = batch_loop.BatchLoop(work, [job])
  assert [outcome.state for outcome in loop.outcomes()] == ["interrupted"]


def test_a_dry_run_prints_the_script_for_sbatch(tmp_path, train, capsys):
  spec = "slurm(partition='gpu', hours=2, gpus=1, memory=20, setup=('module load x',))"
  request = dataclasses.replace(asked(tmp_path, dry_run=True), launcher=spec, workers=8)
  assert sweep.main(request) == 0
  script = capsys.readouterr().out.partition("this script:\n\n")[2]
  lines = script.splitlines()
  assert lines[0] == "#!/bin/bash"
  for word in (
    *("partition=gpu", "time=120", "gpus-per-node=1", "mem=20GB", "requeue"),
    *("array=0-7%8", "signal=USR2@120", "cpus-per-task=16", "open-mode=append"),
  ):
    assert f"#SBATCH --{word}" in lines
  assert "module load x" in lines and "submitit.core._submit" in script
  assert not (tmp_path / "runs").exists()


def test_where_there_is_no_slurm_a_sentence_says_so(tmp_path, monkeypatch):
  monkeypatch.setenv("PATH", str(tmp_path))
  with pytest.raises(ConfigError, match="there is no srun here; start the command on"):
    launcher_of("slurm").check(asked(tmp_path))
  with pytest.raises(ConfigError, match="cluster='mine': slurm or local"):
    launcher_of("slurm(cluster='mine')").check(asked(tmp_path))
  monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
  with pytest.raises(ConfigError, match="submitit is not installed; pip install"):
    launcher_of("slurm").check(asked(tmp_path))


@pytest.mark.slow  # 2 min on two busy cores: programs of four processes
def test_two_jobs_share_a_sweep_of_which_one_is_preempted(tmp_path):
  shutil.copy(USER / "four.py", tmp_path)
  devices = r"--xla_force_host_platform_device_count=\d+"
  environment = {
    **os.environ,
    "XLA_FLAGS": re.sub(devices, "", os.environ.get("XLA_FLAGS", "")),
    "JAX_PLATFORMS": "cpu",
    "PYTHONPATH": str(ROOT),
  }
  environment.pop("NPROC", None)
  words = ("--config=four.py", "--workdir=out", "--workers=2")
  started = subprocess.Popen(
    [
      *(sys.executable, "-m", "experiments.sweep", *words),
      "--launcher=slurm(cluster='local', hours=0.2)",
    ],
    cwd=tmp_path,
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
  try:
    preempted = False
    while started.poll() is None:
      time.sleep(0.05)
      saved = tmp_path.glob("out/runs/*/checkpoints/*/state")
      if not preempted and len({path.parents[2] for path in saved}) == 2:
        preempted = preempt_one(started.pid)
    printed, _ = started.communicate(timeout=60)
  finally:
    for pid in below(started.pid) if started.poll() is None else ():
      os.kill(pid, signal.SIGKILL)
  logs = "".join(path.read_text() for path in (tmp_path / "out/jobs").glob("*_log.*"))
  print(printed, logs)
  assert started.returncode == 0 and preempted
  assert "2 jobs (" in printed and "report: " in printed
  assert "this job is preempted" in logs and "resumed from step" in logs
  done = [read_json(path) for path in tmp_path.glob("out/runs/*/status.json")]
  assert [status["state"] for status in done] == ["finished"] * 4
  # Each run began once, but for the one that was saved and continued.
  assert sorted(status["attempts"] for status in done) == [1, 1, 1, 2]


def preempt_one(pid):
  """Tells the first job of a command that it is preempted, as SLURM does."""
  for each in below(pid):
    words = Path(f"/proc/{each}/cmdline").read_bytes().split(b"\0")
    if b"submitit.core._submit" in words:
      os.kill(each, signal.SIGUSR2)
      return True
  return False
