"""Coordinates and caches that cannot be right are refused, or give NaN, or are right.

Reported: prompts padded on the right were continued after their padding, a cache that
was full wrote over its last token, a segment number that came twice and a hole in the
padding let tokens look into the future, and seeds of more than 32 bits failed in every
run. All without a word.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_parameters

from experiments.configs import base
from experiments.setup.validate import ConfigError, resolve, validate
from transformer_jax.attention import attentions
from transformer_jax.attention.cores import cores
from transformer_jax.axes import Dims
from transformer_jax.evaluation.beam import Beam, beam_search
from transformer_jax.evaluation.decode import greedy, sample
from transformer_jax.models import Architecture, Transformer, empty_cache, families
from transformer_jax.models.recurrent.rnn_cells import ends
from transformer_jax.numpy_interpreter import evaluate, trace
from transformer_jax.positions import coords, positions
from transformer_jax.spec import SpecError
from transformer_jax.training.step import Trainer

V, L, STEPS, END = 23, 5, 4, 3
TOKEN_BL = jnp.array([[17, 5, 22, 9, 4, 13, 20, 8]])
NONE = jnp.zeros((1, 3), jnp.int32)
HOLE = jnp.array([[1, 1, 0, 1, 0, 1, 1, 0]], bool)  # five tokens


@functools.cache
def started(family="transformer", position="rope", attention="softmax"):
  arch = Architecture(
    Dims(V=V, D=16, H=2, F=16, L=16),
    positions.build(position),
    cores.build("dense"),
    decoders=1,
    **({} if attention == "softmax" else {"attention": attentions.build(attention)}),
  )
  model = families.build(family)(arch)
  return model, drawn(model)


def drawn(model):
  """Returns random parameters."""
  shapes = jax.eval_shape(model.init, jax.random.key(0), TOKEN_BL)["params"]
  return random_parameters.normal(shapes)


# Interpreted: compiling is most of what these tests would cost.
@functools.cache
def logits():
  model, params = started()
  apply = lambda token_BL, at: model.apply({"params": params}, token_BL, at)
  return trace(apply, TOKEN_BL, coords.padded(HOLE))


def test_a_segment_number_that_comes_again_is_refused():
  with pytest.raises(ValueError, match="segment 1 comes 2 times in row 1"):
    coords.packed(jnp.array([[1, 1, 2, 2], [1, 2, 2, 1]]))
  with pytest.raises(ValueError, match="segment 3 comes 2 times in row 0"):
    coords.packed(np.array([[3, 0, 3]]))
  coords.packed(jnp.array([[0, 2, 2, 1, 0, 5]]))  # in any order, with padding between


def test_a_text_goes_on_after_a_hole():
  at = coords.padded(HOLE)
  assert at.order_BL.tolist() == [[0, 1, -1, 2, -1, 3, 4, -1]]
  kept = np.flatnonzero(HOLE[0])
  token_BL = TOKEN_BL.at[:, : len(kept)].set(TOKEN_BL[:, kept])
  whole = logits()(token_BL, coords.consecutive(1, 8))[:, : len(kept)]
  found = logits()(TOKEN_BL, at)[:, kept]
  np.testing.assert_allclose(found, whole, atol=1e-5)
  assert ends(at).tolist() == [[False] * 6 + [True, False]]
  two = coords.packed(jnp.array([[0, 2, 2, 1, 0, 5]]))
  assert ends(two).tolist() == [[False, False, True, True, False, True]]


PROMPTS = {
  "alone": (TOKEN_BL[:, :L], None),
  "left": (jnp.concatenate([NONE, TOKEN_BL[:, :L]], 1), jnp.arange(8)[None] >= 3),
  "right": (jnp.concatenate([TOKEN_BL[:, :L], NONE], 1), jnp.arange(8)[None] < L),
  "holes": (jnp.zeros((1, 8), int).at[0, HOLE[0]].set(TOKEN_BL[0, :L]), HOLE),
}


def search(model, params, prompt_BL, at):
  found = beam_search(model, params, prompt_BL, STEPS, END, Beam(2), at)
  return found.token_BKN[0], found.score_BK[0]


WRITE = {
  "greedy": lambda m, p, x, at: greedy(m, p, x, STEPS, at),
  "sample": lambda m, p, x, at: sample(m, p, x, STEPS, jax.random.key(5), at=at),
  "beam": search,
}


def writer(how, family="transformer", position="rope"):
  return functools.partial(
    evaluate, functools.partial(WRITE[how], started(family, position)[0])
  )


@pytest.mark.parametrize(
  ("how", "family", "position"),
  [(how, "transformer", "rope") for how in WRITE]
  # Those read what lies beside a token in the cache.
  + [("greedy", "recurrent('gru')", "none"), ("greedy", "transformer", "inkling")],
)
def test_prompts_may_be_padded_on_any_side(how, family, position):
  (_, params), write = started(family, position), writer(how, family, position)
  found = {}
  for name, (x, real) in PROMPTS.items():
    at = coords.consecutive(1, L) if real is None else coords.padded(real)
    found[name] = write(params, x, at)
  for name in PROMPTS:
    equal = functools.partial(np.testing.assert_allclose, atol=1e-5, err_msg=name)
    jax.tree.map(equal, found[name], found["alone"])


def test_what_cannot_be_continued_is_refused():
  model, params = started()
  write = functools.partial(greedy, model, params)
  refused = functools.partial(pytest.raises, ValueError)
  two = TOKEN_BL.repeat(2, axis=0)
  with refused(match="row 1 of the prompts is all padding"):
    write(two, STEPS, coords.padded(jnp.array([[1] * 8, [0] * 8])))
  with refused(match="prompts of 0 tokens"):
    write(TOKEN_BL[:, :0], STEPS)
  with refused(match=f"token {V} in a prompt: the model has tokens 0 to {V - 1}"):
    write(TOKEN_BL.at[0, 2].set(V), STEPS)
  with refused(match="end=-2"):
    write(TOKEN_BL, STEPS, end=-2)
  with refused(match="end=23"):
    search_end = functools.partial(beam_search, model, params, TOKEN_BL, STEPS)
    search_end(end=V)


def test_a_text_without_a_defined_next_token_is_no_text():
  _, params = started()
  lost = jax.tree.map(lambda x: x * jnp.nan, params)
  at = coords.consecutive(1, 8)
  write = {how: writer(how) for how in WRITE}
  for how in ("greedy", "sample"):
    assert (np.asarray(write[how](lost, TOKEN_BL, at)) == -1).all()
  token_KN, score_K = write["beam"](lost, TOKEN_BL, at)
  assert np.isneginf(score_K).all()
  assert (np.asarray(token_KN) == END).all()
  nowhere = coords.padded(jnp.zeros((1, 8), bool))
  assert (np.asarray(write["greedy"](params, TOKEN_BL, nowhere)) == -1).all()


@pytest.mark.parametrize("attention", ["softmax", "linear", "entmax", "sigmoid", "mla"])
def test_what_is_written_past_the_end_of_a_cache_is_nan(attention):
  position = "none" if attention in ("linear", "entmax") else "rope"
  model, params = started("transformer", position, attention)
  cache = empty_cache(model.arch, 1, L)
  step = trace(
    lambda cache, x, n: model.apply(
      {"params": params}, x, coords.consecutive(1, 1, n), None, cache, method="decode"
    ),
    cache,
    TOKEN_BL[:, :1],
    np.int32(0),
  )
  for n in range(8):
    logits_BLV, cache = step(cache, TOKEN_BL[:, n : n + 1], np.int32(n))
    assert np.isfinite(logits_BLV).all() if n < L else np.isnan(logits_BLV).all(), n
  with pytest.raises(ValueError, match="8 tokens do not fit a cache of 5"):
    cache = empty_cache(model.arch, 1, L)
    decode = functools.partial(model.apply, cache=cache, method="decode")
    jax.eval_shape(decode, {"params": params}, TOKEN_BL)


def test_a_stacked_cache_is_nan_past_its_end_too():
  arch = dataclasses.replace(started()[0].arch, decoders=2, scan=True)
  model = Transformer(arch)
  params = drawn(model)
  cache, found = empty_cache(arch, 1, 2), []
  apply = functools.partial(model.apply, {"params": params}, method="decode")
  for n in range(3):
    at = coords.consecutive(1, 1, n)
    out, cache = evaluate(apply, TOKEN_BL[:, n : n + 1], at, None, cache)
    found.append(bool(np.isnan(out).any()))
  assert found == [False, False, True]


def test_seeds_have_32_bits():
  """JAX makes of 2 ** 32 the key of 0: two seeds of one name would be the same run."""
  with pytest.raises(SpecError, match="a seed has 32 bits; write 0 to 4294967295"):
    attentions.build(f"bigbird(seed={2**32})")
  trainer = Trainer(None, None, None, None, 2, 1)
  with pytest.raises(ValueError, match="seed=-1: a seed has 32 bits"):
    trainer.init(-1)
  validate(resolve(base.get_config(), {"seeds": (0, 2**32 - 1)}))
  with pytest.raises(ConfigError, match="a seed has 32 bits; write numbers up to 4294"):
    validate(resolve(base.get_config(), {"seeds": (0, 2**32)}))
