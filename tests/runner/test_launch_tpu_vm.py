"""Sweeps on TPU VMs, with a gcloud that writes down what it is asked."""

import dataclasses
import json
import os
import shlex
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from fake_runs import asked

from experiments import sweep
from experiments.runner import tpu_commands
from experiments.runner.launchers import launcher_of, tpu_vm
from experiments.runner.tpu_commands import TpuCommands
from experiments.setup.validate import ConfigError

ROOT = Path(__file__).parents[2]
SLICE = "tpu_vm(name='mine', type='v5litepod-8', zone='us-west4-a'{})"

MINE = SLICE.format("")


@pytest.fixture
def gcloud(tmp_path, monkeypatch):
  """Works on a slice; returns (exit code, the words of all calls, in short)."""
  file = tmp_path / "gcloud.json"
  (tmp_path / "bin").mkdir()
  shutil.copy(Path(__file__).parent / "fake_gcloud.py", tmp_path / "bin" / "gcloud")
  (tmp_path / "bin" / "gcloud").chmod(0o755)
  monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
  monkeypatch.setenv("GCLOUD", str(file))
  monkeypatch.setattr(tpu_vm, "POLL", 0.0)
  (tmp_path / "project").mkdir()
  (tmp_path / "project" / "setup.cfg").touch()
  monkeypatch.chdir(tmp_path / "project")
  monkeypatch.setattr(TpuCommands, "pack", lambda commands, folder: ["true"])

  def run(ends, state="", spec=MINE, fails=(), offline=0):
    given = {"state": state, "ends": ends, "fails": fails, "offline": offline}
    file.write_text(json.dumps(given | {"calls": []}))
    request = dataclasses.replace(
      asked(Path("runs/mine")), path=Path("mine.py"), launcher=spec, retry=True
    )
    code = sweep.main(request)
    return code, json.loads(file.read_text())["calls"]

  return run


def short(calls):
  """Returns what was asked, in a word each."""
  verbs = ("create", "describe", "delete", "scp", "rsync")
  words = [next((v for v in verbs if v in call), "") for call in calls]
  ssh = ["run" if "experiments.sweep" in call[-1] else "install" for call in calls]
  return [word or other for word, other in zip(words, ssh, strict=True)]


OBTAIN = ["describe", "create", "describe", "describe"]
WORK = ["scp", "install", "run", "describe"]


def test_a_slice_is_asked_for_used_and_given_back(gcloud, capfd):
  code, calls = gcloud([0])
  assert code == 0
  assert short(calls) == [*OBTAIN, *WORK, "scp", "delete"]
  lines = [shlex.join(["gcloud", *call]) for call in calls]
  where = "mine --zone=us-west4-a"
  assert lines[1] == (
    f"gcloud compute tpus queued-resources create {where}"
    " --accelerator-type=v5litepod-8 --node-id=mine"
    " --runtime-version=v2-alpha-tpuv5-lite"
  )
  assert calls[6][-1].endswith(
    "python -m experiments.sweep --config=mine.py --workdir=runs/mine"
    " --workers=1 --retry"
  )
  assert lines[-2] == (
    "gcloud compute tpus tpu-vm scp --recurse mine:transformer_jax/runs/mine runs"
    " --worker=0 --zone=us-west4-a"
  )
  said = capfd.readouterr().out
  assert all(f"$ {line}\n" in said for line in lines if "describe" not in line)


def test_a_slice_that_is_taken_away_is_asked_for_again(gcloud, capfd):
  code, calls = gcloud([255, 255, 0])
  assert code == 0
  again = ["describe", "delete", *OBTAIN]
  assert short(calls) == [*OBTAIN, *WORK, *2 * [*again, *WORK], "scp", "delete"]
  said = capfd.readouterr().out
  assert said.count("mine: it is SUSPENDED; the command begins again, without any") == 2


def test_a_spot_slice_needs_a_place_that_stays(gcloud, capfd):
  with pytest.raises(
    ConfigError, match="spot=True: a machine that is taken away takes"
  ):
    launcher_of(SLICE.format(", spot=True"))
  code, calls = gcloud([255, 0], spec=SLICE.format(", spot=True, bucket='gs://a/b'"))
  assert code == 0 and "--spot" in calls[1]
  said = capfd.readouterr().out
  assert "mine: it is SUSPENDED; the command continues from its checkpoints" in said


def test_a_command_that_fails_is_not_repeated(gcloud):
  code, calls = gcloud([2])
  assert code == 2 and short(calls) == [*OBTAIN, *WORK, "scp", "delete"]


def test_a_slice_whose_results_were_not_copied_is_left(gcloud, capfd):
  code, calls = gcloud([0], state="ACTIVE", fails=["--recurse"])
  assert code == 1 and short(calls) == ["describe", *WORK, "scp"]
  said = capfd.readouterr().out
  assert "the results were not copied (exit code 1), so mine is left as it is" in said
  assert "\n  gcloud compute tpus tpu-vm scp --recurse mine:" in said
  assert "\n  gcloud compute tpus queued-resources delete mine" in said


def test_a_slice_that_was_not_deleted_is_named(gcloud, capfd):
  code, calls = gcloud([0], state="ACTIVE", fails=["delete"])
  assert code == 1 and short(calls)[-1] == "delete"
  assert "mine was not deleted (exit code 1):\n" in capfd.readouterr().out


def test_a_lost_network_is_waited_for(gcloud, capfd):
  code, calls = gcloud([255, 0], state="ACTIVE", offline=3)
  assert code == 0
  again = [*WORK, *3 * ["describe"], "describe"]
  assert short(calls) == ["describe", *again, *WORK, "scp", "delete"]
  said = capfd.readouterr().out
  assert said.count("the server cannot be reached") == 1
  assert "mine: the connection broke; the command continues" in said


def test_a_gcloud_that_cannot_be_used_is_said_at_once(gcloud, capfd):
  with pytest.raises(ConfigError, match="gcloud cannot be used: exit code 1"):
    gcloud([0], fails=["describe"])
  with pytest.raises(ConfigError, match="gcloud could not ask for it"):
    gcloud([0], fails=["create"])
  assert capfd.readouterr().out.count("to delete it:\n  gcloud compute tpus") == 2


def test_a_slice_that_is_there_is_used_and_may_be_kept(gcloud):
  code, calls = gcloud([0], state="ACTIVE", spec=SLICE.format(", keep=True"))
  assert code == 0 and short(calls) == ["describe", *WORK, "scp"]


def test_it_is_given_up_in_the_end(gcloud, capfd):
  code, calls = gcloud([255, 255], spec=SLICE.format(", restarts=1"))
  assert code == 1 and short(calls).count("run") == 2
  assert "given up after 1 restarts" in capfd.readouterr().out


def test_a_bucket_brings_the_folder_to_the_next_machine(gcloud):
  spec = SLICE.format(", bucket='gs://mine/pod', setup=('make data',)")
  code, calls = gcloud([0], state="ACTIVE", spec=spec)
  install, run = calls[2][-1], calls[3][-1]
  assert install.endswith(" && . .venv/bin/activate && make data")
  assert "gcloud storage rsync --recursive gs://mine/pod runs/mine) && touch" in run
  assert run.endswith(
    "gcloud storage rsync --recursive runs/mine gs://mine/pod; exit $code"
  )
  assert short(calls)[-2:] == ["rsync", "delete"]


def test_a_bucket_does_not_bring_back_old_files(tmp_path):
  """The script itself, with folders for buckets: run twice on one machine."""
  home, bin = tmp_path / "transformer_jax", tmp_path / "bin"
  (home / ".venv/bin").mkdir(parents=True)
  (home / ".venv/bin/activate").touch()
  bin.mkdir()
  ls = (
    '[ $2 = ls ] && { [ -e "$3" ] || echo ERROR: URLs matched no objects. >&2; exit; }'
  )
  gcloud = f'{ls}; mkdir -p "$5" && cp -r "$4/." "$5"'
  for name, line in {"gcloud": gcloud, "sleep": "exit 1"}.items():
    (bin / name).write_text(f"#!/bin/bash\n{line}\n")
    (bin / name).chmod(0o755)
  bucket, here = tmp_path / "bucket", home / "runs/a"
  environment = {**os.environ, "PATH": f"{bin}:{os.environ['PATH']}"}

  def run(command):
    script = tpu_commands.run(command, "runs/a", str(bucket))
    words = ["bash", "-c", script]
    done = subprocess.run(words, cwd=tmp_path, env=environment, timeout=30)
    return done.returncode

  assert run("(echo 1 > runs/a/step; exit 3)") == 3  # nothing is in the bucket yet
  (bucket / "step").write_text("0")  # not copied since
  assert run("cp runs/a/step seen") == 0
  assert (home / "seen").read_text() == "1\n" == (bucket / "step").read_text()
  shutil.rmtree(home / "runs")  # the next machine
  assert run("cp runs/a/step seen") == 0 and (here / "step").read_text() == "1\n"
  shutil.rmtree(home / "runs")
  bucket.rename(tmp_path / "away")
  bucket.touch()  # cannot be read
  assert run("touch began") == 1 and not (home / "began").exists()


def test_several_hosts_share_a_folder(gcloud):
  pod = SLICE.replace("v5litepod-8", "v5litepod-16")
  with pytest.raises(ConfigError, match="v5litepod-16 has several hosts, which need a"):
    launcher_of(pod.format(""))
  spec = pod.format(", share='10.0.0.2:/runs'")
  code, calls = gcloud([0], state="ACTIVE", spec=spec)
  assert "sudo mount -t nfs 10.0.0.2:/runs /mnt/share" in calls[2][-1]
  assert "--worker=all" in calls[3] and "--workdir=/mnt/share/runs/mine" in calls[3][-1]
  assert short(calls)[-1] == "delete" and "scp" not in short(calls)[4:]


def test_the_project_is_packed_without_files_that_were_deleted(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for name in ("kept file", "deleted", ".gitignore", "ignored"):
    Path(name).write_text("ignored")
  Path("link").symlink_to("nowhere")
  for words in (["init", "--quiet"], ["add", "--all"]):
    subprocess.run(["git", *words], check=True, timeout=30)
  Path("deleted").unlink()
  Path("new").touch()
  folder = tmp_path / "ignored folder"
  folder.mkdir()
  commands = TpuCommands("mine", "v5litepod-8", "us-west4-a")
  assert subprocess.run(commands.pack(folder), timeout=30).returncode == 0
  with tarfile.open(folder / "mine.tar.gz") as packed:
    assert {*packed.getnames()} >= {"kept file", "link", "new", ".gitignore"}
    assert not {*packed.getnames()} & {"deleted", "ignored"}
  monkeypatch.chdir("/")  # no project of git
  assert subprocess.run(commands.pack(folder), timeout=30).returncode


def test_nothing_is_asked_for_where_the_project_was_not_packed(gcloud, monkeypatch):
  monkeypatch.setattr(TpuCommands, "pack", lambda commands, folder: ["false"])
  monkeypatch.setattr(tpu_vm.TpuVm, "_obtain", None)
  with pytest.raises(ConfigError, match="the project was not packed"):
    gcloud([0])


def test_a_dry_run_prints_the_commands_and_calls_nothing(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(ROOT)
  monkeypatch.setenv("PATH", str(tmp_path))  # without gcloud
  request = dataclasses.replace(asked(Path("runs/mine"), dry_run=True))
  assert sweep.main(dataclasses.replace(request, launcher=MINE)) == 0
  lines = capsys.readouterr().out.splitlines()
  words = [line.split()[4] for line in lines if line.startswith("gcloud compute")]
  assert words == ["create", "describe", "scp", "ssh", "ssh", "scp", "delete"]
  with pytest.raises(ConfigError, match="there is no gcloud here"):
    launcher_of(MINE).carry(asked(Path("runs/mine")))
  monkeypatch.chdir(tmp_path)
  with pytest.raises(ConfigError, match="start it in the project's folder"):
    launcher_of(MINE).carry(asked(Path("runs/mine")))


@pytest.mark.parametrize(
  ("type_", "image"),
  [
    ("v6e-8", "v2-alpha-tpuv6e"),
    ("v5p-8", "v2-alpha-tpuv5"),
    ("v4-8", "tpu-ubuntu2204-base"),
  ],
)
def test_each_type_has_its_image(type_, image):
  commands = TpuCommands("a", type_, "b", project="c", queued=False)
  assert f"--version={image}" in commands.create() and not commands.hosts_are_several
  assert shlex.join(commands.state()) == (
    "gcloud compute tpus tpu-vm describe a --zone=b --project=c '--format=value(state)'"
  )
