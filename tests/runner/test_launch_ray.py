"""Sweeps on the machines of a Ray cluster."""

import dataclasses
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_runs import asked

from experiments import sweep
from experiments.runner.launchers import launcher_of
from experiments.runner.launchers import ray as ray_launcher
from experiments.setup.validate import ConfigError
from transformer_jax.training.json_files import read_json

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def test_an_address_that_does_not_answer(tmp_path, monkeypatch):
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
  request = dataclasses.replace(asked(tmp_path), workers=2)
  spec = f"ray(address='127.0.0.1:{port}')"
  with pytest.raises(ConfigError, match=r"no Ray cluster answers \(.*refused\); start"):
    sweep.main(dataclasses.replace(request, launcher=spec))
  with pytest.raises(ConfigError, match="no Ray cluster answers"):
    sweep.main(dataclasses.replace(request, launcher="ray(address='nonsense')"))
  with socket.create_server(("127.0.0.1", 0)) as silent:
    monkeypatch.setattr(ray_launcher, "JOINS", 3.0)
    spec = f"ray(address='127.0.0.1:{silent.getsockname()[1]}')"
    with pytest.raises(ConfigError, match=r"no Ray cluster answers \(nothing in 3 s\)"):
      sweep.main(dataclasses.replace(request, launcher=spec))
  assert not list(tmp_path.iterdir())  # nothing was begun


def test_without_ray_a_sentence_says_how_to_install_it(tmp_path, monkeypatch):
  monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
  with pytest.raises(ConfigError, match="Ray is not installed; pip install"):
    launcher_of("ray").check(asked(tmp_path))


def test_a_dry_run_asks_no_cluster(tmp_path, train, capsys):
  request = dataclasses.replace(asked(tmp_path, dry_run=True), workers=7)
  spec = "ray(address='10.0.0.1:6379', cpus=3, tpus=4)"
  assert sweep.main(dataclasses.replace(request, launcher=spec)) == 0
  line = capsys.readouterr().out.splitlines()[-1]
  assert line == (
    "ray: workers on the cluster at 10.0.0.1:6379, at most 7 each with 3 CPUs,"
    " 0 GPUs, 4 TPU chips"
  )


@pytest.mark.slow  # 3 min on two busy cores: a cluster, and programs of five processes
@pytest.mark.timeout(600)
def test_a_cluster_of_two_nodes_of_which_one_dies(tmp_path):
  shutil.copy(HERE.parent / "user" / "four.py", tmp_path)
  devices = r"--xla_force_host_platform_device_count=\d+"
  environment = {
    **os.environ,
    "XLA_FLAGS": re.sub(devices, "", os.environ.get("XLA_FLAGS", "")),
    "JAX_PLATFORMS": "cpu",
    "PYTHONPATH": str(ROOT),
    # Ray's agents give up if their imports take long: the second node's are quick.
    "PYTHONPYCACHEPREFIX": str(tmp_path / "pyc"),
    "PYTHONWARNINGS": "ignore",
  }
  for name in ("PYTHONDONTWRITEBYTECODE", "NPROC"):
    environment.pop(name, None)
  imports = [sys.executable, "-c", "import ray.dashboard.agent, ray.dashboard.head"]
  subprocess.run(imports, env=environment, check=True, timeout=120)

  def command(*words):
    return [sys.executable, "-m", "experiments.sweep", "--config=four.py", *words]

  alone = subprocess.Popen(
    command("--workdir=alone", "--workers=1"),
    cwd=tmp_path,
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
  with subprocess.Popen(
    [sys.executable, str(HERE / "ray_cluster.py")],
    env=environment,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  ) as cluster:
    try:
      address = next(x for x in cluster.stdout if x.startswith("address ")).split()[1]
      spread = subprocess.Popen(
        command("--workdir=ray", f"--launcher=ray(address='{address}', patience=5)"),
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
      )
      wait_for_checkpoints(tmp_path / "ray", spread)
      cluster.stdin.write("kill\n")
      cluster.stdin.flush()
      printed, _ = spread.communicate(timeout=300)
    finally:
      cluster.stdin.close()
      cluster.wait(timeout=60)
  print(printed, *alone.communicate(timeout=300))
  assert alone.returncode == 0
  assert spread.returncode == 0
  assert "ray: 2 workers on the cluster" in printed
  assert "its process has died" in printed and "resumed from step" in printed
  assert results(tmp_path / "ray") == results(tmp_path / "alone")
  assert (tmp_path / "ray" / "report.html").is_file()


def wait_for_checkpoints(workdir, process):
  """Waits until two runs are under way and have a checkpoint each."""
  while process.poll() is None:
    running = [
      path.parent
      for path in workdir.glob("runs/*/status.json")
      if read_json(path)["state"] == "running"
    ]
    saved = [list(run.glob("checkpoints/*/commit_success.txt")) for run in running]
    if len(running) == 2 and all(saved):
      return
    time.sleep(0.05)
  pytest.fail(process.stdout.read())


def results(workdir):
  """Returns scores and metrics of all runs, without what was timed."""
  found = {}
  for path in sorted(workdir.glob("runs/*/result.json")):
    result = read_json(path)
    lines = (path.parent / "metrics.jsonl").read_text().splitlines()
    metrics = [re.sub(r', "tokens_per_s": [^,}]*', "", line) for line in lines]
    found[path.parent.name] = (result["scores"], result["targets"], metrics)
  assert len(found) == 4
  return found
