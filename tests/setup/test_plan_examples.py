"""The examples in docstrings of experiments, run as doctests."""

import doctest

from experiments.setup import plan


def test_examples_of_plans():
  failed, tried = doctest.testmod(plan)
  assert tried >= 7 and not failed
