"""Every attention variant has an oracle that a test compares it with."""

import importlib

import pytest
from oracles.attentions import COMPARED, PATTERNS, WEIGHINGS
from oracles.token_layers import LOOPS
from registries import SCORED

SPECS = [*(case.spec for case in WEIGHINGS), *PATTERNS, *LOOPS]


@pytest.mark.parametrize("name", sorted(SCORED))
def test_every_variant_has_an_oracle(name):
  if name in COMPARED:
    file, test = COMPARED[name]
    assert callable(getattr(importlib.import_module(file), test))
    return
  cases = [spec for spec in SPECS if spec.partition("(")[0] == name]
  assert cases, (
    f"{name} needs a Weighing, or a line of PATTERNS, in tests/oracles/attentions.py"
  )
