"""Test harness of attention variants: a layer with projections, cache and output."""

import contextlib
import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np

from experiments.contract.harness import DIMS, MODES, B, L, refused, same
from transformer_jax import numpy_interpreter
from transformer_jax.attention.carry import Carry
from transformer_jax.attention.cores import Core, cores
from transformer_jax.models import Architecture
from transformer_jax.models.transformer import Attention
from transformer_jax.positions import bind, coords, positions
from transformer_jax.positions.rope import Rope
from transformer_jax.training import sharding


@dataclasses.dataclass(frozen=True)
class Both(Rope):
  """Rotates queries and keys and adds a learned bias, which uses most hooks."""

  integer_positions = True

  def init(self, key, dims):
    return {"table_HN": jax.random.normal(key, (dims.H, 8))}

  def bias(self, params, pos_L, pos_M):
    apart_LM = jnp.abs(pos_L[:, None] - pos_M[None, :])
    return params["table_HN"][jnp.minimum(apart_LM, 7)]


# A block of 7 does not divide 24: tiles are padded, split by the diagonal, skipped.
CORES = {
  "blockwise": "blockwise(block=7)",
  "blockwise at once": "blockwise(block=7, at_once=True)",
  "cudnn": "cudnn(implementation='xla')",
}
MESHES = {"ring": lambda: jax.set_mesh(sharding.make_mesh(sequence=4))}
TILED = sorted({*cores, *CORES} - {"auto", "dense"})
ENCODINGS = [Both(), positions.build("none")]
NOTHING = positions.build("none")
M = 17  # tokens of the text that a decoder attends to
SOURCE = coords.padded(jnp.arange(M) < jnp.array([[17], [12]])).bidirectional()
# Most test time is compilation, which is faster without optimization.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def make(variant, encoding=None, core="dense"):
  """Returns a layer; without an encoding, with the first that the variant accepts."""
  core = cores.build(core)
  served = (e for e in ENCODINGS if cores.build("dense").refusal(e, variant) is None)
  encoding = next(served) if encoding is None else encoding
  return layer(Architecture(DIMS, encoding, core, variant, decoders=1))


def layer(arch):
  return Attention(arch, *arch.layer("decoder", 0))


def other(layer, **changes):
  """Returns the layer with some parts changed."""
  return make(**{"variant": layer.variant, "encoding": layer.position} | changes)


class Nothing(Core):
  """A core without computation, where only parameters are needed."""

  def __call__(self, q_BLHK, k_BMGK, v_BMGE, *rest):
    return jnp.zeros((*q_BLHK.shape[:3], v_BMGE.shape[-1]), v_BMGE.dtype)


@functools.lru_cache(maxsize=32)
def inputs(layer, seed=0):
  """Returns parameters, off their neutral start, and tokens."""
  random = np.random.default_rng(seed)

  def moved(x):
    return jnp.asarray(x + 0.2 * random.normal(size=x.shape).astype(np.float32))

  init = functools.partial(other(layer, core=Nothing()).init, jax.random.key(seed))
  x, at = inputs_at(layer)
  ids = token_ids(at)
  start = numpy_interpreter.evaluate(lambda x, at: init(x, at, carry=ids), x, at)
  params = jax.tree.map(moved, start["params"])
  return params, jnp.asarray(random.normal(size=(B, L, DIMS.D)), jnp.float32)


def attend(layer, params, x, at, cache=None, memory=None):
  """Returns the layer's output and cache, called as a model calls it.

  layer    the attention layer
  params   its parameters
  x        tokens, BLD
  at       their coordinates
  cache    of earlier tokens, or None
  memory   (source, its coordinates) for cross-attention, or None
  """
  position_params = params.get("position", {})
  x = bind(layer.position, position_params, DIMS).embed(x, at)
  kept = {"cache": cache, "memory": memory, "carry": token_ids(at)}
  return layer.apply({"params": params}, x, at, **kept)[:2]


def token_ids(at):
  """Returns a carry with ids of tokens, for variants that read them."""
  return Carry().put(
    "token_BL", jnp.broadcast_to(at.order_BL % DIMS.V, (B, at.order_BL.shape[1]))
  )


@functools.lru_cache(maxsize=32)
def program(layer):
  """Returns jitted `(params, x, at, g) -> (output, gradients of sum(output * g))`."""

  def loss(params, x, at, g):
    out_BLD, _ = attend(layer, params, x, at)
    return jnp.sum(out_BLD * g), out_BLD

  gradient = jax.value_and_grad(loss, (0, 1), has_aux=True)

  def run(params, x, at, g):
    (_, out_BLD), grads = gradient(params, x, at, g)
    return out_BLD, grads

  return jit(run)


def placed(layer, at):
  """Returns coordinates with the positions that the encoding chooses."""
  return layer.position.assign_positions(None, at)


def outputs(layer, at, given=None):
  """Returns the layer's outputs."""
  given = inputs(layer) if given is None else given
  return program(layer)(*given, placed(layer, at), jnp.ones((B, L, DIMS.D)))[0]


def close(got, want, mode="", atol=5e-6, rtol=1e-6):
  """Asserts that two arrays are close.

  got, want    the computed and the expected array
  mode         named in the error
  atol, rtol   absolute and relative tolerance
  """
  np.testing.assert_allclose(got, want, atol=atol, rtol=rtol, err_msg=mode)


def compare_cores(dense, name, kinds):
  """Compares a core with dense, values and gradients, or checks its refusal."""
  tested = other(dense, core=CORES.get(name, name))
  reason = tested.arch.core.refusal(dense.position, dense.variant)
  if reason:
    return check_refusal(tested, name, reason)
  g = np.random.default_rng(9).normal(size=(B, L, DIMS.D)).astype(np.float32)
  for mode, at in kinds.items():
    at = placed(dense, at)
    if at.pos_BL.max() >= (dense.position.num_positions(DIMS) or jnp.inf):
      continue
    want, want_grads = program(dense)(*inputs(dense), at, g)
    with MESHES.get(name, contextlib.nullcontext)():
      got, got_grads = program(tested)(*inputs(dense), at, g)
    # Sums of float32 in another order; gradients add up to B * L * D terms.
    same(f"{name}, {mode}", 5e-6, 1e-6, got, want)
    same(f"{name}, {mode}", 5e-5, 3e-5, got_grads, want_grads)


def check_refusal(layer, core, reason):
  """Checks that a refusal names both options and a cure, and is raised."""
  assert layer.variant.name in reason or layer.position.name in reason, reason
  assert core.partition(" ")[0] in reason and ("use " in reason or "set " in reason), (
    reason
  )
  with refused(re.escape(reason)):
    x, at = inputs_at(layer)
    init = functools.partial(layer.init, carry=token_ids(at))
    jax.eval_shape(init, jax.random.key(0), x, at)


def inputs_at(layer):
  """Returns tokens and coordinates to start a layer with."""
  return jnp.zeros((B, L, DIMS.D)), placed(layer, MODES["causal"])
