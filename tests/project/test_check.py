"""`python -m experiments.check`: one line for each property, and what to do."""

import importlib
import pathlib
import re
import sys

import numpy as np
import pytest

from experiments import check
from transformer_jax.spec import SpecError

ROOT = pathlib.Path(__file__).parents[2]
FILE = '''
import dataclasses

import jax.numpy as jnp

from transformer_jax.attention import Variant
from transformer_jax.data.tasks.algorithmic.copy import Copy
from transformer_jax.positions import PositionalEncoding


@dataclasses.dataclass(frozen=True)
class Cap(Variant):
  def init(self, key, dims):
    return {"cap_H": jnp.full(dims.H, 5.0)}

  def logits(self, params, s_LM):
    return params["cap_H"] * jnp.tanh(s_LM / params["cap_H"])


@dataclasses.dataclass(frozen=True)
class Mine(Copy):
  """A task."""


@dataclasses.dataclass(frozen=True)
class Absolute(PositionalEncoding):
  def init(self, key, dims):
    return {"rate_H": jnp.ones(dims.H)}

  def bias(self, params, pos_L, pos_M):
    return -params["rate_H"] * pos_L[:, None] / (1.0 + pos_M[None, :])


class Other:
  """Nothing of ours."""
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
  """Holds files of a user, importable as from his own folder."""
  (tmp_path / "own_file.py").write_text(FILE)
  page = (ROOT / "docs/howto/own_encoding.md").read_text()
  (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
  (tmp_path / "fade.py").write_text(code)
  page = (ROOT / "docs/howto/own_mixer.md").read_text()
  (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
  (tmp_path / "fading.py").write_text(code)
  (tmp_path / "broken_file.py").write_text("import dataclasses\n1 / 0\n")
  monkeypatch.syspath_prepend(tmp_path)
  importlib.invalidate_caches()
  yield tmp_path
  for name in ("own_file", "fade", "fading", "broken_file"):
    sys.modules.pop(name, None)


def run(spec, capsys):
  """Returns the exit code and what was printed on both streams."""
  code = check.main([spec])
  said = capsys.readouterr()
  return code, said.out, said.err


def test_a_task_that_keeps_the_contract(folder, capsys):
  code, said, _ = run("own_file:Mine", capsys)
  assert code == 0 and said.startswith("own_file:Mine, as task:")
  assert said.count("\n  yes  ") == 7 and "All of them hold" in said


def test_what_is_untrue_is_said_with_the_cure(folder, capsys):
  code, said, _ = run("own_file:Absolute", capsys)
  assert code == 1
  assert "  no   hooks and declarations fit: Absolute declares relative = True" in said
  assert "write relative = False in the class" in said


@pytest.mark.parametrize(
  ("spec", "says"),
  [
    ("rop", "'rop' is no encoding, attention variant or task. Did you mean 'rope'?"),
    ("own_file:Missing", "'own_file' has no 'Missing'"),
    ("no_such_file:Mine", "cannot import 'no_such_file'"),
    ("own_file:Other", "must inherit PositionalEncoding, Variant or Task"),
    ("broken_file:Mine", "fails in line 2 of broken_file.py: ZeroDivisionError"),
    ("own_file:Cap(size=3)", "has no argument 'size'"),
  ],
)
def test_what_cannot_be_checked_is_said_in_one_sentence(folder, capsys, spec, says):
  code, said, error = run(spec, capsys)
  assert code == 2 and not said
  assert says in error and error.startswith("error: ") and error.count("\n") == 1


def test_a_property_that_does_not_hold_has_its_cure(capsys):
  def wrong(thing):
    np.testing.assert_allclose([1.0, 2.0], [1.0, 2.5], err_msg="packed")

  assert check.report("decoding on the cache equals one pass", wrong, None)
  said = capsys.readouterr().out
  assert said.startswith("  no   decoding on the cache equals one pass: Max absolute")
  assert "treat each token by itself" in said and said.count("\n") == 1

  def refuses(thing):
    raise SpecError("write this")

  assert check.report("shapes", refuses, None)
  assert capsys.readouterr().out == "  no   shapes: write this\n"
  assert not check.report("nothing", lambda thing: None, None)


def test_each_contract_is_that_of_the_tests():
  names = {kind: [title for title, _ in check.contract(kind)] for kind, _ in KINDS}
  assert len(names["positional encoding"]) == 14
  assert len(names["attention variant"]) == 11
  assert len(names["mixer"]) == 8
  assert len(names["task"]) == 6


KINDS = check.KINDS.values()


@pytest.mark.slow
@pytest.mark.parametrize(
  "spec", ["fade:Fade(start=0.5)", "own_file:Cap", "fading:Fading"]
)
def test_classes_of_ones_own_keep_the_whole_contract(folder, capsys, spec):
  code, said, _ = run(spec, capsys)
  assert code == 0, said
  assert "All of them hold" in said and "  no " not in said
