"""Real slices: the training steps of small runs, compiled by libtpu for TPUs.

`make test-all` installs libtpu first. Without it these tests fail and say so.
"""

import json
import os
import subprocess
import sys

import pytest

CHIPS = {"v5e:2x2": 4, "v5e:4x4": 16, "v5e:16x16": 256, "v5p:4x4x4": 64, "v6e:4x4": 16}
WIDE = ("--config.mesh.data=-1", "--config.train.batch_size=256")
WIDE += ("--config.evaluate.batch_size=256", "--config.evaluate.examples=256")
ONE = ("--groups=copy", "--config.model.position=none")  # of the quickstart


def estimated(folder, *words):
  """Returns the figures of a command's runs, after it exited with 0."""
  file = folder / "figures.json"
  done = subprocess.run(
    [sys.executable, "-m", "experiments.estimate", f"--json={file}", *words],
    capture_output=True,
    text=True,
    timeout=270,
    env={name: x for name, x in os.environ.items() if name != "XLA_FLAGS"},
  )
  assert done.returncode == 0, done.stderr
  return json.loads(file.read_text()), done.stdout


@pytest.mark.slow  # 15 to 40 s each
@pytest.mark.parametrize("name", CHIPS)
def test_a_training_step_is_compiled_for_a_slice(tmp_path, name):
  found, printed = estimated(tmp_path, f"--topology={name}", *ONE, *WIDE)
  (run,) = found["runs"]
  compiled, counted = run["compiled"], run["counted"]
  assert found["chips"] == counted["devices"] == CHIPS[name]
  assert compiled["fits"] and 0 < compiled["peak_bytes"] < 2**30
  # All three seeds in one program: parameters and two moments of each, on each device.
  state = 3 * 3 * 4 * counted["parameters"]
  assert state <= compiled["argument_bytes"] <= 2 * state  # small arrays fill tiles
  # Gradients of all seeds are summed over the ring, once in a step.
  gradient = 2 * 3 * 4 * counted["parameters"] * (1 - 1 / CHIPS[name])
  assert gradient <= compiled["sent_bytes_all_reduce"] <= 1.3 * gradient
  assert run["estimated"]["seconds"] > 0 and f"Compiled for {name}" in printed


PLAN = """
from experiments.configs import quickstart
from experiments.setup.plan import Grid, Plan

def get_config():
  config = quickstart.get_config()
  config.seeds = (0,)
  config.model.update(width=512, feedforward=2048)
  return config

def sweep():
  return Plan("Which?", Grid({"mesh.fsdp": (1, 4)}), baseline="fsdp=1")
"""


@pytest.mark.slow  # 30 s
def test_memory_falls_with_fsdp(tmp_path):
  file = tmp_path / "wide.py"
  file.write_text(PLAN)
  found, _ = estimated(tmp_path, f"--config={file}", "--topology=v5e:2x2")
  one, four = (run["compiled"]["argument_bytes"] for run in found["runs"])
  parameters = found["runs"][0]["counted"]["parameters"]
  assert one == pytest.approx(3 * 4 * parameters, rel=0.1)
  assert four < one / 3.5
  for facts in (run["compiled"]["facts"] for run in found["runs"]):
    assert facts["host"] == facts["float64"] == []
    assert facts["undonated"] < 2**20  # metrics: parameters and moments are in place
    assert facts["cycles"]["products"] > 0 and facts["logits"] > 0
  gathered = found["runs"][1]["compiled"]["facts"]["overlap"]
  assert any(kind.startswith("all-gather") for kind in gathered)


@pytest.mark.slow  # 30 s
def test_the_smallest_slice_that_holds_a_run_is_found(tmp_path):
  found, printed = estimated(tmp_path, "--topology=v5e:2x2", "--smallest", *ONE)
  (run,) = found["runs"]
  assert run["estimated"]["smallest"] == "v5e:1x1" and "v5e:1x1" in printed


@pytest.mark.slow  # 30 s
def test_seeds_on_devices_of_their_own_send_each_other_nothing(tmp_path):
  words = ("--config.seeds=0..3", "--config.mesh.seed=4")
  found, _ = estimated(tmp_path, "--topology=v5e:2x2", *ONE, *words)
  (run,) = found["runs"]
  assert not [key for key in run["compiled"] if key.startswith("sent")]
  # Parameters and moments of one seed on each device.
  state = 3 * 4 * run["counted"]["parameters"]
  assert state <= run["compiled"]["argument_bytes"] <= 2 * state


@pytest.mark.slow  # 20 s
def test_what_does_not_fit_is_an_answer_and_no_failure(tmp_path):
  words = ("--config.model.width=16384", "--config.model.feedforward=65536")
  found, printed = estimated(tmp_path, "--topology=v5e:2x2", *ONE, *words)
  (run,) = found["runs"]
  needed = 3 * 3 * 4 * run["counted"]["parameters"]
  assert not run["compiled"]["fits"] and run["compiled"]["peak_bytes"] >= 0.9 * needed
  assert run["compiled"]["hbm_bytes"] == 15.75 * 2**30
  assert run["estimated"] == {} and "0 of 1 variants fit" in printed


@pytest.mark.slow  # 30 s
def test_a_mixer_is_compiled_for_chips_that_split_a_text(tmp_path):
  """Chips send states and the last tokens of convolutions: less than the text."""
  words = "--config.model.attention=gated_delta", "--config.model.layers=1"
  sizes = "--config.mesh.sequence=4", "--config.seeds=(0,)", "--config.train.length=64"
  found, _ = estimated(tmp_path, "--topology=v5e:2x2", *ONE, *words, *sizes)
  compiled = found["runs"][0]["compiled"]
  assert compiled["fits"] and compiled["sent_bytes_collective_permute"] > 0


FACTS = """
from experiments.configs import quickstart
from experiments.setup.plan import Grid, Plan

def get_config():
  config = quickstart.get_config()
  config.seeds = (0,)
  config.task = "copy"
  config.model.update(width=512, heads=4, feedforward=2048, layers=4, position="none")
  config.model.update(dtype="bfloat16", scan=True, remat="full")
  config.train.update(length=64, batch_size=64)
  return config

def sweep():
  return Plan(
    question="Which mesh?", runs=Grid({"mesh.fsdp": (1, 16)}), baseline="fsdp=1"
  )
"""


@pytest.mark.slow  # 60 s: two steps
@pytest.mark.parametrize("name", ["v5e:4x4", "v6e:4x4"])
def test_a_split_step_has_the_products_of_a_whole_one(tmp_path, name):
  """No product is divided by `fsdp`, whose parts would each add to the whole result."""
  config = tmp_path / "meshes.py"
  config.write_text(FACTS)
  words = (f"--config={config}", f"--topology={name}", "--config.mesh.data=-1")
  found, _ = estimated(tmp_path, *words)
  whole, split = (run["compiled"]["facts"] for run in found["runs"])
  assert split["products"] <= whole["products"] + 2
  sent = {kind: each["sent"] for kind, each in split["overlap"].items()}
  assert sent["reduce-scatter"] > 3 * sent.get("all-reduce", 0)
  for each in (whole, split):
    assert not each["host"] and not each["float64"]
    assert each["undonated"] < 10_000 and each["float32"] == 0
