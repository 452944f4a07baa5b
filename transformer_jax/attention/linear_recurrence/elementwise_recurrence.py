"""Linear recurrences of single numbers, each with a decay of its own.

Martin and Cundy, 2018, https://arxiv.org/abs/1709.04057, for the parallel form
"""

import jax
import jax.numpy as jnp

from transformer_jax.attention.linear_recurrence.handed_on import (
  join_parts,
  of_last_device,
)
from transformer_jax.devices import along_text, text_parts
from transformer_jax.mesh_shape import SEQUENCE


def elementwise(
  decay: jax.Array, value: jax.Array, state: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
  """Returns (all states [B, L, ...], the last one), float32, in log L steps.

      h_t = exp(decay_t) h_(t-1) + value_t

  decay   logarithms of the factors, [B, L, ...]; -inf: what was before is forgotten
  value   what is added, [B, L, ...]
  state   before the first token, [B, ...]; None: zeros

  >>> half = jnp.log(jnp.full((1, 3), 0.5))
  >>> elementwise(half, jnp.ones((1, 3)))[0].tolist()  # 1, 1/2 + 1, 1/4 + 1/2 + 1
  [[1.0, 1.5, 1.75]]
  """
  start = jnp.zeros_like(value[:, 0], jnp.float32) if state is None else state
  devices, L = text_parts(), value.shape[1]
  if devices == 1:
    return _elementwise((decay, value), start)

  def of_part(tokens, start):
    start = jnp.where(jax.lax.axis_index(SEQUENCE) == 0, start, 0.0)
    states, last = _elementwise(tokens, start)
    factor = jnp.exp(jnp.cumsum(tokens[0].astype(jnp.float32), axis=1))
    before, after = join_parts(jnp.multiply, factor[:, -1], last, devices)
    return states + factor * before[:, None], of_last_device(after, devices)

  def pad(x):  # with tokens that change nothing
    return jnp.pad(x, [(0, 0), (0, -L % devices)] + [(0, 0)] * (x.ndim - 2))

  states, last = along_text(of_part)((pad(decay), pad(value)), start)
  return states[:, :L], last


def _elementwise(tokens, start):
  """Returns `elementwise` on one device; start: the state before the first token."""
  factor, value = jnp.exp(tokens[0].astype(jnp.float32)), tokens[1].astype(jnp.float32)
  value = value.at[:, 0].add(factor[:, 0] * start)

  def join(early, late):
    return early[0] * late[0], late[0] * early[1] + late[1]

  _, states = jax.lax.associative_scan(join, (factor, value), axis=1)
  return states, states[:, -1]


def elementwise_sequential(
  decay: jax.Array, value: jax.Array, state: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
  """Returns what `elementwise` does, token by token: its definition."""
  factor, value = jnp.exp(decay.astype(jnp.float32)), value.astype(jnp.float32)
  start = jnp.zeros_like(value[:, 0]) if state is None else state

  def visit(state, token):
    state = token[0] * state + token[1]
    return state, state

  over_time = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), (factor, value))
  last, states = jax.lax.scan(visit, start, over_time)
  return jnp.moveaxis(states, 0, 1), last
