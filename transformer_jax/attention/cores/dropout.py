"""Dropout of attention weights and of activations."""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.batch_part import BatchPart


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KeyedDropout:
  """Sets random entries to zero and scales up the others. Srivastava et al., 2014.

  https://jmlr.org/papers/v15/srivastava14a.html

  key    the same on all devices
  rate   probability of zero
  part   of the batch that is computed; None: all of it

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> dropout = tj.attention.KeyedDropout(jax.random.key(0), rate=0.5)
  >>> print(jax.jit(tj.attention.KeyedDropout.__call__)(dropout, np.ones((1, 8))))
  [[0. 0. 2. 2. 0. 2. 2. 0.]]
  """

  key: jax.Array
  rate: float = dataclasses.field(metadata={"static": True})
  part: BatchPart | None = None

  def __call__(self, x: jax.Array) -> jax.Array:
    """x: any array whose first axis is the batch."""
    B, *rest = x.shape
    shape = B * (self.part.count if self.part else 1), *rest
    survives = jax.random.bernoulli(self.key, 1 - self.rate, shape)
    survives = self.part.take(survives) if self.part else survives
    return jnp.where(survives, x / (1 - self.rate), 0.0)
