"""MoBA, which chooses blocks of keys, softpick and log-linear attention.

Against loops over blocks and keys, written from the paper, and against the numbers of
the authors' programs.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from interpreted import interpreted
from test_recorded import recorded

from transformer_jax.attention import BoundVariant, attentions
from transformer_jax.attention.cores import cores
from transformer_jax.attention.cores.context import Context
from transformer_jax.axes import Dims
from transformer_jax.models.compatibility import form
from transformer_jax.numpy_interpreter import evaluate
from transformer_jax.positions import PositionalEncoding, bind, coords, positions
from transformer_jax.spec import SpecError

DIMS = Dims(V=2, D=16, H=2, F=2, L=12)
NOTHING = bind(PositionalEncoding(), {}, DIMS)


def close(got, want, atol=2e-6):
  """Compares arrays of order one whose float32 noise is about a millionth."""
  np.testing.assert_allclose(got, want, atol=atol, rtol=2e-6)


@functools.partial(interpreted, statics=1)
def dense(variant, q, k, v, at, position, g, scale=None):
  """Returns attention and the gradients of its product with g for q, k and v."""

  def attend(q, k, v):
    bound = BoundVariant(variant)
    return cores.build("dense")(q, k, v, *at, position, scale, bound)

  out, pull = jax.vjp(attend, q, k, v)
  return out, *pull(g)


# Equations 2 to 6 of the paper, one query at a time.


def moba(q_LK, k_LK, v_LK, block, k):
  """Returns one head of one text."""
  L = len(q_LK)
  out = []
  for i in range(L):
    own = i // block
    gate = {
      n: q_LK[i] @ np.mean(k_LK[n * block : (n + 1) * block], axis=0)
      for n in range(own)
    }
    best = sorted(gate, key=gate.get, reverse=True)[: k - 1]
    keys = [j for j in range(i + 1) if j // block in (*best, own)]
    e = [math.exp(q_LK[i] @ k_LK[j] / math.sqrt(q_LK.shape[-1])) for j in keys]
    out.append(sum(x * v_LK[j] for x, j in zip(e, keys, strict=True)) / sum(e))
  return np.array(out)


# Two texts and padding between them; the second one's blocks start with it.
SEGMENTS = np.array([[1] * 9 + [0] * 2 + [2] * 13])
PACKED = coords.packed(jnp.array(SEGMENTS))


@pytest.mark.parametrize(("block", "k"), [(3, 2), (2, 3), (4, 1), (5, 9)])
def test_blocks_are_chosen_as_the_paper_says(block, k):
  random = np.random.default_rng(block)
  q, k_BMHK, v, g = random.normal(size=(4, 1, 24, 2, 8))
  got = dense(
    attentions.build(f"moba({block}, {k})"),
    *jax.tree.map(jnp.float32, (q, k_BMHK, v)),
    (PACKED, PACKED),
    NOTHING,
    jnp.float32(g),
  )[0]
  for text in (1, 2):
    (here,) = np.nonzero(SEGMENTS[0] == text)
    for h in range(2):
      want = moba(q[0, here, h], k_BMHK[0, here, h], v[0, here, h], block, k)
      close(got[0, here, h], want)


def test_moba_of_its_authors():
  there = recorded("moba/moba")
  segments = np.repeat([[1, 2]], [23, 14], axis=1)
  given = [jnp.array(there[f"inputs/{name}"])[None] for name in (*"qkv", "grad_out")]
  at = coords.packed(jnp.array(segments))
  *qkv, g = given
  found = dense(attentions.build("moba(4, 3)"), *qkv, (at, at), NOTHING, g)
  for got, name in zip(found, ("o", "dq", "dk", "dv"), strict=True):
    close(got[0], there[f"outputs/{name}"], atol=5e-6)


def test_the_choice_does_not_read_the_bias_of_an_encoding():
  random = np.random.default_rng(0)
  q, k = jnp.array(random.normal(size=(2, 1, 12, 2, 8)), jnp.float32)
  at, bound = coords.consecutive(1, 12), BoundVariant(attentions.build("moba(2, 2)"))

  def weights(spec):
    encoding = positions.build(spec)
    params = encoding.init(jax.random.key(0), DIMS)
    position = bind(encoding, params, DIMS)
    context = Context(at, at, position, 0.35, bound)
    return evaluate(lambda: cores.build("dense").weights(q, k, context))

  plain, biased = weights("none"), weights("alibi")
  np.testing.assert_array_equal(plain > 0, biased > 0)
  assert np.abs(plain - biased).max() > 0.01
  assert np.sum(plain[0, 0, -1] > 0) == 4


@pytest.mark.parametrize(
  ("spec", "says"),
  [
    ("moba(0)", "block is 0; write a whole number from 1"),
    ("moba(k=2.5)", "k is 2.5; write a whole number from 1"),
    ("moba + moba(4)", "moba and moba both decide which keys a query selects"),
    ("softpick(0)", "epsilon is 0; write a number above 0"),
  ],
)
def test_what_cannot_be_is_one_error(spec, says):
  with pytest.raises(SpecError, match=says):
    attentions.build(spec)


def test_a_choice_among_earlier_blocks_is_refused_where_there_are_none():
  for use in ("encoder", "prefix", "cross"):
    with pytest.raises(ValueError, match=f"moba in {use}.*use it in a decoder"):
      form(attentions.build("moba"), use)


# Softpick: its formula is compared in test_weights.py.


def test_softpick_of_its_authors():
  there = recorded("softpick/softpick")
  read = lambda *names: [jnp.array(there[f"inputs/{name}"]) for name in names]
  softpick = BoundVariant(attentions.build("softpick"))

  def weigh(s_BHLM, g_BHLM):
    every = jnp.ones(s_BHLM.shape[::3], bool)[:, None]
    w_BHLM, pull = jax.vjp(lambda s: softpick.weigh(s, every), s_BHLM)
    return w_BHLM, *pull(g_BHLM)

  scores, g = (x[None, None] for x in read("scores", "grad_p"))
  for got, name in zip(evaluate(weigh, scores, g), ("p", "dscores"), strict=True):
    close(got[0, 0], there[f"outputs/softpick/{name}"])
  at = coords.consecutive(1, 12)
  last = jax.tree.map(lambda x: x[:, -3:], at)
  for case, q, g, q_at, scale in (
    ("attn", "q", "grad_out", at, None),
    ("attn_last_queries", "q_short", "grad_short", last, 0.5),
  ):
    q_BLHK, k, v, g_BLHK = read(q, "k", "v", g)
    found = dense(softpick.variant, q_BLHK, k, v, (q_at, at), NOTHING, g_BLHK, scale)
    for got, name in zip(found, ("o", f"d{q}", "dk", "dv"), strict=True):
      close(got, there[f"outputs/{case}/{name}"])
    context = Context(q_at, at, NOTHING, scale or 8**-0.5, softpick)
    w_BHLM = evaluate(cores.build("dense").weights, q_BLHK, k, context)
    close(w_BHLM, there[f"outputs/{case}/weights"])


# Log-linear attention: its formula is compared in test_projections.py.


def test_log_linear_attention_of_flash_linear_attention():
  there = recorded("flash_linear_attention/log_linear_attn")
  names = ("q", "k", "v", "g", "level_scales")
  at, variant = coords.consecutive(2, 16), attentions.build("log_linear")

  def attend(q, k, v, g, levels):
    data = variant.accumulate({}, {"decay_BLH": g, "level_BLHN": levels}, at)
    s_BHLM = jnp.einsum("BLHK,BMHK->BHLM", q, k)  # that program has no scale
    mask_B1LM = BoundVariant(variant).mask(at, at)[:, None]
    here = at.replace(data=data)
    w_BHLM = variant.weigh_at({}, s_BHLM, mask_B1LM, here, here)
    return jnp.einsum("BHLM,BMHE->BLHE", w_BHLM, v)

  def run(g, *given):
    out, pull = jax.vjp(attend, *given)
    return out, *pull(g)

  given = [jnp.array(there[f"inputs/{n}"]) for n in ("grad_out", *names)]
  found = evaluate(run, *given)
  for got, name in zip(found, ("o", *(f"d{n}" for n in names)), strict=True):
    close(got, there[f"outputs/{name}"], atol=1e-5)
