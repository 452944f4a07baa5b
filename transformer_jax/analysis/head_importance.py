"""Importance of heads: the loss without a head, and the gradient at its gate.

A gate multiplies the output of a head; it is 1 in the model, and 0 of a head that is
taken away. Michel et al., 2019. https://arxiv.org/abs/1905.10650
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.data.base import Batch
from transformer_jax.models import capture
from transformer_jax.models.recurrent.model import Recurrence
from transformer_jax.training.objectives import CROSS_ENTROPY, Objective


def heads_of(model: Any, params: Any, part: Batch) -> dict[str, int]:
  """Returns {path of a layer: number of its heads that have outputs}."""

  def outputs(params, reads):
    return capture.run(model, params, *reads, want=["output"])[1].get("output", {})

  # Steps of a recurrent model are recorded outside of programs.
  by_steps = isinstance(model.arch, Recurrence)
  shapes = functools.partial(jax.eval_shape, outputs)
  found = (outputs if by_steps else shapes)(params, part.reads)
  return {path: x.shape[2] for path, x in capture.in_order(found).items()}


def loss_B(
  model: Any,
  params: Any,
  part: Batch,
  gates: Mapping[str, jax.Array],
  objective: Objective = CROSS_ENTROPY,
) -> jax.Array:
  """Returns the mean loss of each text; NaN: it has no target.

  gates       {path: gate_BH}; its B may be 1
  objective   whose losses these are
  """

  def gated(path: str, out_BLHE: jax.Array) -> jax.Array:
    return out_BLHE * gates[path][:, None, :, None].astype(out_BLHE.dtype)

  edit = {"output": gated}
  logits_BLV, _ = capture.run(model, params, *part.reads, want=(), edit=edit)
  loss_BL, _ = objective.losses(logits_BLV, part.target_BL, part.weight_BL)
  loss_BL = jnp.where(part.weight_BL > 0, loss_BL * part.weight_BL, 0)
  return jnp.sum(loss_BL, axis=1) / jnp.sum(part.weight_BL, axis=1)


def by_gradient(
  model: Any, heads: Mapping[str, int], objective: Objective = CROSS_ENTROPY
) -> Callable[[Any, Batch], Any]:
  """Returns a function (params, part) -> {path: |d loss / d gate|, [B, H]}.

  One backward pass. Of each text by itself, as in equation 2 of Michel et al., 2019,
  without their division by the norm over a layer.
  """

  def look(params: Any, part: Batch) -> dict[str, jax.Array]:
    def total(gates: Mapping[str, jax.Array]) -> jax.Array:
      some_B = loss_B(model, params, part, gates, objective)
      return jnp.sum(jnp.where(jnp.isnan(some_B), 0, some_B))

    B = len(part.target_BL)
    ones = {path: jnp.ones((B, H)) for path, H in heads.items()}
    has_B1 = jnp.any(part.weight_BL > 0, axis=1, keepdims=True)
    return {
      path: jnp.where(has_B1, jnp.abs(x_BH), jnp.nan)
      for path, x_BH in jax.grad(total)(ones).items()
    }

  return _compiled(model, look)


def by_gates(
  model: Any, heads: Mapping[str, int], objective: Objective = CROSS_ENTROPY
) -> Callable[[Any, Batch], Any]:
  """Returns a function ((params, gate_NH), part) -> loss of each text, [B, N].

  gate_NH   N settings of the gates of all heads, layers one after another
  """
  ends = np.cumsum([*heads.values()])[:-1]
  by_steps = isinstance(model.arch, Recurrence)

  def look(setting: tuple[Any, jax.Array], part: Batch) -> jax.Array:
    params, gate_NH = setting

    def one(gate_H: jax.Array) -> jax.Array:
      split = jnp.split(gate_H, ends)
      gates = {path: x_H[None] for path, x_H in zip(heads, split, strict=True)}
      return loss_B(model, params, part, gates, objective)

    if by_steps:
      return jnp.stack([one(gate_H) for gate_H in gate_NH], axis=1)
    return jax.lax.map(one, gate_NH).T

  return _compiled(model, look)


def without_one(heads: Mapping[str, int]) -> np.ndarray:
  """Returns gates of the whole model, and without each head in turn, [1 + H, H].

  >>> without_one({"decoder/layer_0/attention": 2}).tolist()
  [[1.0, 1.0], [0.0, 1.0], [1.0, 0.0]]
  """
  H = sum(heads.values())
  return np.concatenate([np.ones((1, H)), 1 - np.eye(H)]).astype(np.float32)


def pruned(order_H: np.ndarray) -> np.ndarray:
  """Returns gates without the first heads of an order: none, one, ... all, [1 + H, H].

  >>> pruned(np.array([1, 0])).tolist()
  [[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]]
  """
  rank_H = np.argsort(order_H)
  return (rank_H[None] >= np.arange(len(order_H) + 1)[:, None]).astype(np.float32)


def _compiled(model: Any, look: Callable) -> Callable:
  # Steps of a recurrent model are recorded and edited outside of programs.
  return look if isinstance(model.arch, Recurrence) else jax.jit(look)
