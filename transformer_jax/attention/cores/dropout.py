"""Dropout of attention weights and of activations."""

import dataclasses

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KeyedDropout:
  """Sets random entries to zero and scales up the others. Srivastava et al., 2014.

  https://jmlr.org/papers/v15/srivastava14a.html

  key    the same on all devices
  rate   probability of zero
  axis   name of the axis of devices that share a batch inside `pmap`. Each device draws
         for the whole batch and takes its part

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> dropout = tj.attention.KeyedDropout(jax.random.key(0), rate=0.5)
  >>> print(jax.jit(tj.attention.KeyedDropout.__call__)(dropout, np.ones((1, 8))))
  [[0. 0. 2. 2. 0. 2. 2. 0.]]
  """

  key: jax.Array
  rate: float = dataclasses.field(metadata={"static": True})
  axis: str | None = dataclasses.field(default=None, metadata={"static": True})

  def __call__(self, x: jax.Array) -> jax.Array:
    """x: any array whose first axis is the batch."""
    B, *rest = x.shape
    shape = B * device_count(self.axis), *rest
    survives = jax.random.bernoulli(self.key, 1 - self.rate, shape)
    survives = local_examples(survives, self.axis)
    return jnp.where(survives, x / (1 - self.rate), 0.0)


def device_count(axis: str | None) -> int:
  """Returns the number of devices that share a batch inside `pmap`; 1 elsewhere."""
  return jax.lax.axis_size(axis) if axis else 1


def local_examples(x: jax.Array, axis: str | None) -> jax.Array:
  """Returns this device's part of an array of the examples of all devices."""
  if axis is None:
    return x
  B = x.shape[0] // device_count(axis)
  return jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index(axis) * B, B)
