"""The commands themselves, on real files: what they write, survive and refuse."""

import functools
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags as absl_flags
from test_checkpoint import flip_a_bit, largest

import experiments
from experiments import run, sweep
from experiments.runner import process, sweep_loop, train
from experiments.setup import flags
from experiments.setup.validate import ConfigError
from transformer_jax.training import metrics_log
from transformer_jax.training.json_files import read_json, write_json

# ml_collections loads config files by a method that Python means to remove.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

ROOT = str(Path(experiments.__file__).parents[1])
UNDRAWN = str(Path(__file__).parents[1] / "reporting")
SPIRAL = "my_spiral:Spiral(turns=3)"


@pytest.fixture
def here(tmp_path):
  """A user's folder: config files, texts and, elsewhere, a module of their own."""
  shutil.copytree(Path(__file__).parents[1] / "user", tmp_path, dirs_exist_ok=True)
  (tmp_path / "text").mkdir()
  for n in range(3):
    text = " ".join(f"{word} über {word * word % 97}" for word in range(n, 400 + n))
    (tmp_path / "text" / f"{n}.txt").write_text(text, encoding="utf-8")
  return tmp_path


def variables(here):
  """Returns the environment of a user's command."""
  # One device, and programs that are compiled quickly rather than well.
  devices = r"--xla_force_host_platform_device_count=\d+"
  return {
    "XLA_FLAGS": re.sub(devices, "", os.environ["XLA_FLAGS"]),
    # A resumed run finds all programs of the one before.
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "PYTHONPATH": os.pathsep.join([str(here / "own"), ROOT, UNDRAWN]),
    "COLUMNS": "120",
  }


def check_end(done, code):
  """Checks how a command ended; returns its (stdout, stderr)."""
  assert done.returncode == code, done.stdout + done.stderr
  assert "Traceback" not in done.stdout + done.stderr
  return done.stdout, done.stderr


@pytest.fixture
def forked(here, commands):
  """Runs a sweep in the user's folder; returns its (stdout, stderr)."""

  def call(*words, code=0, **more):
    environment = variables(here) | more
    done = commands.run("experiments.sweep", *words, cwd=here, environment=environment)
    return check_end(done, code)

  return call


@pytest.fixture
def alone(here):
  """Does the same in a process that nothing was done for before."""

  def call(*words, code=0, **more):
    done = subprocess.run(
      [sys.executable, "-m", "experiments.sweep", *words],
      cwd=here,
      env=os.environ | variables(here) | more,
      capture_output=True,
      text=True,
      timeout=480,
    )
    return check_end(done, code)

  return call


@pytest.fixture
def asked(here, monkeypatch):
  """Reads a command line, for a command inside this process."""
  monkeypatch.chdir(here)
  monkeypatch.syspath_prepend(here / "own")

  def request(*words):
    values = absl_flags.FlagValues()
    argv = flags.config_first(["command", "--config=question.py", *words])
    flags.define(argv, values)
    return flags.parse(argv, values)

  return request


def named(workdir):
  """Returns the run folders by "group label"."""
  rows = read_json(workdir / "sweep.json")["runs"]
  return {f"{r['group']} {r['label']}": workdir / "runs" / r["id"] for r in rows}


def measured(folder):
  """Returns what a run computed, without how long it took."""
  result = read_json(folder / "result.json")
  rows = metrics_log.read(folder / "metrics.jsonl")
  rows = [{k: v for k, v in row.items() if k != "tokens_per_s"} for row in rows]
  return {key: result[key] for key in ("seeds", "scores", "diverged", "data")}, rows


def contents(folder):
  """Returns the files of a folder, but for Python's own and who claimed a run last."""
  files = [path for path in folder.rglob("*.*") if path.is_file()]
  left_out = ".claim.", ".pyc"
  return {
    path: path.read_bytes()
    for path in files
    if not any(part in path.name for part in left_out)
  }


# What a plan of question.py holds: its runs by "group label".
PLANS = {
  "quick": (f"text {SPIRAL}", "copy learned"),
  "sweep": ("text none", "text learned", f"text {SPIRAL}")
  + ("copy none", "copy learned", f"copy {SPIRAL}"),
}


@pytest.mark.timeout(600)  # six runs in a process of their own, two minutes of one core
@pytest.mark.parametrize(
  "plan", ["quick", pytest.param("sweep", marks=pytest.mark.slow)]
)
def test_a_sweep_answers_once_and_keeps_what_it_found(
  forked, here, asked, monkeypatch, capfd, plan
):
  lengths = {"quick": (1, 2), "sweep": (1, 2, 4)}[plan]
  names, words = PLANS[plan], ("--workdir=out", f"--plan={plan}", "--workers=2")
  words += (f"--config.evaluate.lengths={lengths}".replace(" ", ""),)
  said, noise = forked("--config=question.py", *words)
  assert noise == ""
  check_report(here / "out", said, names)
  check_runs(here / "out", names, lengths)
  again = lambda: sweep.main(asked(*words))
  check_second(here / "out", again, names, monkeypatch, capfd)
  with monkeypatch.context() as patch:  # reports of failures are checked below
    patch.setattr(sweep_loop, "report", lambda *_: True)
    check_edited(here / "out", again, names, capfd)


def check_report(workdir, said, names):
  assert f"{len(names)} runs in out\n" in said
  number = 1 + names.index(f"text {SPIRAL}")
  assert f"[{number}/{len(names)}] text {SPIRAL}  64/64  loss " in said
  assert said.endswith(f"\nreport: {Path('out', 'report.html')}\n")
  assert re.search(rf"\n{re.escape(SPIRAL)} .*\d ± \d", said)
  assert "\n\ncopy: accuracy (higher is better)" in said  # tables stand apart
  plots = ("length_curves", "differences", "training_curves")
  files = {f"{plot}_{group}.png" for plot in plots for group in ("text", "copy")}
  if len(names) == 2:  # nothing to differ from
    files -= {"differences_text.png", "differences_copy.png"}
  files |= {"results.csv", "tables.md", "tables.tex"}
  assert not files - {path.name for path in workdir.iterdir() if path.stat().st_size}
  page = (workdir / "report.html").read_text()
  assert "Which of my encodings reads further?" in page
  assert SPIRAL in (workdir / "results.csv").read_text()


def check_runs(workdir, names, lengths):
  folders = named(workdir)
  assert tuple(folders) == names
  for name, folder in folders.items():
    result, rows = measured(folder)
    assert [row["step"] for row in rows if row["seed"] == 1] == [*range(8, 65, 8)]
    assert rows[0]["loss"] > rows[-2]["loss"] and not result["diverged"]
    n = 8 if "text" in name else 4
    want = {n} if "learned" in name else {n * times for times in lengths}
    assert {s["length"] for s in result["scores"] if s["value"] is not None} == want


def check_second(workdir, again, names, monkeypatch, capfd):
  before = {folder: contents(folder) for folder in named(workdir).values()}
  (workdir / "report.html").unlink()
  with monkeypatch.context() as patch:
    patch.setattr(train, "run", None)  # nothing trains
    assert again() == 0
  said, noise = capfd.readouterr()
  count = len(names)
  assert f"{count} runs in out, {count} of them finished before and skipped\n" in said
  assert noise == "" and (workdir / "report.html").exists()
  assert {folder: contents(folder) for folder in before} == before


def check_edited(workdir, again, names, capfd):
  folder = named(workdir)["copy learned"]
  config = read_json(folder / "config.json") | {"model.width": 32}
  write_json(folder / "config.json", config)
  before = contents(folder)
  assert again() == 1
  said, noise = capfd.readouterr()
  line = f"[{1 + names.index('copy learned')}/{len(names)}] copy learned: failed: "
  assert f"{line}out/runs/{folder.name} holds a run of another" in said
  assert noise == "" and said.count(": finished before") == len(names) - 1
  assert "model.width: there 32, now 16\nChoose another --workdir" in said
  assert contents(folder) == before


# What ends the process after which step, with which exit code.
STOPS = {"24 SIGKILL": -9, "40 full": 1, "48 SIGTERM": 143, "56 SIGINT": 130}
ALONE = ("task=copy", "train.length=4", "model.position=none", "evaluate.lengths=(1,)")
ALONE = [f"--config.{each}" for each in ALONE]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
  ("start", "stops"),
  [
    # Signals that ask a sweep to stop have quick tests in test_sweep.
    ("forked", ("24 SIGKILL", "40 full")),
    pytest.param("alone", tuple(STOPS), marks=pytest.mark.slow),
  ],
)
def test_whatever_stops_a_run_the_same_command_ends_with_the_same_numbers(
  request, here, start, stops
):
  sweep = request.getfixturevalue(start)
  sweep = functools.partial(sweep, "--config=question.py", UNDRAWN="1")
  said, _ = sweep("--workdir=whole", *ALONE, PYTHONIOENCODING="ascii")
  assert "+-" in said and said.endswith("\nreport: whole/report.html\n")
  # How often it saves is no part of what it is.
  words = ["--workdir=broken", *ALONE, "--config.train.checkpoint_every=8"]
  saw = {trap: sweep(*words, code=STOPS[trap], TRAP=trap) for trap in stops}
  (whole,), (broken,) = (named(here / name).values() for name in ("whole", "broken"))
  folders = (broken / "checkpoints").iterdir()
  newest = max(int(path.name) for path in folders if path.name.isdigit())
  flip_a_bit(largest(broken / "checkpoints" / str(newest)))
  said, noise = saw["last"] = sweep(*words)
  assert measured(broken) == measured(whole)
  assert read_json(broken / "status.json")["attempts"] == 1 + len(stops)
  damaged = rf"checkpoint .*/{newest} is damaged \(.*, using the one before\n"
  assert re.fullmatch(damaged, noise)
  check_resumed(saw.values(), newest)
  check_full_disk(*saw["40 full"])
  for trap in stops[2:]:
    (said, noise), name = saw[trap], trap.split()[1]
    assert noise.startswith(f"\n{name}: saving after this dispatch; ")
    _, _, line = said.partition(f"stopped by {name}; the same command continues:\n")
    python, m, module, config, *rest = shlex.split(line)
    assert [python, m, module] == ["python", "-m", "experiments.sweep"]
    assert config == "--config=question.py" and sorted(rest) == sorted(words)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_that_are_stopped_go_on_to_the_numbers_of_one(forked, here):
  words = ("--config=question.py", "--plan=quick", "--config.evaluate.lengths=(1,)")
  forked(*words, "--workdir=whole", "--workers=1")
  words += ("--workdir=broken", "--workers=2")
  said, noise = forked(*words, code=130, TRAP_PARENT="24 SIGINT")
  assert noise.count("SIGINT: saving after this dispatch") == 1
  states = {
    read_json(f / "status.json")["state"] for f in named(here / "broken").values()
  }
  assert "interrupted" in states and states <= {"interrupted", "finished"}
  said, noise = forked(*words)
  assert "resumed from step " in said and noise == ""
  whole, broken = (named(here / name) for name in ("whole", "broken"))
  for name in PLANS["quick"]:
    assert measured(broken[name]) == measured(whole[name])


NARROW = """
import os, runpy, sys
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:{cores}])
runpy.run_module("experiments.sweep", run_name="__main__", alter_sys=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(
  not hasattr(os, "sched_setaffinity") or process.available() < 2,
  reason="compares processes that may use one and two cores",
)
def test_a_run_has_the_same_bits_on_one_and_on_two_cores(commands, here):
  for cores in (1, 2):
    words = ("--config=question.py", f"--workdir={cores}", *ALONE)
    environment = variables(here) | {"NPROC": None}
    code = NARROW.format(cores=cores)
    check_end(commands.run(*words, code=code, cwd=here, environment=environment), 0)
  (one,), (two,) = (named(here / name).values() for name in ("1", "2"))
  assert measured(one) == measured(two)
  results = [read_json(folder / "result.json") for folder in (one, two)]
  assert [result["cores"] for result in results] == [1, 1]
  assert results[0]["device"].endswith(", 1 core")


def check_resumed(saw, newest):
  """A save under way may be lost with its process, never the one before."""
  first, *then = (re.findall(r"resumed from step (\d+)\n", said) for said, _ in saw)
  assert first == [] and then[0] in (["8"], ["16"])
  assert then[-1] == [str(newest - 8)]
  if len(then) > 2:
    assert then[1] in (["24"], ["32"]) and then[2:] == [["48"]] * len(then[2:])


def check_full_disk(said, noise):
  (failed,) = re.findall("failed: .*", said)
  assert "File too large" in failed and failed.endswith("free some space and run again")
  assert "step 48 could not be saved in" in noise and "tensorboard" not in noise


@pytest.mark.parametrize(
  "plan", ["quick", pytest.param("sweep", marks=pytest.mark.slow)]
)
def test_a_run_that_fails_or_diverges_stops_no_other(forked, here, plan):
  words = ("--config=trouble.py", "--workdir=out", "--config.evaluate.lengths=(1,)")
  words += (f"--plan={plan}",)
  # The slow plan shares its runs among processes, which take seconds to start.
  words += ("--workers=1",) if plan == "quick" else ()
  said, noise = forked(*words, code=1, UNDRAWN="1")
  assert noise == ""
  folders = [*named(here / "out").values()]
  states = [read_json(folder / "status.json")["state"] for folder in folders]
  broken, one = folders[:2] if plan == "quick" else folders[1:3]
  place = folders.index(broken)
  wanted = ["finished"] * len(folders)
  wanted[place] = "failed"
  assert states == wanted
  number = f"[{1 + place}/{len(folders)}]"
  line = f"{number} copy my_spiral:Broken: failed: RuntimeError: no such turn\n"
  assert line in said
  assert "in rotate\n" in (broken / "error.txt").read_text()

  result, rows = measured(one)
  assert result["diverged"] == {"0": 4}  # the first batch that draws more than 0.95
  well = {s["seed"] for s in result["scores"] if s["value"] is not None}
  assert well == {1} and all(math.isfinite(r["loss"]) for r in rows if r["seed"] == 1)
  lost = ["seed 0 at step 4", "RuntimeError: no such turn"]
  if plan == "sweep":
    assert measured(folders[3])[0]["diverged"] == {"0": 1, "1": 1}
    assert "16/16  diverged 2 of 2 seeds" in said
    lost.append("seed 1 at step 1")
  assert re.search(r"16/16  loss \d\.\d+  diverged 1 of 2 seeds", said)
  for text in (said, (here / "out" / "report.html").read_text()):
    for words in lost:
      assert words in text


BAD = {
  "nowhere": (None, "there is no file or folder 'nowhere' in "),
  "empty.txt": (b"", "'empty.txt' is empty; "),
  "latin.txt": ("für".encode("latin-1"), "'latin.txt' is not UTF-8 at byte 1 ("),
  "short.txt": (b"too short", "'short.txt' has 9 bytes and no document in its test"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_text_is_said_in_one_line(here, asked, capfd, name):
  content, says = BAD[name]
  if content is not None:
    (here / name).write_bytes(content)
  task = f"text({name!r}, window=32, scored=8)"
  assert run.main(asked("--workdir=out", f"--config.task={task}")) == 1
  said, noise = capfd.readouterr()
  _, line, *_ = said.splitlines()
  # A task that the plan has not is a group of its own.
  assert line.startswith(f"[1/1] {task} rope: failed: DataError: ") and says in line
  assert "Traceback" not in said and noise == ""
  (folder,) = named(here / "out").values()
  assert read_json(folder / "status.json")["state"] == "failed"


def test_an_unusable_workdir_and_a_dry_run_leave_nothing(here, asked, capfd):
  words = ("--workdir=question.py/in", "--config.model.position=alibi", *ALONE[:2])
  before = contents(here)
  with pytest.raises(ConfigError, match="--workdir=question.py/in: .* directory"):
    run.main(asked(*words))
  assert run.main(asked("--dry_run", *words)) == 0
  said, noise = capfd.readouterr()
  assert re.search(r"copy alibi .*\n  [\d,]+ parameters .*; [\d,]+ FLOPs per", said)
  assert "train.steps = 64\n" in said and noise == ""
  assert contents(here) == before
