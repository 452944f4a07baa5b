"""Arrays of one forward pass in training, with means over its tokens and targets."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from transformer_jax.data.base import Batch

TARGETS = "targets"


def stack_of(path: str, keys: bool = False) -> str:
  """Returns the stack whose tokens an array of a layer has: decoder or encoder.

  keys   of the keys and values of an attention layer, not of its queries

  >>> cross = "decoder/layer_0/cross"
  >>> stack_of(cross), stack_of(cross, keys=True)
  ('decoder', 'encoder')
  """
  crossing = keys and path.rpartition("/")[2] == "cross"
  return "encoder" if crossing else path.partition("/")[0]


def weights_of(batch: Batch) -> dict[str, jax.Array]:
  """Returns {what is averaged over: weights [B, L]} of a batch.

  `decoder` and `encoder` are the tokens of a stack, 1 each, and 0 where there is
  padding; `targets` the weights of the targets.
  """
  B = batch.input_BL.shape[0]

  def real(at: Any) -> jax.Array:
    real_BL = at.real_BL.astype(jnp.float32)
    return jnp.broadcast_to(real_BL, (B, real_BL.shape[1]))

  tokens_BL = real(batch.at)
  source_BL = tokens_BL if batch.source_at is None else real(batch.source_at)
  return {"decoder": tokens_BL, "encoder": source_BL, TARGETS: batch.weight_BL}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Hidden:
  """Of what logits are made: x @ output^T, in chunks that fit into memory.

  x_BLD       states of the last layer
  output_VD   output projection
  chunks      to take the length in

  >>> hidden = Hidden(jnp.ones((1, 4, 8)), jnp.ones((16, 8)), chunks=2)
  >>> jax.tree.map(jnp.shape, hidden).output_VD
  (16, 8)
  """

  x_BLD: jax.Array
  output_VD: jax.Array
  chunks: int = dataclasses.field(metadata={"static": True})


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingPass:
  """What an auxiliary loss reads: recorded arrays of a forward pass, and its batch.

  captured   {place: {path: array}}, of the places that the loss names
  batch      inputs and targets; a part of a batch where it is computed in parts
  counts     {what is averaged over: sum of its weights in the whole batch}
  params     parameters of the loss, from its `init`

  >>> from transformer_jax.positions import coords
  >>> token_BL, weight_BL = jnp.zeros((1, 3), int), jnp.array([[0.0, 1, 1]])
  >>> batch = Batch(token_BL, token_BL, weight_BL, coords.consecutive(1, 3))
  >>> arrays = TrainingPass({}, batch, {"decoder": 3, "targets": 2})
  >>> x_BL = jnp.array([[6.0, 3, 0]])
  >>> float(arrays.mean(x_BL, "decoder")), float(arrays.mean(x_BL, "targets"))
  (3.0, 1.5)
  """

  captured: Mapping[str, Mapping[str, Any]]
  batch: Batch
  counts: Mapping[str, Any]
  params: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def mean(self, x_BL: jax.Array, over: str) -> jax.Array:
    """Returns the mean over the tokens of a stack, without padding, or over targets.

    Of a part of a batch it is the part's share of the whole batch's mean: the shares
    add up to it. A batch without any token or target has a mean of 0.

    x_BL   one number for each token
    over   `decoder`, `encoder` or `targets`
    """
    weight_BL, count = weights_of(self.batch)[over], self.counts[over]
    sum_ = jnp.sum(jnp.where(weight_BL > 0, x_BL, 0) * weight_BL)
    return sum_ / jnp.where(count > 0, count, 1)
