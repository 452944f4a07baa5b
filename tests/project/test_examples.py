"""Examples in docstrings run, and public classes have some."""

import ast
import collections
import doctest
import functools
import importlib
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SOURCES = [
  file.relative_to(ROOT)
  for package in ("transformer_jax", "experiments")
  for file in sorted((ROOT / package).rglob("*.py"))
]
FILES = [file for file in SOURCES if ">>> " in (ROOT / file).read_text("utf-8")]
# Public classes without an example. Shorten the list; nothing is added to it.
WITHOUT = {
  # transformer_jax/attention/cores/pallas
  "BiasTerm", "Work", "GPUBackend", "BlockSpecs", "View", "LoadedTile", "Hook",
  "CannotLower", "TableLookup", "ScoreProgram", "Residuals", "Grads", "Sizes", "Given",
  "ScoreTerm", "MaskTerm", "ValuesTerm", "LogitsTerm", "TPUBackend", "TileGrid",
  "Operands", "TableProduct",
  # transformer_jax/attention/cores
  "Scheme", "LocalQueries", "TravellingKeys", "GridStep",
  # transformer_jax/attention/variants/probe
  "VariantFindings", "VariantShapes",
  # transformer_jax/evaluation
  # transformer_jax/models/recurrent
  "CrossAttention",
  # transformer_jax/positions/probe
  "EncodingFindings", "Hooks", "Inputs", "Layer",
  # transformer_jax/training
  "Damage", "Program", "Bars",
  # experiments/bench
  "Case", "Contender", "ContenderGroup", "Patience", "Noise", "Turns", "MissingPeers",
  "WorkerError", "Worker",
  # experiments/contract
  "Both", "Nothing",
  # experiments
  "Generator", "Trained",
  # experiments/reporting
  "Comparison", "Findings",
  # experiments/runner
  "Experiment", "GitError", "Outcome", "RemovedError", "SweepLoop", "MetricWriter",
}  # fmt: skip
# Least number of registered classes with an example. A user's new file needs none.
REGISTERED = {
  "transformer_jax/attention": 47,
  "transformer_jax/data": 52,
  "transformer_jax/evaluation": 2,
  "transformer_jax/interop": 31,
  "transformer_jax/models": 24,
  "transformer_jax/positions": 55,
  "transformer_jax/training": 6,
}


@functools.cache
def public_classes():
  """Returns the list of all public classes, made once."""
  return [*_public_classes()]


def _public_classes():
  """Yields (file, class, whether it is registered, whether it has an example)."""
  for file in SOURCES:
    for node in ast.parse((ROOT / file).read_text("utf-8")).body:
      if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
        registered = any(".register(" in ast.unparse(x) for x in node.decorator_list)
        inner = (ast.ClassDef, ast.FunctionDef)
        members = [x for x in ast.walk(node) if isinstance(x, inner)]
        has = any(">>> " in (ast.get_docstring(member) or "") for member in members)
        yield file, node.name, registered, has


def module(file):
  parts = file.with_suffix("").parts
  return importlib.import_module(".".join(parts).removesuffix(".__init__"))


@pytest.mark.parametrize("file", FILES, ids=str)
def test_examples_run(file):
  failed, tried = doctest.testmod(module(file))
  assert tried and not failed


def test_public_classes_have_examples():
  classes = [each for each in public_classes() if not each[2]]
  assert len(classes) > 180
  lack = {name for _, name, _, has in classes if not has}
  assert not lack - WITHOUT, f"give each an example: {sorted(lack - WITHOUT)}"
  assert not WITHOUT - lack, f"take them off the list: {sorted(WITHOUT - lack)}"


def test_no_registered_class_loses_its_example():
  with_example = collections.Counter(
    "/".join(file.parts[:2])
    for file, _, registered, has in public_classes()
    if registered and has
  )
  fewer = {room: n for room, n in REGISTERED.items() if with_example[room] < n}
  assert not fewer, f"fewer registered classes have an example than {fewer}"
