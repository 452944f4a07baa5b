"""docs/positions.md says what the code declares, and every cell of its table holds."""

import pytest

from experiments import catalogue
from transformer_jax.attention import cores
from transformer_jax.models.support import MODES, USES, form, refusal
from transformer_jax.positions import positions


def test_the_page_is_not_stale():
  stale = "docs/positions.md is stale: run python -m experiments.catalogue"
  assert catalogue.PATH.read_text("utf-8") == catalogue.page(), stale


def test_every_encoding_has_a_paper_and_a_purpose():
  for name in positions:
    encoding = positions.build(name)
    assert "](http" in catalogue.paper(encoding), name
    assert 10 < len(catalogue.purpose(encoding)) < 90, name


@pytest.mark.parametrize("use", USES)
def test_every_cell_is_served_or_refused_by_one_error_that_names_both(use):
  for name in positions:
    encoding = positions.build(name)
    for mode in MODES:
      for core_name, core in cores.items():
        reason = refusal(encoding, core(), use, mode)
        if reason is None:
          continue
        both = (encoding.name, use) if "attention: " in reason else (mode, use)
        if "whole rows" in reason:
          both = (form(encoding, use).name, core_name)
        assert all(part in reason for part in both), reason


def test_parameters_are_counted_in_every_layer_that_has_its_own():
  dims = catalogue.SIZES["base"]
  count = lambda spec: catalogue.parameters(positions.build(spec), dims)
  assert count("t5") == 32 * 8  # shared by all layers
  assert count("shaw") == 6 * 2 * 33 * 64  # of each layer
  assert count("every(3, shaw, t5)") == 2 * 2 * 33 * 64 + 32 * 8
