"""Multi-token attention: loops over the neighbours of each score, and its cache."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from interpreted import interpreted

from transformer_jax.attention import (
  BoundVariant,
  attentions,
  score_convolution,
)
from transformer_jax.attention.cores import cores
from transformer_jax.attention.score_convolution import convolve_scores
from transformer_jax.axes import Dims
from transformer_jax.models.compatibility import form
from transformer_jax.numpy_interpreter import evaluate
from transformer_jax.positions import PositionalEncoding, bind, coords
from transformer_jax.spec import SpecError

DIMS = Dims(V=2, D=16, H=4, F=2, L=12)
NOTHING = bind(PositionalEncoding(), {}, DIMS)
SEGMENTS = {
  "padding inside of a text, and at the end": (1, 1, 1, 1, 1, 2, 2, 0, 2, 2, 2, 0),
  "tokens side by side": (1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 0),
}
SPECS = [
  "mta(queries=3, keys=5)",
  "mta(queries=2, keys=3, heads=4, before=False, after=True, scaling='none')",
  "mta(2, 3, heads=0, mix_scores=True, norm=False)",
  "mta(3, 1, after=True, mix_scores=True, scaling='depth')",
  "mta(before=False, scaling='depth', start=0.5)",
]


def convolved(s_HLM, kernel_HQM):
  """Section 3.1: each score a sum over the queries before and the keys around it."""
  H, Q, W = kernel_HQM.shape
  out = np.zeros_like(s_HLM)
  for h, i, j in np.ndindex(*s_HLM.shape):
    for a in range(Q):
      for b in range(W):
        row, column = i - (Q - 1) + a, j + b - W // 2
        if 0 <= row and 0 <= column < s_HLM.shape[2]:
          out[h, i, j] += kernel_HQM[h, a, b] * s_HLM[h, row, column]
  return out


def mta(variant, w, q_LHK, k_LHK, v_LHK):
  """Returns [L, H, K] of one text, by sections 3.1 to 3.3."""
  L, H, K = q_LHK.shape
  past_LM = np.tri(L, dtype=bool)
  s = np.einsum("lhk,mhk->hlm", q_LHK, k_LHK) / math.sqrt(K)
  if variant.before:
    s = convolved(np.where(past_LM, s, 0), w["score_kernel_HQM"])
  if variant.mix_scores:
    s = np.einsum("hlm,hn->nlm", s, w["mix_scores_HN"])
  e = np.where(past_LM, np.exp(s), 0)
  p = e / e.sum(-1, keepdims=True)
  if variant.after:
    p = np.where(past_LM, convolved(p, w["weight_kernel_HQM"]), 0)
  if variant.heads:
    mix, C, found = w["mix_weights_HN"], variant.heads, []
    for h in range(H):
      first = h // C * C
      found.append(sum(mix[g, h - first] * p[g] for g in range(first, first + C)))
    p = np.array(found)
  o = np.einsum("hlm,mhk->lhk", p, v_LHK)
  if variant.norm:
    o = o / np.sqrt(np.mean(o**2, -1, keepdims=True) + 1e-5) * w["mta_gain_E"]
  if variant.scaling == "gate":
    o = o / (1 + np.exp(-(o @ w["mta_gate_E"] + w["mta_gate_shift"])))[..., None]
  if variant.scaling == "depth":
    o = o * (1 - (0.2 if variant.start is None else variant.start))
  return o


@functools.partial(interpreted, statics=2)
def ours(variant, segments, params, q, k, v, g):
  """Returns outputs of heads, and gradients of their product with g."""
  segment_L = np.array(segments)
  at = coords.padded(jnp.array(segment_L[None] > 0))
  order_L = [np.sum(segment_L[:n] == s) if s else -1 for n, s in enumerate(segments)]
  order_BL = jnp.array([order_L], jnp.int32)
  at = at.replace(
    order_BL=order_BL,
    horizon_BL=order_BL,
    segment_BL=jnp.array(segment_L[None], jnp.int32),
  )

  def attend(params, q, k, v):
    bound = BoundVariant(variant, params)
    o = cores.build("dense")(q, k, v, at, at, NOTHING, variant=bound)
    return variant.output(params, None, o)

  out, pull = jax.vjp(attend, params, q, k, v)
  return out, *pull(g)


@pytest.mark.parametrize("segments", SEGMENTS.values(), ids=SEGMENTS)
@pytest.mark.parametrize("spec", SPECS)
def test_values_and_gradients_are_those_of_loops(spec, segments):
  segment_L = np.array(segments)
  variant, random = attentions.build(spec), np.random.default_rng(0)
  start = evaluate(lambda: variant.init(jax.random.key(0), DIMS))
  w = {n: x + 0.3 * random.normal(size=x.shape) for n, x in start.items()}
  q, k, v, g = random.normal(size=(4, 12, 4, 4))

  def loops(w, q, k, v):
    out = np.zeros_like(v)
    for text in (1, 2):
      (here,) = np.nonzero(segment_L == text)
      out[here] = mta(variant, w, q[here], k[here], v[here])
    return out

  given = w, *(x[None] for x in (q, k, v))
  out, *grads = ours(variant, segments, *jax.tree.map(jnp.float32, (*given, g[None])))
  real = segment_L > 0
  np.testing.assert_allclose(out[0][real], loops(w, q, k, v)[real], atol=5e-6)
  d_w, *d_qkv = grads
  along = {n: random.normal(size=x.shape) for n, x in w.items()}
  turn = random.normal(size=(3, 12, 4, 4))

  def moved(step):
    there = {n: x + step * along[n] for n, x in w.items()}
    vectors = (x + step * t for x, t in zip((q, k, v), turn, strict=True))
    return np.sum(loops(there, *vectors) * g)

  got = sum(np.sum(d_w[n] * a) for n, a in along.items())
  got += sum(np.sum(d[0] * t) for d, t in zip(d_qkv, turn, strict=True))
  np.testing.assert_allclose(got, (moved(1e-5) - moved(-1e-5)) / 2e-5, rtol=2e-4)


def test_neutral_kernels_leave_a_softmax():
  variant = attentions.build("mta(norm=False, scaling='none', after=True)")
  params = evaluate(lambda: variant.init(jax.random.key(0), DIMS))
  assert all(np.all((x == 0) | (x == 1)) for x in params.values())
  s_BHLM = np.float32(np.random.default_rng(0).normal(size=(1, 4, 9, 9)))
  at = coords.consecutive(1, 9)
  weights = lambda bound: evaluate(
    lambda s: bound.weigh(s, bound.mask(at, at), at, at), s_BHLM
  )
  got = weights(BoundVariant(variant, params))
  want = weights(BoundVariant(attentions.build("multihead")))
  np.testing.assert_allclose(got, want, atol=1e-6)


def test_what_reads_earlier_queries_says_so():
  assert attentions.build("mta").rereads
  assert not attentions.build("mta(queries=1)").rereads
  assert not attentions.build("mta(before=False)").rereads
  for use in ("encoder", "prefix", "cross"):
    with pytest.raises(ValueError, match=f"mta in {use}.*use it in a decoder"):
      form(attentions.build("mta"), use)


@pytest.mark.parametrize(
  ("spec", "says"),
  [
    ("mta(0)", "queries is 0; write a whole number from 1"),
    ("mta(keys=4)", "keys is 4; write an odd number"),
    ("mta(scaling='x')", "scaling is 'x'; write gate, depth or none"),
    ("mta + topk", "mta and topk both decide how scores become weights"),
  ],
)
def test_bad_arguments_give_one_error(spec, says):
  with pytest.raises(SpecError, match=says):
    attentions.build(spec)


def test_groups_of_heads_divide_the_heads():
  with pytest.raises(ValueError, match="groups of 3 heads, which do not divide 4"):
    attentions.build("mta(heads=3)").init(jax.random.key(0), DIMS)


@pytest.mark.parametrize("segments", SEGMENTS.values(), ids=SEGMENTS)
def test_the_form_of_accelerators_is_that_of_cpus(segments, monkeypatch):
  random, at = np.random.default_rng(0), jax.jit(coords.packed)(np.array([segments]))
  mask_LM = np.array(at.segment_BL[0][:, None] == at.segment_BL[0])
  s_BHLM = random.normal(size=(1, 4, *mask_LM.shape)) * mask_LM
  kernel_HQN, d_BHLM = random.normal(size=(4, 3, 5)), random.normal(size=s_BHLM.shape)

  def both_passes(*arrays):
    convolve = functools.partial(convolve_scores, q_at=at, k_at=at)
    out, pull = jax.vjp(convolve, *arrays[:2])
    return out, pull(arrays[2])

  arrays = [x.astype(np.float32) for x in (s_BHLM, kernel_HQN, d_BHLM * mask_LM)]
  want = jax.jit(lambda *x: both_passes(*x))(*arrays)
  monkeypatch.setattr(score_convolution, "platform", lambda: "tpu")
  got = jax.jit(lambda *x: both_passes(*x))(*arrays)
  close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
  jax.tree.map(close, got, want)
