"""The benchmark of an accelerator: what it compares, its turns, its budget, its page.

Nothing is timed and no device is here: the kernels are interpreted, the driver gets
workers that answer at once, and the whole command runs once, slowly, as a rehearsal.
"""

import json
import subprocess
import sys

import numpy as np
import pytest
from absl.testing import flagsaver

from experiments.bench import __main__ as bench
from experiments.bench import (
  aot_gpu,
  device_command,
  device_compare,
  device_markdown,
  device_runner,
  device_worker,
  peaks,
  runner,
)
from experiments.bench.device_compare import MODES, ComparedShape
from experiments.bench.device_groups import DevicePlan
from experiments.bench.worker import WorkerError

SMALL = ComparedShape(L=20, H=4, G=2, K=8, window=7)
VERSIONS = {"device": "1 x gpu NVIDIA H200", "platform": "gpu", "kind": "NVIDIA H200"}
VERSIONS |= {"jax": "0.10.2"}
PASSED = {"passed": True, "worst": "q", "error": 1e-5, "tolerance": 1e-4}


# ------------------------------------------------------------------- comparison


def test_a_core_in_tiles_equals_dense_in_a_mode():
  scheme = SMALL.scheme("none", "float32", "gqa")
  assert scheme.dims.G == 2 and scheme.L == 20 and not scheme.shared
  found = device_compare._outcome("blockwise(block=7)", scheme)
  assert found["passed"] and 0 < found["error"] < 1e-5, found


@pytest.mark.slow
@pytest.mark.parametrize("core", ["pallas_gpu(block=8)", "pallas_tpu(block=8)"])
def test_an_interpreted_kernel_passes_every_mode_in_both_types(core):
  outcomes = device_compare.compare("t5", core, SMALL)
  assert len(outcomes) == 8 and all(x["passed"] for x in outcomes.values()), outcomes


def test_modes_differ_in_what_is_compiled():
  schemes = {mode: SMALL.scheme("t5", "bfloat16", mode) for mode in MODES}
  assert schemes["packed"].shared and not schemes["train"].shared
  assert schemes["window"].variant.width == 7
  assert len({*schemes.values()}) == 4


def outcome(monkeypatch, wrong, usual=None):
  """Returns the outcome where arrays stand in for computed ones."""
  right = {"output": np.ones(4), "gradient of q": np.full(4, 100.0)}
  scheme = SMALL.scheme("none", "float32", "train")
  reference = right, right | (usual or {})
  monkeypatch.setattr(device_compare, "_reference", lambda scheme: reference)
  monkeypatch.setattr(device_compare.trial, "run", lambda *given: right | wrong)
  return device_compare._outcome("blockwise", scheme)


def test_wrong_values_wrong_gradients_and_nan_do_not_pass(monkeypatch):
  assert outcome(monkeypatch, {"output": np.full(4, 1 + 1e-6)})["passed"]
  for name, off in (("output", 1e-3), ("gradient of q", 0.1), ("output", np.nan)):
    size = 100.0 if "q" in name else 1.0
    found = outcome(monkeypatch, {name: np.full(4, size + off)})
    assert not found["passed"] and found["worst"] == name, (name, off)


def test_a_core_may_be_off_by_some_of_what_dense_is_off(monkeypatch):
  off = {"output": np.full(4, 1.01)}
  assert outcome(monkeypatch, off, usual=off)["passed"]
  assert not outcome(monkeypatch, off)["passed"]


def test_a_core_that_raises_has_failed(monkeypatch):
  def raising(*given):
    raise RuntimeError("out of shared\nmemory")

  monkeypatch.setattr(device_compare, "_reference", lambda scheme: (None, None))
  monkeypatch.setattr(device_compare.trial, "run", raising)
  found = device_compare._outcome("blockwise", SMALL.scheme("none", "float32", "gqa"))
  assert found == {"failed": "RuntimeError: out of shared memory"}


def test_a_type_that_a_core_does_not_take_is_refused():
  found = device_compare._outcome("cudnn", SMALL.scheme("none", "float32", "train"))
  assert "cudnn runs on NVIDIA GPUs and this is a CPU" in found["refused"]


def test_a_core_that_refuses_an_encoding_is_not_run():
  outcomes = device_compare.compare("cope", "blockwise", SMALL)
  assert len(outcomes) == 8
  assert all("whole rows" in x["refused"] for x in outcomes.values())


# ------------------------------------------------------------------------ driver


class FakeWorker:
  """Worker whose comparisons pass and whose calls take a second.

  answers   {(case, encoding or remat, core): facts, or an error} that differ
  """

  ended = False

  def __init__(self, answers, log):
    self.answers, self.log = answers, log

  def versions(self):
    return VERSIONS

  def prepare(self, slot, case, **args):
    key = case, args.get("encoding") or args.get("remat"), slot
    self.log.append(key)
    answer = self.answers.get(key)
    if isinstance(answer, Exception):
      raise answer
    if case == "compare":
      return answer or {f"float32 {mode}": PASSED for mode in MODES}
    return {"calls": 10, "flops": 1e12, "peak": 989e12, "temporary_bytes": 2**20} | (
      {"tokens": 1000, "core": "auto"} if case == "step" else {}
    )

  def first(self, slot):
    return {"seconds": 1.0, "bytes": None}

  def seconds(self, slot):
    return 1.0

  def drop(self, slot):
    pass

  def close(self):
    self.log.append("closed")


class Driven:
  """The driver with fake workers, a file and a clock that moves with each request."""

  def __init__(self, path, answers=None, minutes=60.0, encodings=("none", "shaw")):
    self.log, self.now = [], 0.0
    store = device_command._store(path, VERSIONS)
    deadline = device_runner.Deadline(minutes, clock=self.clock)
    plan = DevicePlan("gpu", encodings)
    start = lambda side: FakeWorker(answers or {}, self.log)
    self.bench = device_runner.DeviceBench(store, plan, start, deadline)
    self.left = self.bench.run()
    self.cases = [x for x in self.log if x != "closed"]
    self.sections = store.figures["sections"]

  def clock(self):
    self.now += 1.0
    return self.now


@pytest.fixture(autouse=True)
def quick(monkeypatch):
  monkeypatch.setattr(runner, "SETTLE", 0.0)
  monkeypatch.setattr(runner, "busy", lambda: 0.0)
  monkeypatch.setattr(device_runner.provenance, "commit", lambda: ("abc", b""))


def test_what_is_timed_is_compared_first_and_the_rest_last(tmp_path):
  done = Driven(tmp_path / "f.json")
  assert done.left == []
  assert done.cases[0] == ("compare", "none", "pallas_gpu")
  assert done.cases[-1] == ("compare", "shaw", "blockwise")
  assert [*done.sections["speed"]] == ["L=4096 none", "L=16384 none", "L=1024 none"]
  assert {*done.sections["step"]["pod"]["times"]} == {"remat=full", "remat=none"}
  names = [*done.sections["speed"]["L=4096 none"]["times"]]
  assert names == ["pallas_gpu", "cudnn", "blockwise", "dense", "jax.nn"]
  assert done.sections["compare"]["shaw"]["commit"] == "abc"


def test_a_second_run_skips_what_is_there_and_tries_failures_again(tmp_path):
  hangs = {("compare", "none", "cudnn"): WorkerError("no answer within 150 s")}
  first = Driven(tmp_path / "f.json", hangs)
  assert first.sections["compare"]["none"]["errors"] == {
    "cudnn": "no answer within 150 s"
  }
  again = Driven(tmp_path / "f.json")
  assert again.cases == [
    ("compare", "none", core) for core in ("pallas_gpu", "cudnn", "blockwise")
  ]
  assert Driven(tmp_path / "f.json").cases == []


def test_figures_of_another_commit_are_measured_again(tmp_path, monkeypatch):
  count = len(Driven(tmp_path / "f.json").cases)
  monkeypatch.setattr(device_runner.provenance, "commit", lambda: ("def", b""))
  assert len(Driven(tmp_path / "f.json").cases) == count


def test_the_deadline_stops_between_groups_and_says_what_is_left(tmp_path):
  done = Driven(tmp_path / "f.json", minutes=0.06)
  assert done.left and "compare shaw" in done.left
  assert "compare none" not in done.left
  rest = Driven(tmp_path / "f.json")
  assert rest.left == [] and ("compare", "none", "cudnn") not in rest.cases


def test_a_device_that_failed_gets_a_new_process(tmp_path):
  failed = {"float32 train": {"failed": "JaxRuntimeError: illegal address"}}
  done = Driven(tmp_path / "f.json", {("compare", "none", "pallas_gpu"): failed})
  at = done.log.index(("compare", "none", "cudnn"))
  assert done.log[at - 1] == "closed"


def test_an_answer_that_does_not_come_ends_the_worker():
  program = "import sys, time; sys.stdin.readline(); time.sleep(60)"
  worker = device_runner.PatientWorker([sys.executable, "-c", program], None, lambda: 1)
  with worker, pytest.raises(WorkerError, match="no answer within 1 s"):
    worker.prepare("a", "compare")


# ----------------------------------------------------------------------- command


@pytest.fixture
def command(monkeypatch, tmp_path):
  """Returns `measure` with fake workers and a file."""

  def run(versions=VERSIONS, answers=None, **changes):
    worker = FakeWorker(answers or {}, [])
    worker.versions = lambda: versions
    monkeypatch.setattr(device_command, "_start", lambda *args: worker)
    output = str(tmp_path / "figures.json")
    given = {"output": output, "minutes": 8.0, "tiny": False, "torch_python": ""}
    return device_command.measure(**given | changes, names=("none",))

  return run


CPU = {"device": "cpu: AMD EPYC, 2 cores", "platform": "cpu", "kind": "cpu"}


@pytest.mark.parametrize(
  ("versions", "changes", "words"),
  [
    (CPU, {}, "there is no accelerator here .cpu: AMD EPYC, 2 cores.*--device --tiny"),
    (VERSIONS, {"tiny": True}, "--tiny is for a CPU.*leave it out"),
    (VERSIONS, {"minutes": 0.0}, "--minutes=0: write a number above 0, as 8"),
    (VERSIONS, {"torch_python": "no/python"}, "--torch_python=no/python: there is no"),
  ],
)
def test_bad_input_is_one_sentence(command, versions, changes, words):
  with pytest.raises(ValueError, match=words) as caught:
    command(versions, **changes)
  assert "\n" not in str(caught.value)


def test_figures_of_two_devices_are_not_mixed(command):
  command()
  other = VERSIONS | {"device": "4 x tpu TPU v5 lite", "platform": "tpu"}
  with pytest.raises(ValueError, match="are of 1 x gpu NVIDIA H200, and this is 4 x"):
    command(other)


def test_two_benchmarks_do_not_write_one_file(command, tmp_path):
  path = tmp_path / "figures.json"
  with device_command.alone(path):
    with pytest.raises(ValueError, match="figures.json: another benchmark is writing"):
      command()
    with device_command.alone(tmp_path / "other.json"):
      pass
  assert command() == 0 and not [*tmp_path.glob(".*")]


def test_a_result_that_differs_is_listed_and_ends_with_one(command, capsys, tmp_path):
  assert command() == 0
  wrong = {"bfloat16 gqa": PASSED | {"passed": False}}
  answers = {("compare", "none", "pallas_gpu"): wrong}
  assert command(answers=answers, output=str(tmp_path / "other.json")) == 1
  assert "none: pallas_gpu bfloat16 gqa" in capsys.readouterr().err


@pytest.mark.parametrize(
  ("words", "said"),
  [
    (["--tiny"], "--tiny is of --device: write --device too"),
    (["--minutes=2"], "--minutes is of --device: write --device too"),
    (["--device", "--encodings=rpoe"], "rpoe"),
  ],
)
def test_flags_of_the_device_are_checked(words, said, capsys):
  with flagsaver.flagsaver(), pytest.raises(SystemExit) as stopped:
    bench.command.run(bench.main, (ValueError,), argv=["bench", *words])
  error = capsys.readouterr().err
  assert stopped.value.code == 2 and said in error and "Traceback" not in error


def test_peaks_are_found_by_the_longest_name():
  assert peaks.peak_of("NVIDIA H100 PCIe") == 756e12
  assert peaks.peak_of("NVIDIA A100-SXM4-80GB") == 312e12
  assert peaks.peak_of("TPU v5 lite") == 197e12
  assert peaks.peak_of("TPU v5p") is None or peaks.peak_of("TPU v5p") == 459e12
  assert peaks.peak_of("NVIDIA L40S") is None


def test_a_program_that_is_slow_or_large_is_left_out(monkeypatch):
  monkeypatch.setattr(device_worker, "LONGEST", -1.0)
  with pytest.raises(ValueError, match="left out: one call takes"):
    device_worker.repeated(lambda: None, {})

  class Small:
    def memory_stats(self):
      return {"bytes_limit": 2**30}

  monkeypatch.setattr(device_worker.jax, "devices", lambda: [Small()])
  device_worker._require_memory(2**29)
  with pytest.raises(ValueError, match="left out: it needs 2 GiB of 1"):
    device_worker._require_memory(2**31)


def test_jax_s_own_function_takes_the_bias_and_returns_its_gradient():
  run, facts = device_worker.attention("t5", "jax.nn", B=1, L=16, H=2, K=8)
  assert facts["flops"] == 7 * 2 * 8 * 16 * 16 and facts["peak"] is None
  run()


# -------------------------------------------------------------------------- page


def test_the_page_says_that_no_accelerator_has_run_it(tmp_path):
  assert device_markdown.accelerators(tmp_path) == device_markdown.NONE_YET


def test_a_process_that_ends_while_it_is_timed_leaves_a_row(tmp_path, monkeypatch):
  def ended(group, sides):
    raise WorkerError("the process ended with -6")

  monkeypatch.setattr(runner, "measured", ended)
  Driven(tmp_path / "device_nvidia_h200.json")
  page = device_markdown.accelerators(tmp_path)
  assert "| `none` | 4,096 | all of them | the process ended with -6 | – | – |" in page
  assert "| all of them | the process ended with -6 | – | – |\n" in page


def test_figures_become_tables_with_device_and_commit(tmp_path):
  wrong = {"float32 train": PASSED, "float32 gqa": PASSED | {"passed": False}}
  answers = {
    ("compare", "shaw", "pallas_gpu"): wrong,
    ("compare", "shaw", "cudnn"): {"float32 train": {"refused": "shaw changes"}},
    ("attention", "none", "dense"): WorkerError("left out: it needs 99 GiB"),
  }
  Driven(tmp_path / "device_nvidia_h200.json", answers)
  page = device_markdown.accelerators(tmp_path)
  assert "### NVIDIA H200" in page and "jax 0.10.2; commit abc" in page
  assert "| `shaw` | **differs**: float32 gqa | refused | equal in 4 of 4" in page
  assert "| `none` | 4,096 | `pallas_gpu` | 100 [100, 100] | 1% | 1 |" in page
  assert "| `none` | 4,096 | `dense` | left out: it needs 99 GiB | – | – |" in page
  assert "| `remat=full` | `auto` | 10,000 | 1.0% |" in page


def test_programs_for_an_h100_make_a_table():
  results = {
    "t5": {"temporary_bytes": 2**20, "compile_seconds": 9.7, "jax": "0.10.2"},
    "cope": aot_gpu.compiled_for_h100("cope"),
    "deberta": {"failed": "RESOURCE_EXHAUSTED: Shared memory"},
  }
  lines = aot_gpu.lines(results).splitlines()[2:]
  assert lines[0].startswith("| `cope` | refused: cope looks at whole rows")
  assert lines[1:] == [
    "| `deberta` | failed: RESOURCE_EXHAUSTED: Shared memory |  |  |",
    "| `t5` | 1.0 | 10 |  |",
  ]


# --------------------------------------------------------------------- rehearsal


@pytest.mark.slow
def test_the_whole_command_runs_on_a_cpu_and_goes_on_where_it_stopped(tmp_path):
  output = tmp_path / "device_rehearsal.json"
  words = [sys.executable, "-m", "experiments.bench", "--device", "--tiny"]
  words += ["--encodings=none", "--minutes=20", f"--output={output}"]
  run = lambda: subprocess.run(words, capture_output=True, text=True)
  done = run()
  assert done.returncode == 0, done.stdout + done.stderr
  figures = json.loads(output.read_text())
  groups = [g for section in figures["sections"].values() for g in section.values()]
  assert not [g["errors"] for g in groups if g["errors"]]
  assert len(figures["sections"]["compare"]["none"]["facts"]) == 4
  assert {*figures["sections"]} == {"compare", "speed", "step"}
  assert "splash" in figures["sections"]["speed"]["L=128 none"]["times"]
  assert "### cpu" in device_markdown.accelerators(tmp_path)
  again = run()
  assert again.returncode == 0 and "speed" not in again.stdout, again.stdout


@pytest.mark.parametrize("content", ["[]", "{}", '{"sections": 3}', "{half"])
def test_a_file_that_holds_no_figures_is_one_sentence(content, tmp_path):
  path = tmp_path / "figures.json"
  path.write_text(content)
  with pytest.raises(ValueError, match=r"write another file"):
    device_command._store(path, {"device": "a TPU"})
  with pytest.raises(ValueError, match=r"write another file"):
    device_command._store(tmp_path, {"device": "a TPU"})


def test_a_comparison_that_ended_its_worker_is_wrong():
  group = {"facts": {}, "errors": {"pallas_tpu": "the worker ended with code -6"}}
  assert device_runner.wrong_in(group) == ["pallas_tpu (the worker ended with code -6)"]
