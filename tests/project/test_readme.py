"""README is short, its examples work as written, and its numbers have a source."""

import functools
import importlib
import pathlib
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import catalogue
from experiments.configs import quickstart
from transformer_jax.attention.cores import cores
from transformer_jax.axes import Dims
from transformer_jax.numpy_interpreter import evaluate
from transformer_jax.positions import bind, coords, positions

ROOT = pathlib.Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
FIRST, FADE = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def fade(tmp_path, monkeypatch):
  """Saves README's example as a file outside of the package."""
  (tmp_path / "fade.py").write_text(FADE)
  monkeypatch.syspath_prepend(tmp_path)
  importlib.invalidate_caches()
  yield positions.build("fade:Fade(start=0.5)")
  sys.modules.pop("fade")


def test_an_encoding_in_one_file_of_ones_own_works_in_every_core(fade):
  dims, at = Dims(V=4, D=8, H=2, F=8, L=9), coords.consecutive(1, 9)
  params = fade.init(jax.random.key(0), dims)
  random = np.random.default_rng(1)
  q, k, v, g = random.normal(size=(4, 2, 9, 2, 4)).astype(np.float32)

  def loss(core, params):
    out = cores.build(core)(q, k, v, at, at, bind(fade, params, dims))
    return jnp.sum(out * g), out

  found = [
    evaluate(jax.value_and_grad(functools.partial(loss, core), has_aux=True), params)
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


def test_the_first_block_makes_logits_in_eight_lines():
  names = {}
  exec(compile(FIRST, "README.md", "exec"), names)
  assert names["logits_BLV"].shape == (2, 128, 256)
  assert np.isfinite(names["logits_BLV"]).all()
  assert len([line for line in FIRST.splitlines() if line]) == 8


def test_the_encoding_is_that_of_its_page():
  assert FADE in (ROOT / "docs" / "howto" / "own_encoding.md").read_text()


def test_readme_is_short():
  assert len(README.splitlines()) <= 140


def test_the_quickstart_is_what_readme_says():
  encodings, seeds = len(quickstart.ENCODINGS), len(quickstart.get_config().seeds)
  tasks = len(list(quickstart.sweep().runs)) // encodings
  assert f"trains {encodings} encodings x {seeds} seeds x {tasks} tasks" in README


def test_counts_are_written_from_the_registries(monkeypatch):
  """That they are as written is what `make lint` checks."""
  counted = catalogue.counts.COUNTED
  for number, name in enumerate(counted, 1001):
    monkeypatch.setitem(counted, name, range(number))
  page = catalogue.counts.page()
  for number, name in enumerate(counted, 1001):
    assert re.search(rf"^\| \[{name}\]\(.+\) \| {number} \|", page, re.MULTILINE)
  assert re.sub(r"\| \d+ \|", "", page) == re.sub(r"\| \d+ \|", "", README)


def test_numbers_of_results_are_those_of_the_pages_they_link():
  table = README.split("## Results")[1].split("## Limits")[0]
  rows = re.findall(r"^\| [^|]+ \| ([^|]*\d[^|]*) \| \[.*\]\((.*)\) \|$", table, re.M)
  assert len(rows) == 5
  for answer, path in rows:
    page = (ROOT / path).read_text()
    answer = answer.replace("4,096", "4096")
    for number in re.findall(r"\d+\.\d+(?: ± \d+\.\d+)?|\b\d{2,}\b", answer):
      assert re.search(rf"(?<![\d.]){number}(?![\d.]*\d)", page), (number, path)
