"""Test harness of the contracts: a layer as models call it, kinds of coordinates."""

import contextlib
import functools
import re
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax import numpy_interpreter
from transformer_jax.attention.cache import empty, newest, remember
from transformer_jax.attention.cores import cores
from transformer_jax.axes import Dims
from transformer_jax.positions import bind, coords

B, L, H, K, D = 2, 24, 4, 8, 32
DIMS = Dims(V=16, D=D, H=H, F=64, L=L)
# The second text of row 0 is the shorter one: a leak from the first would show.
CUT = 14
SEGMENTS = jnp.array([[1] * CUT + [2] * (L - CUT), [3] * 4 + [1] * 20])
REAL = jnp.arange(L) >= jnp.array([[9], [2]])
HOLES = ~np.isin(np.arange(L), [0, 3, 4, 10, 11, 12, 20])  # mask of real tokens
FAR = 2**20


@contextlib.contextmanager
def refused(pattern: str) -> Iterator[None]:
  """Asserts a ValueError whose message matches a pattern."""
  try:
    yield
  except ValueError as error:
    assert re.search(pattern, str(error)), f"{error}: it must match {pattern!r}"
  else:
    raise AssertionError(f"no error was raised that matches {pattern!r}")


def with_ids(at):
  """Adds the ids that some encodings read, here as functions of the order."""
  n_BL = jnp.maximum(at.order_BL, 0) % 240  # a whole number of rows from 1000 on
  ids = {"row_BL": n_BL // 5, "column_BL": n_BL % 5}
  ids |= {"abacus_BL": (n_BL + 2) % 4, "coupled_BL": jnp.abs(n_BL - 11)}
  ids |= {"step_BL": n_BL // 3, "time_BL": n_BL // 10}
  return at.replace(data=ids)


def modes():
  """Returns coordinates of every kind, all with batch axis B: one program fits all."""

  def consecutive(start=0):
    at = coords.consecutive(1, L, start)
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (B, L)), at)

  causal = consecutive()
  kinds = {
    "causal": causal,
    "packed": coords.packed(SEGMENTS),
    "left_padded": coords.padded(REAL),
    "right_padded": coords.padded(REAL[:, ::-1]),
    "first_half": coords.padded(jnp.arange(L) < jnp.full((B, 1), 12)),
    "moved": consecutive(1000),
    "far": consecutive(FAR),
    "randomized": coords.randomized(jax.random.key(0), causal, 64),
  }
  return {name: with_ids(at) for name, at in kinds.items()}


def either_way():
  """Returns coordinates of texts that are read both ways, in whole or in part."""
  kinds = modes()
  return {
    "bidirectional": kinds["causal"].bidirectional(),
    "packed, bidirectional": kinds["packed"].bidirectional(),
    "padded, bidirectional": kinds["left_padded"].bidirectional(),
    "prefix": kinds["causal"].prefix(jnp.array([[5], [9]])),
    "packed, prefix": kinds["packed"].prefix(jnp.array([[3], [2]])),
  }


def computed(function):
  """Returns the arrays of a function without compiling its operations."""
  return jax.tree.map(jnp.asarray, numpy_interpreter.evaluate(function))


MODES, EITHER_WAY = computed(modes), computed(either_way)


@functools.cache
def inputs(encoding, seed=0):
  """Returns (params, q, k, v, x); parameters are moved off their neutral start."""
  random = np.random.default_rng(seed)

  def draw(*shape):
    return np.asarray(random.normal(size=shape), np.float32)

  q, k, v, x = *(draw(B, L, H, K) for _ in range(3)), draw(B, L, D)
  params = numpy_interpreter.evaluate(lambda: encoding.init(jax.random.key(seed), DIMS))
  params = {n: x + 0.2 * draw(*x.shape) for n, x in params.items()}
  return jax.tree.map(
    functools.partial(jnp.asarray, dtype=jnp.float32), (params, q, k, v, x)
  )


def attend(core, encoding, params, q, k, v, x, at):
  """Attends as a model's layer does, with assigned positions.

  core       computes the attention
  encoding   its positions; params are its parameters
  q, k, v    queries, keys, values: arrays BLHK
  x          tokens BLD
  at         coordinates of the tokens
  """
  position = bind(encoding, params, DIMS)
  q, k, v, at = read(position, q, k, v, x, at)
  at = position.accumulate(at)
  q, k = position.transform_qk(q, k, at, at)
  return core(q, k, v, at, at, position, K**-0.5)


def read(position, q, k, v, x, at):
  """Returns vectors that hold the embedded tokens, and coordinates with token data.

  position   the bound encoding
  q, k, v    queries, keys, values: arrays BLHK
  x          tokens BLD, which are added to them
  at         coordinates of the tokens
  """
  x = position.embed(x, at)
  q, k, v = (y + 0.3 * x.reshape(y.shape) for y in (q, k, v))
  return q, k, v, position.read(x, q, at)


@functools.cache
def program(core, encoding):
  """Returns jitted `(inputs, at, g) -> (output, gradients of sum(output * g))`."""

  def loss(inputs, at, g):
    params, q, k, v, x = inputs
    out = attend(cores.build(core), encoding, params, q, k, v, x, at)
    return jnp.sum(out * g), out

  gradient = jax.value_and_grad(loss, has_aux=True)

  def run(inputs, at, g):
    (_, out), grads = gradient(inputs, at, g)
    return out, grads

  return jax.jit(run)


def outputs(encoding, at, given=None):
  """Returns the outputs of dense attention."""
  given = inputs(encoding) if given is None else given
  return program("dense", encoding)(given, at, jnp.ones((B, L, H, K)))[0]


def compare_cores(encoding, kinds, blockwise="blockwise(block=7)"):
  """Compares blockwise with dense, values and gradients, or checks its refusal."""
  everything = inputs(encoding)
  g = jnp.asarray(np.random.default_rng(9).normal(size=(B, L, H, K)), jnp.float32)
  refusal = cores.build(blockwise).refusal(encoding)
  if refusal:
    assert encoding.name in refusal and "blockwise" in refusal and "dense" in refusal
    with refused("whole rows"):
      params, q, k, v, x = everything
      attend(cores.build(blockwise), encoding, params, q, k, v, x, MODES["causal"])
    assert encoding.overrides("full_scores")
    return
  for mode, at in kinds.items():
    if at.pos_BL.max() >= (encoding.num_positions(DIMS) or jnp.inf):
      continue
    want, want_grads = program("dense", encoding)(everything, at, g)
    # A block of 7 does not divide 24: tiles are padded, split by the diagonal, skipped.
    got, got_grads = program(blockwise, encoding)(everything, at, g)
    # Sums of float32 in another order; gradients add up to L * H * K terms.
    np.testing.assert_allclose(got, want, atol=2e-6, err_msg=mode)
    same(mode, 3e-5, 2e-5, got_grads, want_grads)


def programs(jitted: Callable) -> int:
  """Returns how many programs a jitted function has compiled."""
  return jitted._cache_size()  # type: ignore[attr-defined]  # JAX does not declare it


def same(mode, atol, rtol, got, want):
  """Compares trees of sums: one near zero is rounded as the largest of its terms is.

  mode         named in the error
  atol, rtol   absolute and relative tolerance
  got, want    the computed and the expected tree

  In float64 the gradient of a learned scale, -9.5, is 8e-5 from the definition's and
  3e-4 from the ring's, where other gradients reach 133. That of a unit of cpb's
  network, 0.3626, is 4e-5 from the definition's on one machine, beside others of 20.
  """
  got, want = jax.device_get((got, want))
  atol += 2e-6 * max(float(np.abs(x).max()) for x in jax.tree.leaves(want))
  compare = functools.partial(np.testing.assert_allclose, atol=atol, rtol=rtol)
  jax.tree.map(functools.partial(compare, err_msg=mode), got, want)


def fit(run, given, target, steps):
  """Returns losses of gradient descent on `given`, which `run` maps to an output.

  run   `(given, cotangent) -> (output, gradients)`; all else is NumPy, which compiles
        nothing for the shapes of an encoding's parameters
  """
  given, losses = jax.device_get(given), []
  out, _ = jax.device_get(run(given, target))
  for _ in range(steps):
    _, grads = jax.device_get(run(given, out - target))
    norm = np.sqrt(sum(float(np.sum(np.square(x))) for x in jax.tree.leaves(grads)))
    step = functools.partial(descend, rate=1.0 / (10 + norm))
    given = jax.tree.map(step, given, grads)
    out, _ = jax.device_get(run(given, target))
    losses.append(float(np.sum((out - target) ** 2)))
  return losses


def descend(x, gradient, rate):
  """Returns an array after one step of gradient descent, in its own dtype."""
  return (x - rate * gradient).astype(x.dtype)


def decoded(core, encoding, given, at, first=0):
  """Returns the outputs of incremental decoding: `first` tokens, then one at a time.

  core, encoding   of the layer
  given            (params, q, k, v, x), as `inputs` returns
  at               coordinates of all tokens
  first            tokens of the prompt
  """
  params, *arrays = given
  position, core = bind(encoding, params, DIMS), cores.build(core)

  def step(cache, tokens):
    q, k, v, here = read(position, *tokens)
    cached, k_at, cache = remember(cache, {"key": k, "value": v}, here)
    k, v = cached["key"], cached["value"]
    k_at = position.accumulate(k_at)
    q_at = newest(k_at, cache, q.shape[1])
    q, k = position.transform_qk(q, k, q_at, k_at)
    return cache, core(q, k, v, q_at, k_at, position, K**-0.5)

  _, k, v, start = jax.eval_shape(functools.partial(read, position), *arrays, at)

  def with_room(y):
    return jax.ShapeDtypeStruct((B, L + 3, *y.shape[2:]), y.dtype)

  memory, data = jax.tree.map(with_room, ({"key": k, "value": v}, start))
  cache = empty(memory, data)
  prompt = jax.tree.map(lambda y: y[:, :first], (*arrays, at))
  cache, out = step(cache, prompt) if first else (cache, jnp.zeros((B, 0, H, K)))
  rest = jax.tree.map(lambda y: jnp.moveaxis(y[:, first:, None], 1, 0), (*arrays, at))
  rest = jax.lax.scan(step, cache, rest)[1]
  return jnp.concatenate([out, jnp.moveaxis(rest[:, :, 0], 0, 1)], axis=1)
