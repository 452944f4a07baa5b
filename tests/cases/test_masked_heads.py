"""Heads that an encoding keeps from some keys, as alibi(both_ways='two_sided') does.

Reported: it added -1e30 to their scores, and soft caps, mixtures of heads and DAPE's
network calculated with that number: weight for keys on the other side, uniform or
one-hot weights elsewhere. Right: weight 0 there, in every core, and no trace of these
keys in a gradient.
"""

import contextlib
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from interpreted import interpreted
from test_attentions import SPECS as VARIANTS

from transformer_jax.attention import BoundVariant, attentions
from transformer_jax.attention.cores import cores
from transformer_jax.axes import Dims
from transformer_jax.models.compatibility import form
from transformer_jax.numpy_interpreter import evaluate
from transformer_jax.positions import PositionalEncoding, bind, coords, positions
from transformer_jax.training import sharding

L, H, K = 12, 4, 8
DIMS = Dims(V=8, D=H * K, H=H, F=8, L=L)
TWO = "alibi(both_ways='two_sided')"
ENCODINGS = [
  TWO,
  "alibi_learned(both_ways='two_sided')",
  f"tupe(plus={TWO})",
  f"randomized(every(2, none, {TWO}))",
  f"dape({TWO}, kernel=3)",
]
# Each core has tiles of which a head attends to all, to some and to nothing.
CORES = {
  "dense": "dense",
  "blockwise": "blockwise(block=4)",
  "ring": "ring(block=2)",
  "pallas_tpu": "pallas_tpu",
  "pallas_gpu": "pallas_gpu",
}
random = np.random.default_rng(0)
QKV = [jnp.asarray(random.normal(size=(1, L, H, K)), jnp.float32) for _ in range(3)]
MIX = jnp.eye(H) + 0.1 * jnp.asarray(random.normal(size=(H, H)), jnp.float32)


@functools.cache
def attended(encoding, variant, core="dense", gradients=True):
  """Returns ((loss, outputs), gradients by q, k, v and the encoding).

  The loss is that of queries 3 and 7. Without gradients: (loss, outputs).
  """
  at = coords.consecutive(1, L).bidirectional()
  variant = form(attentions.build(variant), "encoder")
  learned = variant.init(jax.random.key(1), DIMS)
  learned |= {name: MIX for name in learned if name.startswith("mix_")}

  def loss(qkv, params):
    position = bind(encoding, params, DIMS)
    bound = BoundVariant(variant, learned)
    scale = variant.scale(learned, K)
    out_BLHK = cores.build(CORES[core])(*qkv, at, at, position, scale, bound)
    return jnp.sum(jnp.sin(out_BLHK[:, [3, 7]])), out_BLHK

  params = encoding.init(jax.random.key(0), DIMS)
  mesh = jax.set_mesh(sharding.make_mesh(sequence=3)) if core == "ring" else None
  with mesh or contextlib.nullcontext():
    run = jax.value_and_grad(loss, (0, 1), has_aux=True) if gradients else loss
    # Compiling a core that can be interpreted takes longer.
    if core in ("dense", "blockwise"):
      return evaluate(run, QKV, params)
    return jax.jit(run)(QKV, params)


def both_ways(spec):
  return positions.build(spec).bidirectional().layer(0)


def one_sided(attended):
  """Says whether no head reads from the side that it does not attend to."""
  _, (grads, _) = attended
  past, future = slice(0, 2), slice(2, 4)
  for name, d_BLHK in zip("kv", grads[1:], strict=True):
    assert not np.any(d_BLHK[:, 8:, past]), f"the past reads the future's {name}"
    assert not np.any(d_BLHK[:, :3, future]), f"the future reads the past's {name}"
    assert np.all(np.any(d_BLHK[:, :3, past], axis=-1))
  assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(attended))


def refusal(core, encoding, variant):
  variant = form(attentions.build(variant), "encoder")
  return cores.build(CORES[core]).refusal(encoding, variant)


MIXED = "softcap(1)", "talking_heads(after=False)", "talking_heads"
PAIRS = [
  # Each encoding once, and each variant once.
  pytest.param(encoding, variant, marks=[pytest.mark.slow] * (n > 0 < m))
  for n, encoding in enumerate(ENCODINGS)
  for m, variant in enumerate(MIXED)
  if not ("talking" in variant and "dape" in encoding)
]  # both mix heads: a key of one is a score of all


@pytest.mark.parametrize(("encoding", "variant"), PAIRS)
def test_a_head_gives_no_weight_to_what_it_does_not_attend_to(encoding, variant):
  one_sided(attended(both_ways(encoding), variant))


# Weights, scores and mixtures that are computed in ways of their own; all refusals.
QUICK = "additive", "bigbird", "cog", "concat", "cosine", "dilated", "differential"
QUICK += "entmax", "sparsemax"
QUICK += "l2_distance", "laser", "linear", "performer", "relu", "selective", "sigmoid"
QUICK += "sinks", "softcap(2)", "softmax_one", "stick_breaking", "talking_heads", "topk"
slow = lambda spec: () if spec in QUICK else pytest.mark.slow


@pytest.mark.parametrize(
  "variant", [pytest.param(spec, marks=slow(spec)) for spec in VARIANTS]
)
def test_no_variant_gives_weight_there(variant):
  encoding = both_ways(TWO)
  try:
    reason = refusal("dense", encoding, variant)
  except ValueError as error:  # it has no form that looks both ways, so no such mask
    assert variant.partition("(")[0] in str(error)
    return
  if reason:
    assert "encoding that" in reason
  elif not variant.startswith("dilated"):  # which leaves out keys of its own
    out = attended(encoding, variant)
    _, (grads, _) = out
    assert not np.any(grads[2][:, 8:, :2]) and not np.any(grads[2][:, :3, 2:])


def test_mixed_scores_are_those_of_their_heads():
  """A mixture near the identity changes weights by little, as without a mask."""
  plain, near = (attended(both_ways(TWO), v)[0][1]
                 for v in ("multihead", "talking_heads(after=False)"))  # fmt: skip
  assert 1e-4 < np.abs(near - plain).max() < 0.5


def test_dape_starts_near_the_content():
  """Its network saw -1e30, and its heads looked at one key, or at all alike."""
  at = coords.consecutive(1, L).bidirectional()
  encoding = both_ways(f"dape({TWO})")
  position = bind(encoding, encoding.init(jax.random.key(0), DIMS), DIMS)
  places = jnp.broadcast_to(jnp.eye(L)[None, :, None], (1, L, H, L))
  run = interpreted(cores.build("dense"))
  w_LHM = np.asarray(run(*QKV[:2], places, at, at, position)[0])
  assert w_LHM[5].max() < 0.99
  assert np.ptp(w_LHM[5, 0, :6]) > 0.01 and np.ptp(w_LHM[5, 2, 5:]) > 0.01


# What changes scores and sums is tried always; blockwise leaves out more without it.
GPU = "pallas_gpu"  # whose program is that of pallas_tpu
SIMPLE = [
  pytest.param(core, "multihead", marks=[pytest.mark.slow] * (core != "blockwise"))
  for core in sorted({*CORES} - {"dense"})
]


@pytest.mark.parametrize(
  ("core", "variant"),
  SIMPLE
  + [
    pytest.param(core, "softcap(1) + sinks", marks=[pytest.mark.slow] * (core == GPU))
    for core in sorted({*CORES} - {"dense"})
  ],
)
def test_every_core_masks_as_dense_does(core, variant):
  encoding = both_ways(ENCODINGS[1])
  assert refusal(core, encoding, variant) is None
  got, want = (attended(encoding, variant, name) for name in (core, "dense"))
  one_sided(got)
  close = functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-5)
  jax.tree.map(close, got, want)


def test_a_mask_joins_scores_that_read_it():
  """`score` gets what its own head attends to; so does the kernel of a tile."""

  @dataclasses.dataclass(frozen=True)
  class Counts(PositionalEncoding):
    def constants(self, dims):
      return {"side_H": jnp.sign(jnp.arange(dims.H) - dims.H / 2 + 0.5)}

    def mask(self, params, pos_L, pos_M):
      return params["side_H"] * (pos_L[:, None] - pos_M[None, :]) <= 0

    def score(self, params, s_LM, tile):
      return s_LM + jnp.where(tile.mask_LM, 1.0, jnp.nan)

  out = {
    core: attended(Counts(), "multihead", core, gradients=False)[1]
    for core in ("dense", "blockwise", "pallas_tpu")
  }
  assert np.all(np.isfinite(out["dense"]))
  for core in ("blockwise", "pallas_tpu"):
    np.testing.assert_allclose(out[core], out["dense"], atol=2e-5)


@pytest.mark.parametrize("core", ["blockwise", "ring"])
def test_keys_counted_for_all_heads_are_refused(core):
  assert "masks some by head" in refusal(core, both_ways(TWO), "relu")
