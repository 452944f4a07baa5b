"""Parameters that a training step changes by itself, without the optimizer.

They are parameters, so that checkpoints, averages, seeds and export hold them. No
gradient reaches them. A forward pass in training stores what they become.
"""

from collections.abc import Mapping
from typing import Any

from transformer_jax.models.expert_load import ExpertLoad


def replaced(params: Any, running: Mapping[str, Any], before: Any) -> Any:
  """Returns parameters with the new values of those that no optimizer moves.

  params    after the optimizer's update, nested by module
  running   by name, nested likewise: running statistics, which are the new values, and
            loads of experts, which move the old ones; empty: none
  before    parameters before the update

  >>> norm, after = {"gain_D": 1, "running_mean_D": 2}, {"norm": {"running_mean_D": 7}}
  >>> params = {"norm": norm, "head": 5}
  >>> replaced(params, after, before=params)
  {'norm': {'gain_D': 1, 'running_mean_D': 7}, 'head': 5}
  """

  def one(name: str, value: Any) -> Any:
    new = running.get(name)
    if new is None:
      return value
    if isinstance(new, Mapping):
      return replaced(value, new, before[name])
    return new.moved(before[name]) if isinstance(new, ExpertLoad) else new

  if not running:
    return params
  return {name: one(name, value) for name, value in params.items()}
