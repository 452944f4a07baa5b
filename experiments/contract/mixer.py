"""Contract of a mixer: every way to read a text, on one device and on several.

Every registered mixer is tested for it (tests/attention/test_mixers.py), a user's by
`python -m experiments.check my_file:MyClass`. A formula can still be wrong.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.axes import Dims
from transformer_jax.positions import coords
from transformer_jax.training import sharding

DIMS = Dims(V=12, D=16, H=2, F=16, L=32)
L, PROMPT = 24, 8  # tokens of a text, and of what is read before it is continued
RANDOM = np.random.default_rng(4).normal(size=(2, 2, L, DIMS.D)).astype(np.float32)
TEXT_BLD, OTHER_BLD = RANDOM[0], RANDOM[1]


@functools.cache
def parameters(mixer):
  """Returns parameters away from where they start, which may hide what is done."""
  random = np.random.default_rng(3)
  start = jax.jit(lambda key: mixer.init(key, DIMS))(jax.random.key(0))
  start |= {name: np.zeros(shape) for name, (shape, _) in mixer.weights(DIMS).items()}
  return {
    name: np.float32(x + 0.3 * random.normal(size=x.shape)) for name, x in start.items()
  }


@functools.partial(jax.jit, static_argnums=0)
def _read(mixer, params, x_BLD, at, cache=None):
  return mixer.mixed_by_state(params, x_BLD, at, cache)


def read(mixer, x_BLD, at):
  """Returns the update of two texts: one program for all coordinates of two rows."""
  return _read(mixer, parameters(mixer), jnp.float32(x_BLD), in_rows(at))[0]


def step(mixer, x_BLD, at, cache):
  """Returns the update of new tokens, and the cache after them."""
  return _read(mixer, parameters(mixer), jnp.float32(x_BLD), in_rows(at), cache)


def in_rows(at):
  """Returns coordinates with a row for each of two texts."""
  return jax.tree.map(lambda x: jnp.broadcast_to(x, (2, *x.shape[1:])), at)


def plain(mixer, x_BLD=TEXT_BLD):
  """Returns the update of two texts of L tokens."""
  return read(mixer, x_BLD, coords.consecutive(1, L))


def empty(mixer):
  return mixer.cache(DIMS, 2, "float32")


def close(found, wanted):
  np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_no_token_reads_the_future(mixer):
  later = np.arange(L)[:, None] >= 13
  close(
    plain(mixer, np.where(later, OTHER_BLD, TEXT_BLD))[:, :13], plain(mixer)[:, :13]
  )


def test_packed_texts_equal_the_texts_alone(mixer):
  row = jnp.array([[1] * 9 + [2] * 13 + [0] * 2])
  packed = read(mixer, TEXT_BLD, coords.packed(row))
  close(packed[:, :9], plain(mixer)[:, :9])
  close(packed[:, 9:22], plain(mixer, np.roll(TEXT_BLD, -9, axis=1))[:, :13])


def test_padding_anywhere_is_skipped(mixer):
  real = np.ones((2, L), bool)
  real[:, [0, 1, 7, 8, 23]] = False  # before, between and after the tokens
  some = read(mixer, TEXT_BLD, coords.padded(jnp.asarray(real)))
  dense = OTHER_BLD.copy()
  dense[:, :19] = TEXT_BLD[real].reshape(2, 19, -1)
  close(some[real].reshape(2, 19, -1), plain(mixer, dense)[:, :19])


def test_decoding_on_the_cache_equals_one_pass(mixer):
  cache, found = empty(mixer), []
  for start, end in ((0, PROMPT), (PROMPT, PROMPT + 1), (PROMPT + 1, 2 * PROMPT + 1)):
    at = coords.consecutive(1, end - start, start)
    update, cache = step(mixer, TEXT_BLD[:, start:end], at, cache)
    found.append(update)
  close(jnp.concatenate(found, axis=1), plain(mixer)[:, : 2 * PROMPT + 1])


def test_decoding_after_prompts_of_several_lengths(mixer):
  lengths = 8, 5
  real = np.arange(PROMPT) < np.array(lengths)[:, None]
  at = coords.padded(jnp.asarray(real))
  _, cache = step(mixer, TEXT_BLD[:, :PROMPT], at, empty(mixer))
  after = jnp.array(lengths)[:, None]
  at = coords.Coords(after, after, after, jnp.ones_like(after))
  texts = list(enumerate(lengths))
  next_B1D = np.stack([TEXT_BLD[row, [length]] for row, length in texts])
  found = step(mixer, next_B1D, at, cache)[0][:, 0]
  close(found, np.stack([plain(mixer)[row, length] for row, length in texts]))


def test_a_cache_has_the_axes_of_its_state(mixer):
  cache = empty(mixer)
  _, after = jax.eval_shape(
    lambda cache: step(mixer, TEXT_BLD[:, :1], coords.consecutive(1, 1), cache), cache
  )

  def shapes(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)

  assert shapes(after) == shapes(cache)


def test_bfloat16_is_near_float32(mixer):
  params, at = parameters(mixer), coords.consecutive(1, L)
  found = jax.jit(lambda p, x: mixer.mixed_by_state(p, x, at)[0])(
    params, jnp.bfloat16(TEXT_BLD)
  )
  assert found.dtype == jnp.bfloat16
  wanted = plain(mixer)
  apart = np.abs(np.float32(found) - wanted).mean() / np.abs(wanted).mean()
  assert apart < 0.1, f"bfloat16 is {apart:.2f} of the updates away"


def test_gradients_on_a_mesh_that_splits_parameters(mixer):
  at = coords.consecutive(1, L)

  def loss(params, x_BLD):
    return jnp.sum(jnp.sin(mixer.mixed_by_state(params, x_BLD, at)[0]))

  def gradients(*args):
    return jax.jit(jax.grad(loss))(*args)

  wanted = gradients(parameters(mixer), TEXT_BLD)
  mesh = sharding.make_mesh(data=2, tensor=2)
  with jax.set_mesh(mesh):
    params = jax.device_put(parameters(mixer), sharding.split(mesh, parameters(mixer)))
    found = gradients(params, sharding.place_rows(mesh, TEXT_BLD))
  for name, slope in wanted.items():
    np.testing.assert_allclose(found[name], slope, rtol=1e-3, atol=1e-3, err_msg=name)
    assert np.any(slope != 0), f"parameter '{name}' has no gradient"
