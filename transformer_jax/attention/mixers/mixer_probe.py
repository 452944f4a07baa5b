"""Probe of a mixer: shapes, and what a causal text asks of it, on eight tokens."""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.attention.mixers.base import Mixer
from transformer_jax.attention.variants.base import Variant
from transformer_jax.axes import Dims
from transformer_jax.members import check_members, outside, parts
from transformer_jax.positions import coords
from transformer_jax.spec import SpecError

SIZES = Dims(V=11, D=8, H=2, F=8, L=16, E=4)
L, CUT = 8, 5  # tokens, and those of the first text
FAR = 1e-3  # a difference that is none of rounding


def check(attention: Variant) -> None:
  """Raises SpecError if a user's mixer, or one in a variant, breaks the contract."""
  for mixer in parts(attention, Variant):
    if isinstance(mixer, Mixer) and outside(type(mixer)):
      check_members(mixer, Variant)
      probe(mixer)


@functools.lru_cache(maxsize=64)
def probe(mixer: Mixer, dims: Dims = SIZES) -> None:
  """Raises SpecError, naming the class and what to change, for a broken contract."""
  for problem in _problems(mixer, dims):
    raise SpecError(f"{type(mixer).__name__}{problem}")


def _problems(mixer: Mixer, dims: Dims) -> Iterator[str]:
  """Yields a message for each broken contract, to follow the name of the class."""
  params = _params(mixer, dims)
  x_BLD, other_BLD = np.random.default_rng(0).normal(size=(2, 1, L, dims.D))
  run = jax.jit(lambda params, x, at: mixer.mixed_by_state(params, x, at)[0])
  first, second = np.arange(L) < CUT, np.arange(L) >= CUT
  usual = run(params, jnp.float32(x_BLD), coords.consecutive(1, L))
  if usual.shape != x_BLD.shape:
    yield f".result returns {usual.shape} for tokens {x_BLD.shape}; return their axes"
    return
  changed = np.where(first[:, None], x_BLD, other_BLD)
  after = run(params, jnp.float32(changed), coords.consecutive(1, L))
  if _apart(usual, after, first):
    yield (
      ": what later tokens hold changes earlier ones; make keys, values and decays of"
      " each token by itself, or by `taps`"
    )
  packed = coords.packed(jnp.array([[1] * CUT + [2] * (L - CUT)]))
  row = run(params, jnp.float32(x_BLD), packed)
  alone = run(params, jnp.float32(changed), packed)
  if _apart(row, alone, first) or _differs(run, params, x_BLD, row, second):
    yield " reads over the border of two texts in one row; read other tokens by `taps`"
  loss = lambda params: jnp.sum(jnp.sin(run(params, jnp.float32(x_BLD), packed)))
  for name, slope in jax.jit(jax.grad(loss))(params).items():
    if not np.any(slope != 0):
      yield (
        f": parameter '{name}' has no gradient, because no hook computes with it; read"
        f" params['{name}'] in a hook, or leave it out"
      )


def _params(mixer: Mixer, dims: Dims) -> dict[str, jax.Array]:
  """Returns parameters that are moved from where they start."""
  start = dict(mixer.init(jax.random.key(0), dims))
  for name, (shape, _) in mixer.weights(dims).items():
    start[name] = jnp.zeros(shape)
  random = np.random.default_rng(1)
  return {
    name: jnp.float32(x + 0.3 * random.normal(size=x.shape))
    for name, x in start.items()
  }


def _differs(run, params, x_BLD, row, second) -> bool:
  """Returns whether the second text of a row is not what it is alone."""
  at = coords.consecutive(1, int(second.sum()))
  alone = run(params, jnp.float32(x_BLD[:, second]), at)
  return bool(np.abs(row[:, second] - alone).max() > FAR)


def _apart(one: jax.Array, two: jax.Array, places: np.ndarray) -> bool:
  return bool(np.abs(np.asarray(one - two))[:, places].max() > FAR)
