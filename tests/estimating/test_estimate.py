"""The command, with CPU devices in place of a slice: figures, files, errors."""

import csv
import json

import jax
import pytest

from experiments import estimate
from experiments.configs import base
from experiments.estimating import compiler
from experiments.estimating.chips import topology
from experiments.estimating.roofline import Efficiency
from experiments.estimating.traffic import Traffic
from experiments.estimating.training_work import counted
from experiments.setup.command_line import Request
from experiments.setup.plan import Grid, Plan
from experiments.setup.validate import ConfigError, resolve
from transformer_jax.data.base import tasks

SMALL = {"model.width": 16, "model.heads": 2, "model.feedforward": 32}
SMALL |= {"train.batch_size": 8, "train.length": 4, "train.steps_per_dispatch": 4}
SMALL |= {"task": "copy", "seeds": (0,), "train.steps": 400, "mesh.data": -1}
FITS = compiler.Compiled(2**30, 2**34, 2**20, Traffic(1e9, {}, 0))


@pytest.fixture
def slice_of_cpus(monkeypatch):
  """A slice has the simulated devices of this process, as many as it has chips."""
  monkeypatch.setattr(compiler, "require", lambda: None)
  monkeypatch.setattr(compiler, "versions", lambda: {"jax": "1", "libtpu": "2"})
  monkeypatch.setattr(
    compiler, "devices_of", lambda topology: jax.devices()[: topology.chips]
  )


def asked(name="v5e:2x2", **more):
  given = {"price": 1.5, "efficiency": Efficiency(), "smallest": False, "files": {}}
  return estimate.Options(topology(name), **(given | more))


def requested(tmp_path, plan=None, **overrides):
  config = resolve(base.get_config(), SMALL)
  return Request(
    path=tmp_path / "mine.py",
    base=config,
    overrides=overrides,
    plan=plan,
    workdir=tmp_path,
    dry_run=False,
    retry=False,
  )


def figures(path):
  return json.loads(path.read_text())["runs"]


def test_a_plan_is_compiled_and_its_figures_are_marked(tmp_path, capsys, slice_of_cpus):
  encodings = Grid({"model.position": ("none", "rope")})
  plan = Plan("Which?", encodings, baseline="none")
  files = {"csv": tmp_path / "out.csv", "json": tmp_path / "out.json"}
  assert estimate.work(requested(tmp_path, plan), asked(files=files)) == 0
  printed = capsys.readouterr()
  assert "Compiled for v5e:2x2, 4 chips" in printed.out
  assert "nothing here was measured" in printed.out
  assert "all-reduce" in printed.out and "docs.cloud.google.com" in printed.out
  assert printed.err.count("\n") == 2
  assert "Steps of less than a millisecond take longer" in printed.out
  none, rope = figures(files["json"])
  assert (none["label"], rope["label"]) == ("none", "rope")
  counted, compiled, estimated = (none[x] for x in ("counted", "compiled", "estimated"))
  assert counted["steps"] == 400 and counted["devices"] == 4
  assert compiled["fits"] and compiled["sent_bytes_all_reduce"] > 0
  seconds = estimated["seconds"]
  assert seconds == max(estimated[x] for x in ("compute", "hbm", "interconnect"))
  assert estimated["chip_hours"] == pytest.approx(4 * seconds * 400 / 3600)
  assert estimated["cost"] == pytest.approx(1.5 * estimated["chip_hours"])
  lines = list(csv.DictReader(files["csv"].read_text().splitlines()))
  assert [line["label"] for line in lines] == ["none", "rope"]
  assert float(lines[0]["estimated.seconds"]) == seconds
  assert float(lines[1]["compiled.peak_bytes"]) == rope["compiled"]["peak_bytes"]


def test_arguments_are_parameters_and_moments_split_by_fsdp(slice_of_cpus):
  """Against sizes computed by hand: memory of the state falls with mesh.fsdp."""
  D, F, layers, V = 16, 32, 2, tasks.build("copy").vocabulary
  matrices = layers * (4 * D * D + 2 * D * F) + V * D
  vectors = (2 * layers + 1) * D  # gains of norms stay whole
  got = {}
  for fsdp in (1, 4):
    overrides = {"mesh.fsdp": fsdp, "mesh.data": 1}
    config = resolve(base.get_config(), SMALL | overrides)
    found = compiler.Compiler()(config, topology("v5e:2x2"))
    got[fsdp] = found.argument_bytes
    state = 3 * 4 * (matrices / fsdp + vectors)  # and Adam's two moments, in float32
    assert state <= got[fsdp] <= state + 64  # counters and the key
  assert got[4] < got[1] / 3


def test_a_step_waits_for_no_host_and_updates_its_state_in_place(slice_of_cpus):
  """Of eight devices; of the results only metrics get memory of their own."""
  more = {"mesh.fsdp": 2, "model.dtype": "bfloat16", "model.scan": True}
  config = resolve(base.get_config(), SMALL | more | {"model.remat": "full"})
  found = compiler.Compiler()(config, topology("v5e:2x4")).facts
  assert found.host == found.float64 == ()
  assert 0 < found.undonated < 100  # two metrics of four steps
  vocabulary = tasks.build(config.task).vocabulary
  assert 0 < found.logits <= 8 * 12 * vocabulary * 4


def test_flops_are_those_of_the_model_s_matrices_and_attention():
  """Six for each weight and token, twelve L D for each layer; by hand."""
  D, F, L, layers, V = 128, 512, 64, 2, 256
  sizes = {"model.width": D, "model.feedforward": F, "train.length": L}
  sizes |= {"model.layers": layers, "task": "text", "seeds": (0, 1)}
  config = resolve(base.get_config(), sizes | {"model.remat": "full"})
  found = counted(config, devices=1)
  weights = layers * (4 * D * D + 2 * D * F) + V * D
  token = 6 * weights + 12 * layers * L * D
  assert found.tokens == 2 * 32 * L and found.seeds == 2
  assert found.flops / found.tokens == pytest.approx(token, rel=0.05)
  again = (found.executed - found.flops) / found.tokens
  # All of a layer's forward pass but the last product, which no gradient reads.
  assert again == pytest.approx(
    layers * (2 * (4 * D * D + D * F) + 4 * L * D), rel=0.05
  )


def test_one_program_is_compiled_once(monkeypatch, slice_of_cpus):
  compiled = []
  monkeypatch.setattr(compiler, "compiled", lambda *args: compiled.append(0) or FITS)
  compile_once = compiler.Compiler()
  for overrides in ({}, {"train.checkpoint_every": 8}, {"evaluate.examples": 16}):
    config = resolve(base.get_config(), SMALL | overrides)
    compile_once(config, topology("v5e:2x2"))
  assert len(compiled) == 1
  compile_once(resolve(base.get_config(), SMALL), topology("v5e:2x4"))
  assert len(compiled) == 2


def test_a_run_that_does_not_fit_says_what_it_needs(
  tmp_path, capsys, monkeypatch, slice_of_cpus
):
  large = compiler.Compiled(34.7 * 2**30, 15.75 * 2**30, None, None)
  monkeypatch.setattr(
    compiler,
    "compiled",
    lambda lowered, steps, topology: FITS if topology.chips >= 8 else large,
  )
  file = tmp_path / "out.json"
  options = asked(smallest=True, files={"json": file})
  assert estimate.work(requested(tmp_path), options) == 0
  printed = capsys.readouterr().out
  assert "34.70" in printed and "-18.95" in printed and "v5e:2x4" in printed
  (run,) = figures(file)
  assert run["estimated"] == {"smallest": "v5e:2x4"} and not run["compiled"]["fits"]
  assert "0 of 1 variants fit" in printed


def test_idle_devices_are_named(tmp_path, capsys, monkeypatch, slice_of_cpus):
  monkeypatch.setattr(compiler, "compiled", lambda *args: FITS)
  overrides = {"mesh.data": 2}
  assert estimate.work(requested(tmp_path, **overrides), asked()) == 0
  assert "2 of 4 devices are idle" in capsys.readouterr().out.replace("\n", " ")


@pytest.mark.parametrize(
  "overrides, says",
  [
    ({"mesh.data": 8}, "--topology=v5e:2x2: mesh.data=8: only 4 devices here"),
    ({"mesh.data": 1, "mesh.fsdp": 3}, "--topology=v5e:2x2: model.width=16 is not a"),
    ({"mesh.tensor": -1}, "--topology=v5e:2x2: mesh.tensor=-1: write 1 or more"),
    ({"mesh.tensor": 3}, "--topology=v5e:2x2: mesh.tensor=3: 4 devices are not"),
    ({"mesh.data": 3, "train.batch_size": 6, "evaluate.batch_size": 6,
      "evaluate.examples": 12}, "mesh.data=3 does not divide its 4 devices; write"),
  ],
)  # fmt: skip
def test_a_mesh_that_the_slice_cannot_have_is_refused_before_anything_compiles(
  tmp_path, monkeypatch, slice_of_cpus, overrides, says
):
  monkeypatch.setattr(compiler, "compiled", None)
  with pytest.raises(ConfigError) as error:
    estimate.work(requested(tmp_path, **overrides), asked())
  assert says in str(error.value)


def test_a_compiler_that_fails_is_a_line_and_exit_code_1(
  tmp_path, capsys, monkeypatch, slice_of_cpus
):
  def fails(*args):
    raise ValueError("the compiler failed: INTERNAL: no")

  monkeypatch.setattr(compiler, "compiled", fails)
  assert estimate.work(requested(tmp_path), asked()) == 1
  assert "error: the compiler failed: INTERNAL: no" in capsys.readouterr().err


def test_without_libtpu_one_sentence_says_what_to_install(monkeypatch):
  monkeypatch.setattr(compiler.importlib.util, "find_spec", lambda name: None)
  with pytest.raises(ConfigError, match=r"pip install -e '\.\[tpu-aot\]'"):
    compiler.require()


@pytest.mark.parametrize(
  ("words", "says"),
  [
    ((), "--topology is missing; write --topology=v5e:4x4"),
    (("--topolgy=v5e:4x4",), "unknown flag --topolgy. Did you mean '--topology'?"),
    (("--workers=2",), "unknown flag --workers."),
    (("--topology=v5e:4x5",), "--topology=v5e:4x5: there is no such slice."),
    (("--topology=v5e:4x4", "--efficiency=2"), "--efficiency=2: write three shares"),
    (("--topology=v5e:4x4", "--csv=none/x"), "--csv=none/x: write the name of a file"),
  ],
)
def test_bad_flags_are_one_sentence(commands, words, says):
  done = commands.run("experiments.estimate", *words)
  assert done.returncode == 2 and not done.stdout, done.stderr
  assert done.stderr.startswith(f"error: {says}") and done.stderr.count("\n") == 1
