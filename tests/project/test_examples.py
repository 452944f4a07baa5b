"""Examples in docstrings run, and every room's main classes have some."""

import doctest
import importlib
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[2]
FILES = [
  file.relative_to(ROOT)
  for package in ("transformer_jax", "experiments")
  for file in sorted((ROOT / package).rglob("*.py"))
  if ">>> " in file.read_text("utf-8")
]
# Fewest examples of a room: classes that lose theirs are noticed.
ROOMS = {
  "transformer_jax/axes.py": 1,
  "transformer_jax/forwarding.py": 3,
  "transformer_jax/spec": 5,
  "transformer_jax/positions": 370,
  "transformer_jax/attention": 368,
  "transformer_jax/models": 100,
  "transformer_jax/data": 250,
  "transformer_jax/training": 50,
  "transformer_jax/evaluation": 30,
  "transformer_jax/interop": 80,
  "experiments/setup": 15,
  "experiments/reporting": 10,
  "experiments/runner": 8,
}


def module(file):
  parts = file.with_suffix("").parts
  return importlib.import_module(".".join(parts).removesuffix(".__init__"))


@pytest.mark.parametrize("file", FILES, ids=str)
def test_examples_run(file):
  failed, tried = doctest.testmod(module(file))
  assert tried and not failed


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_have_examples(room):
  finder = doctest.DocTestFinder()
  files = [file for file in FILES if file.as_posix().startswith(room)]
  tests = [test for file in files for test in finder.find(module(file))]
  assert sum(len(test.examples) for test in tests) >= ROOMS[room]
