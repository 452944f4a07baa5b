"""README's example works as written, and README names what is there."""

import importlib
import pathlib
import re
import shlex
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags as absl_flags

import transformer_jax.data  # noqa: F401, fills the registry of tasks
from experiments.setup import flags
from transformer_jax.attention.cores import cores
from transformer_jax.axes import Dims
from transformer_jax.data.base import tasks
from transformer_jax.positions import bind, coords, positions

ROOT = pathlib.Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language):
  return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def fade(tmp_path, monkeypatch):
  """Saves README's example as a file outside of the package."""
  (code,) = blocks("python")
  (tmp_path / "fade.py").write_text(code)
  monkeypatch.syspath_prepend(tmp_path)
  importlib.invalidate_caches()
  yield positions.build("fade:Fade(start=0.5)")
  sys.modules.pop("fade")


def test_an_encoding_in_one_file_of_ones_own_works_in_every_core(fade):
  dims, at = Dims(V=4, D=8, H=2, F=8, L=9), coords.consecutive(1, 9)
  params = fade.init(jax.random.key(0), dims)
  q, k, v, g = jax.random.normal(jax.random.key(1), (4, 2, 9, 2, 4))

  def loss(core, params):
    out = cores.build(core)(q, k, v, at, at, bind(fade, params, dims))
    return jnp.sum(out * g), out

  found = [
    jax.value_and_grad(loss, 1, has_aux=True)(core, params)
    for core in ("dense", "blockwise(block=4)")
  ]
  (_, want), want_grads = found[0]
  (_, got), got_grads = found[1]
  np.testing.assert_allclose(got, want, atol=2e-6)
  np.testing.assert_allclose(got_grads["rate_H"], want_grads["rate_H"], atol=1e-5)
  s_LM = q[1, :, 0] @ k[1, :, 0].T / 2
  s_LM -= 0.5 * np.log1p(np.abs(np.subtract.outer(np.arange(9), np.arange(9))))
  w_LM = np.tril(np.exp(s_LM))
  oracle = w_LM / w_LM.sum(1, keepdims=True) @ v[1, :, 0]
  np.testing.assert_allclose(want[1, :, 0], oracle, atol=1e-5)


# ml_collections imports config files the old way.
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_commands_parse_as_written(fade):
  commands = [
    shlex.split(line, comments=True)
    for block in re.split("```\n?", README)
    for line in block.splitlines()
    if line.startswith("python -m experiments.")
  ]
  assert len(commands) == 6
  for _, _, module, *arguments in commands:
    importlib.import_module(module)
    if module in ("experiments.run", "experiments.sweep"):
      argv, values = flags.config_first([module, *arguments]), absl_flags.FlagValues()
      flags.define(argv, values)
      positions.build(flags.parse(argv, values).config.model.position)


def test_everything_that_is_registered_is_named():
  assert f"{len(positions)} of them" in README
  page = (ROOT / "docs" / "positions.md").read_text()
  for registry, text in ((positions, page), (tasks, README), (cores, README)):
    missing = [name for name in registry if f"`{name}" not in text]
    assert not missing, f"{missing} are not named"


def test_files_that_are_named_exist():
  for path in re.findall(
    r"(?:transformer_jax|experiments|docs)/[\w/.]*\w\.\w+", README
  ):
    assert (ROOT / path).exists(), path


def test_every_dependency_has_its_reason():
  setup = (ROOT / "setup.cfg").read_text()
  section = re.search(r"install_requires =\n((?:  .+\n)+)", setup)[1]
  table = README.split("## Dependencies")[1]
  for name in re.findall(r"^  ([\w-]+) ", section, re.MULTILINE):
    assert name in table, name
