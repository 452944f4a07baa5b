"""What several mixers share: sizes, decays, convolutions, vectors of length 1."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from transformer_jax.attention.linear_recurrence import StateUpdates
from transformer_jax.attention.projections import Arrays
from transformer_jax.axes import Dims, whole
from transformer_jax.initializers import fan_in_uniform
from transformer_jax.matmul import project_by
from transformer_jax.spec import SpecError

RATES = (1.0, 16.0)  # of decay, in the first parameters
STEPS = (1e-3, 1e-1)  # of time, likewise


def log_decay(log_rate: jax.Array, step: jax.Array, shift: jax.Array) -> jax.Array:
  """Returns the logarithm of a factor on a state: -rate softplus(step + shift).

  Dao and Gu, 2024. https://arxiv.org/abs/2405.21060
  """
  time = jax.nn.softplus(step.astype(jnp.float32) + shift)
  return -jnp.exp(log_rate) * time


def first_log_rate(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Returns first logarithms of rates, of rates that are uniform."""
  low, high = RATES
  return jnp.log(jax.random.uniform(key, shape, minval=low, maxval=high))


def first_step_shift(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Returns first shifts, of steps whose logarithms are uniform."""
  low, high = jnp.log(jnp.array(STEPS))
  step = jnp.exp(jax.random.uniform(key, shape, minval=low, maxval=high))
  return step + jnp.log(-jnp.expm1(-step))  # the inverse of softplus


def projected(
  params: Arrays, matrix: str, shift: str, x: jax.Array, inputs: int = 1
) -> jax.Array:
  """Returns x projected by a matrix, and shifted if there is a shift.

  matrix   its name
  shift    name of a vector that is added, in models that have it
  inputs   number of input axes of the matrix
  """
  y, shift_D = project_by(x, params, matrix, inputs), params.get(shift)
  return y if shift_D is None else y + shift_D.astype(y.dtype)


def unit(x: jax.Array) -> jax.Array:
  """Returns vectors of length 1 along the last axis."""
  return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + 1e-6)


def own_sizes(mixer: Any, dims: Dims) -> Dims:
  """Returns the sizes of a mixer, whose own ones go before those of the model.

  mixer   has `heads`, `key_heads`, `key_width` and `value_width`, or some of them

  Raises ValueError if the heads of keys do not divide those of values.
  """
  heads = getattr(mixer, "heads", 0) or dims.H
  key_heads = getattr(mixer, "key_heads", 0) or heads
  if heads % key_heads:
    raise ValueError(
      f"{key_heads} key_heads do not divide {heads} heads; change one of them"
    )
  K = getattr(mixer, "key_width", 0) or dims.K
  E = getattr(mixer, "value_width", 0) or dims.E or K
  return dataclasses.replace(dims, H=heads, G=key_heads, K=K, E=E)


def check_sizes(mixer: Any, *names: str, least: int = 0) -> None:
  """Raises SpecError where an argument is no size; 0 is the model's."""
  for name in names:
    size = getattr(mixer, name)
    if not whole(size, least):
      other = "of at least 1" if least else "above 0, or 0 for that of the model"
      raise SpecError(f"{mixer.name}: {name} is {size!r}; write a whole number {other}")


def check_convolution(mixer: Any) -> None:
  """Raises SpecError where the length of a convolution is none."""
  if not whole(mixer.convolution, 1):
    raise SpecError(
      f"{mixer.name}: convolution is {mixer.convolution!r}; write how many tokens it"
      f" reads, as in {mixer.name}(convolution=4), or 1 for none"
    )


def first_taps(
  key: jax.Array, shapes: dict[str, tuple[int, ...]], N: int
) -> dict[str, jax.Array]:
  """Returns first weights of convolutions by name; none if these read one token.

  shapes   of the features of each, without the axis N of tokens
  """
  if N == 1:
    return {}
  keys = jax.random.split(key, len(shapes))
  return {
    name: fan_in_uniform(own, (*shape, N), N)
    for own, (name, shape) in zip(keys, shapes.items(), strict=True)
  }


def check_choice(mixer: Any, name: str, choices: Iterable[str]) -> None:
  """Raises SpecError where an argument is none of its choices."""
  if (found := getattr(mixer, name)) not in choices:
    raise SpecError(
      f"{mixer.name}: {name} is {found!r}; write {' or '.join(map(repr, choices))}"
    )


def in_turn(updates: Sequence[StateUpdates]) -> StateUpdates:
  """Returns several updates for each token as one after another, [B, L * n, ...]."""

  def join(*arrays):
    x = jnp.stack(arrays, axis=2)
    return x.reshape(x.shape[0], -1, *x.shape[3:])

  return jax.tree.map(join, *updates)
