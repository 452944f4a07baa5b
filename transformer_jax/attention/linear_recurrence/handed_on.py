"""States handed on between devices that split a text."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from transformer_jax.attention.linear_recurrence.recurrence_definition import (
  StateUpdates,
)
from transformer_jax.devices import along_text
from transformer_jax.mesh_shape import SEQUENCE

Form = Callable[[StateUpdates, jax.Array], tuple[jax.Array, jax.Array]]


def handed_on(
  form: Form, tokens: StateUpdates, state_BHKE: jax.Array, devices: int
) -> tuple[jax.Array, jax.Array]:
  """Returns what a form does, each device with its part of the text.

  form         of one device, as `chunked`
  state_BHKE   before the first token
  devices      that split the text

  What a part does to a state S is A S + U: a device finds A and U from the states
  identity and 0. In log2(devices) steps they are joined with those of earlier parts.
  """
  L, E = tokens.key_BLHK.shape[1], state_BHKE.shape[3]

  def of_part(tokens, state_BHKE):
    here = jax.lax.axis_index(SEQUENCE)
    K = state_BHKE.shape[2]
    state_BHKE = jnp.where(here == 0, state_BHKE, 0.0)
    identity_BHKK = jnp.broadcast_to(
      jnp.eye(K, dtype=jnp.float32), (*state_BHKE.shape[:3], K)
    )
    both = jnp.concatenate([state_BHKE, identity_BHKK], axis=-1)
    out, last = form(tokens.widened(K), both)
    before_BHKE, after_BHKE = join_parts(
      jnp.matmul, last[..., E:], last[..., :E], devices
    )
    # Each output is linear in the state before the part: it was run with the identity.
    more_BLHE = jnp.einsum("BLHK,BHKE->BLHE", out[..., E:], before_BHKE)
    return out[..., :E] + more_BLHE, of_last_device(after_BHKE, devices)

  run = along_text(of_part)
  out_BLHE, last_BHKE = run(tokens.padded(-L % devices), state_BHKE)
  return out_BLHE[:, :L], last_BHKE


def join_parts(
  apply: Callable[[jax.Array, jax.Array], jax.Array],
  transition: jax.Array,
  update: jax.Array,
  devices: int,
) -> tuple[jax.Array, jax.Array]:
  """Returns the states before and after this device's part of a text.

  apply        (transition, state) -> state, also of transitions: the later one first
  transition   of this part
  update       of this part, added after it
  """
  distance = 1
  while distance < devices:
    pairs = [(i, i + distance) for i in range(devices - distance)]
    earlier = jax.lax.ppermute((transition, update), SEQUENCE, pairs)
    # A device without an earlier one gets zeros: then nothing is before its part.
    update = apply(transition, earlier[1]) + update
    transition = apply(transition, earlier[0])
    distance *= 2
  pairs = [(i, i + 1) for i in range(devices - 1)]
  return jax.lax.ppermute(update, SEQUENCE, pairs), update


def of_last_device(x: jax.Array, devices: int) -> jax.Array:
  """Returns on every device what the last one has."""
  last = jax.lax.axis_index(SEQUENCE) == devices - 1
  return jax.lax.psum(jnp.where(last, x, 0.0), SEQUENCE)
