"""An encoding or a variant is one file: beside it, only its oracle is asked for."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest
import test_attention_oracles
import test_references

ROOT = pathlib.Path(__file__).parents[2]
COPIED = "transformer_jax experiments tests third_party docs"
COPIED += " README.md CONTRIBUTING.md CHANGELOG.md CITATION.cff Makefile setup.cfg"
ENCODING = '''"""A toy. Toy et al., 2026. https://example.org/toy"""

import dataclasses

import jax.numpy as jnp

from transformer_jax.positions.base import PositionalEncoding, positions


@positions.register("toy_slope")
@dataclasses.dataclass(frozen=True)
class ToySlope(PositionalEncoding):
  """Penalizes a score by a learned number of each head times the distance."""

  extrapolation = "decays"

  def init(self, key, dims):
    return {"rate_H": jnp.full(dims.H, 0.1)}

  def bias(self, params, pos_L, pos_M):
    return -params["rate_H"] * jnp.abs(pos_L[:, None] - pos_M[None, :])
'''
ENCODING_ORACLE = '''"""The toy's formula."""

from oracles import Case, Paper


class ToySlope(Paper):
  def score(self, params, h, q_K, k_K, i, j, scale, both_ways=False):
    return scale * (q_K @ k_K) - params["rate_H"][h] * abs(i - j)


CASES = [Case("toy_slope", ToySlope(), lambda dims: dims.H)]
'''
VARIANT = '''"""A toy. Toy et al., 2026. https://example.org/toy"""

import dataclasses

import jax.numpy as jnp

from transformer_jax.attention.variants.base import Variant, attentions


@attentions.register("toy_temper")
@dataclasses.dataclass(frozen=True)
class ToyTemper(Variant):
  """Multiplies each score by a number that its head learns, from one."""

  def init(self, key, dims):
    return {"factor_H": jnp.ones(dims.H)}

  def logits(self, params, s_LM):
    return s_LM * params["factor_H"]
'''
VARIANT_ORACLE = """

def toy(params, z_M):
  return softmax(None, params["factor_H"] * z_M)


WEIGHINGS.append(Weighing("toy_temper", each_head(toy), lambda H: H, shift=True))
"""


@pytest.fixture
def copy(tmp_path):
  """Returns a copy of the project in which both toys are, without their oracles."""
  for name in COPIED.split():
    if (ROOT / name).is_file():
      shutil.copy(ROOT / name, tmp_path)
    else:
      skipped = shutil.ignore_patterns("__pycache__", "_build", "api")
      shutil.copytree(ROOT / name, tmp_path / name, ignore=skipped)
  package = tmp_path / "transformer_jax"
  (package / "positions" / "toy_slope.py").write_text(ENCODING)
  (package / "attention" / "variants" / "toy_temper.py").write_text(VARIANT)
  return tmp_path


def run(copy, *arguments):
  """Runs a module of Python in the copy; returns its exit code and what it prints."""
  environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
  command = [sys.executable, "-m", *arguments]
  done = subprocess.run(
    command, cwd=copy, env=environment, capture_output=True, text=True
  )
  return done.returncode, done.stdout + done.stderr


def oracles_asked_for(copy):
  tests = [
    "tests/attention/test_attention_oracles.py",
    "tests/positions/test_references.py",
  ]
  return run(copy, "pytest", "-q", "-p", "no:cacheprovider", *tests, "-k", "toy")


def add_oracles(copy):
  oracles = copy / "tests" / "oracles"
  (oracles / "toy.py").write_text(ENCODING_ORACLE)
  with (oracles / "attentions.py").open("a") as file:
    file.write(VARIANT_ORACLE)


@pytest.mark.parametrize(
  ("test", "says"),
  [
    (
      test_references.test_every_encoding_has_an_oracle_and_learns_what_the_paper_says,
      "toy_slope needs a Case in tests/oracles",
    ),
    (
      test_attention_oracles.test_every_variant_has_an_oracle,
      "toy_slope needs a Weighing",
    ),
  ],
)
def test_a_name_without_an_oracle_is_asked_for_it(test, says):
  with pytest.raises(AssertionError, match=says):
    test("toy_slope")


@pytest.mark.slow
def test_a_new_file_asks_for_its_oracle(copy):
  code, said = oracles_asked_for(copy)
  assert code == 1 and "2 failed" in said, said
  assert "toy_slope needs a Case in tests/oracles" in said
  assert "toy_temper needs a Weighing" in said


@pytest.mark.slow
def test_a_new_file_with_its_oracle_asks_for_nothing_else(copy):
  """Every test that meets the toys or all that is registered; then the pages."""
  add_oracles(copy)
  code, said = oracles_asked_for(copy)
  assert code == 0 and "3 passed" in said, said
  # Files with tests of registries as wholes; contracts meet the toys by their names.
  meets = "toy or project or registered or every_variant or every_encoding or bench"
  code, said = run(copy, "pytest", "-q", "-x", "-p", "no:cacheprovider", "-k", meets)
  assert code == 0, said[-3000:]
  code, said = run(copy, "experiments.catalogue", "--check")
  assert code == 1 and "positions.md" in said and "attention.md" in said, said
  assert run(copy, "experiments.catalogue")[0] == 0
  assert run(copy, "experiments.catalogue", "--check") == (0, "")
  assert "toy_slope" in (copy / "docs" / "positions.md").read_text()
