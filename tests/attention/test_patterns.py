"""Patterns of sparse attention: which tokens see which, and layers that take turns."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from interpreted import interpreted
from oracles.attentions import PATTERNS

from transformer_jax.attention import BoundVariant, Variant, attentions
from transformer_jax.attention.cores import cores
from transformer_jax.axes import Dims
from transformer_jax.models import Architecture, Transformer, empty_cache
from transformer_jax.models.compatibility import form
from transformer_jax.numpy_interpreter import trace
from transformer_jax.positions import bind, coords, positions
from transformer_jax.spec import SpecError

NOTHING = bind(positions.build("none"), {}, None)

LONG = [
  "window(4)",
  "dilated(3, 3)",
  "global_local(3, 2)",
  "strided(5)",
  "fixed(5, 2)",
  "chunked(5)",
  "bigbird(3, 1, 1, 1)",
]


def mask(spec, q_at, k_at=None):
  """Returns which keys each query sees, [L, M] of the first row."""
  k_at = q_at if k_at is None else k_at
  variant = attentions.build(spec)
  # Interpreted, all random numbers are those of one key.
  run = (jax.jit if "bigbird" in spec else interpreted)(BoundVariant(variant).mask)
  return np.asarray(run(q_at, k_at)[0])


@pytest.mark.parametrize("spec", PATTERNS)
def test_masks_are_those_of_the_papers(spec):
  past, both, sees = PATTERNS[spec]
  at = coords.consecutive(1, 6)
  want = np.array([[sees(i, j) for j in range(6)] for i in range(6)])
  np.testing.assert_array_equal(mask(spec, at), np.tril(want))
  np.testing.assert_array_equal(mask(spec, at.bidirectional()), want)
  assert mask(spec, at).sum() == past and mask(spec, at.bidirectional()).sum() == both


def test_patterns_add_up():
  """A mask of a sum is what both parts allow."""
  at = coords.consecutive(1, 12)
  both = mask("window(6) + chunked(4)", at)
  np.testing.assert_array_equal(both, mask("window(6)", at) & mask("chunked(4)", at))


@pytest.mark.parametrize("spec", LONG)
def test_a_text_sees_the_same_packed_padded_shortened_and_in_a_cache(spec):
  whole = mask(spec, coords.consecutive(1, 17))
  packed = mask(spec, coords.packed(jnp.array([[4] * 11 + [2] * 6 + [9] * 17])))
  for start, length in ((0, 11), (11, 6), (17, 17)):
    own = slice(start, start + length)
    np.testing.assert_array_equal(packed[own, own], whole[:length, :length])
  assert packed.sum() == sum(whole[:n, :n].sum() for n in (11, 6, 17))
  padded = mask(spec, coords.padded(jnp.arange(22)[None] >= 5))
  np.testing.assert_array_equal(padded[5:, 5:], whole)
  assert padded.sum() == whole.sum()
  query = coords.consecutive(1, 3, start=14)
  np.testing.assert_array_equal(
    mask(spec, query, coords.consecutive(1, 17)), whole[14:]
  )


@pytest.mark.parametrize("spec", LONG)
def test_positions_do_not_count_and_two_texts_have_no_pattern(spec):
  at = coords.consecutive(1, 17)
  spread = at.replace(pos_BL=at.pos_BL * 7 + 100)
  np.testing.assert_array_equal(mask(spec, spread), mask(spec, at))
  assert form(attentions.build(spec), "cross") == Variant()


@functools.partial(interpreted, statics=2)
def reaches(variant, layers, x_BLHK, at):
  """Returns how strongly output i of stacked attention depends on input j, [L, L]."""
  core = cores.build("dense")

  def stack(x_BLHK):
    for _ in range(layers):
      given = x_BLHK, x_BLHK, x_BLHK, at, at, NOTHING, None, BoundVariant(variant)
      x_BLHK = x_BLHK + core(*given)
    return jnp.sum(x_BLHK, axis=(0, 2, 3))

  return jnp.sum(jnp.abs(jax.jacobian(stack)(x_BLHK)), axis=(1, 3, 4))


@pytest.mark.parametrize("layers", [1, 3])
def test_windows_of_several_layers_reach_just_so_far(layers):
  """N causal layers of width w: a token and the N (w - 1) before it."""
  width, L = 4, 14
  x_BLHK = jax.random.normal(jax.random.key(0), (1, L, 2, 4))
  window = attentions.build(f"window({width})")
  found = reaches(window, layers, x_BLHK, coords.consecutive(1, L)) > 0
  apart = np.arange(L)[:, None] - np.arange(L)
  np.testing.assert_array_equal(found, (apart >= 0) & (apart <= layers * (width - 1)))


def test_a_window_as_long_as_the_text_is_plain_attention():
  q, k, v = jax.random.normal(jax.random.key(0), (3, 1, 9, 2, 4))
  at = coords.consecutive(1, 9)
  core = cores.build("dense")

  def run(spec):
    variant = BoundVariant(attentions.build(spec))
    attend = lambda *qkv: core(*qkv, at, at, NOTHING, None, variant)
    return interpreted(attend)(q, k, v)

  plain = run("multihead")
  np.testing.assert_array_equal(run("window(9)"), plain)
  assert np.any(run("window(8)") != plain)


def test_random_blocks_are_drawn_once_and_for_all():
  """Every block draws from those up to itself; blocks see one another."""
  bird = attentions.build("bigbird(4, near=1, first=1, random=2, seed=3)")
  drawn = np.asarray(jax.jit(bird.drawn)(jnp.arange(20)))
  assert drawn.shape == (20, 2) and np.all((drawn >= 0) & (drawn.T <= np.arange(20)).T)
  assert len(np.unique(drawn)) > 8, "draws must differ"
  at, block = coords.consecutive(1, 80).bidirectional(), np.arange(80) // 4
  chosen = np.zeros((20, 20), bool)
  chosen[np.arange(20)[:, None], drawn] = True
  want = (chosen | chosen.T)[block][:, block] | (block[:, None] == block)
  want |= (block[:, None] == 0) | (block == 0)
  spec = "bigbird(4, 1, 1, 2, {})".format
  np.testing.assert_array_equal(mask(spec(3), at), want)
  assert np.any(mask(spec(4), at) != want)


MIXED = "alternate(gqa(2) + window(3), sinks, 3)"


def test_layers_take_turns():
  names = lambda spec, n: [attentions.build(spec).layer(i).name for i in range(n)]
  gemma2, gemma3 = (
    "alternate(window(9), multihead)",
    "alternate(window(9), multihead, 6)",
  )
  assert names(gemma2, 5) == ["window", "multihead"] * 2 + ["window"]
  assert names(gemma3, 12) == (["window"] * 5 + ["multihead"]) * 2
  modernbert = "alternate(window(9), multihead, 3, at=0)"
  assert names(modernbert, 7) == ["multihead", "window", "window"] * 2 + ["multihead"]
  assert names(modernbert.replace("0", "1"), 3) == ["window", "multihead", "window"]
  both = names(f"{gemma2} + softcap(50) + mqa", 2)
  assert both == ["window + softcap + mqa", "multihead + softcap + mqa"]
  listed = "by_layer((window(9), alternate(mqa, gqa(2)), window(9)))"
  assert names(listed, 5) == ["window", "gqa", "window", "window", "mqa"]
  nested = "alternate(alternate(window(2), window(3)), multihead, 3)"
  assert [attentions.build(nested).layer(n) for n in (0, 1, 2)] == [
    attentions.build(spec) for spec in ("window(2)", "window(3)", "multihead")
  ]
  assert form(attentions.build(gemma2), "cross").layer(0) == Variant()
  assert attentions.build(MIXED).refusal(NOTHING.encoding) is None
  assert not attentions.build("alternate(multihead, entmax)").tile_local
  assert attentions.build(gemma2).tile_local


def test_layers_of_different_kinds_have_their_own_parameters_and_caches():
  dims = Dims(V=16, D=16, H=4, F=16, L=11)
  parts = positions.build("rope"), cores.build("dense"), attentions.build(MIXED)
  arch = Architecture(dims, *parts, decoders=3)
  model = Transformer(arch)
  token_BL = np.random.default_rng(1).integers(0, 16, (2, 11))
  shapes = jax.eval_shape(model.init, jax.random.key(0), token_BL)["params"]
  random = np.random.default_rng(0)
  params = jax.tree.map(lambda x: jnp.float32(random.normal(size=x.shape)), shapes)
  layers = [params["decoder"][f"layer_{n}"]["attention"] for n in range(3)]
  assert [("key_DGK" in p, "sink_H" in p) for p in layers] == [(1, 0), (1, 0), (0, 1)]
  cache = empty_cache(arch, 2, 11)
  assert [c.kept["key"].shape[1] for c in cache] == [2, 2, 4]
  at = coords.consecutive(1, 11)
  whole = interpreted(model.apply)({"params": params}, token_BL)[:, -1:]

  def step(cache, token, at):
    return model.apply({"params": params}, token, at, cache=cache, method="decode")

  each = [jax.tree.map(lambda x, n=n: x[:, n : n + 1], at) for n in range(11)]
  run = trace(step, cache, token_BL[:, :1], each[0])
  for n, one in enumerate(each):
    logits, cache = run(cache, token_BL[:, n : n + 1], one)
  np.testing.assert_allclose(logits, whole, atol=1e-4)  # of numbers near 20


@pytest.mark.parametrize(
  ("spec", "says"),
  [
    ("window(0)", "window: width is 0; write a whole number, 1 or more"),
    ("dilated(4, 0.5)", "dilated: gap is 0.5; write a whole number, 1 or more"),
    ("bigbird(random=-1)", "bigbird: random is -1; write a whole number, 0 or more"),
    ("fixed(3, 4)", "fixed: 4 tokens of a block of 3 cannot sum it up"),
    ("alternate(window, multihead, 1)", "alternate: period is 1"),
    ("alternate(window, multihead, 3, at=3)", "at is 3; write which of 3 layers"),
    ("alternate(window, nowhere)", "unknown attention variant 'nowhere'"),
    ("by_layer(window)", "write a list of variants, as in by_layer"),
    ("by_layer((window, nowhere))", "unknown attention variant 'nowhere'"),
  ],
)
def test_what_cannot_be_is_one_error(spec, says):
  with pytest.raises(SpecError, match=says):
    attentions.build(spec)
