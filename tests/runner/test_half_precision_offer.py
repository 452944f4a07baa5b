"""bfloat16 is offered where a CPU's products gain by it, and only there."""

from types import SimpleNamespace

import jax
import pytest
from ml_collections import ConfigDict

from experiments.runner import half_precision


def runs(**model):
  config = ConfigDict({"model": {"dtype": "float32", "width": 512} | model})
  return [SimpleNamespace(config=config)]


@pytest.mark.parametrize(
  ("model", "times", "backend", "offered"),
  [
    ({}, 3.04, "cpu", True),
    ({}, 1.9, "cpu", False),
    ({"width": 128}, 3.0, "cpu", False),
    ({"dtype": "bfloat16"}, 3.0, "cpu", False),
    ({}, 3.0, "tpu", False),
  ],
)
def test_it_is_offered_where_it_gains(model, times, backend, offered, monkeypatch):
  monkeypatch.setattr(half_precision, "speedup", lambda: times)
  monkeypatch.setattr(jax, "default_backend", lambda: backend)
  says = half_precision.offer(runs(**model))
  assert bool(says) == offered
  assert not offered or "3.0 times" in says and "--config.model.dtype=bfloat16" in says


def test_a_speedup_is_a_quotient_of_times():
  assert half_precision.speedup() > 0
