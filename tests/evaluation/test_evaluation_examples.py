"""Examples in the docstrings of evaluation: each of them runs."""

import doctest
import importlib
import pkgutil

import transformer_jax.evaluation as room


def test_examples_run():
  modules = [
    importlib.import_module(module.name)
    for module in pkgutil.walk_packages(room.__path__, room.__name__ + ".")
  ]
  results = [doctest.testmod(module) for module in modules]
  assert sum(result.attempted for result in results) >= 8
  assert not any(result.failed for result in results)
