"""Decoding in texts whose length changes what their earlier tokens mean.

Reported: past the original length, with two layers, rope_dynamic, longrope and
nope_scaled on the cache were not the full pass that the documentation promises: upper
layers had read what lower ones made of a shorter text. Right: the full pass at every
length; and, where it is asked for, earlier tokens as they were when they were read.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax.attention import attentions
from transformer_jax.attention.cache import CachedText
from transformer_jax.attention.cores import cores
from transformer_jax.axes import Dims
from transformer_jax.evaluation.beam import Beam, beam_search
from transformer_jax.evaluation.decode import greedy
from transformer_jax.models import Architecture, Transformer, empty_cache
from transformer_jax.numpy_interpreter import evaluate, trace
from transformer_jax.positions import coords, positions
from transformer_jax.positions.nope_scaled import NopeScaled
from transformer_jax.positions.rope_dynamic import DynamicRope

V, T, ORIGINAL = 13, 12, 8
TEXT = np.random.default_rng(2).integers(0, V, T)
DYNAMIC = "rope_dynamic(factor=2.0)"
CHANGING = [
  DYNAMIC,
  "longrope",
  "nope_scaled(rope)",
  "nope_scaled(xpos, trained=5)",
  "by_layer((rope_dynamic, none))",
  "interpolated(rope_dynamic, factor=1.2)",
  "randomized(rope_dynamic, max_positions=64, step=2)",
  "randomized(rope, max_positions=40, spread=True)",
]
QUICK = CHANGING[0], CHANGING[-1], "rope"
LASTING = ["rope", "log_n(grape_m(contextual=True))", "forgetting", "randomized(xpos)"]


@functools.cache
def started(position, layers=2, scan=False):
  """Returns a model of 2 layers trained on 8 tokens, and parameters that matter."""
  dims = Dims(V=V, D=16, H=4, F=16, L=ORIGINAL)
  parts = positions.build(position), cores.build("dense")
  variant = attentions.build("multihead")
  model = Transformer(
    Architecture(dims, *parts, variant, decoders=layers, tied=False, scan=scan)
  )
  at = with_length(coords.consecutive(1, 6), model)
  init = lambda key: model.init(key, jnp.zeros((1, 6), jnp.int32), at)["params"]
  random = np.random.default_rng(1)
  draw = lambda x: jnp.asarray(0.5 * random.normal(size=x.shape), jnp.float32)
  return model, jax.tree.map(draw, jax.eval_shape(init, jax.random.key(0)))


def with_length(at, model):
  """Adds the length of the text when each token was read, where a model reads that."""
  if "length_BL" not in model.arch.position.ids:
    return at
  length_L = np.arange(at.order_BL.shape[1]) + 1
  return at.replace(data={"length_BL": jnp.asarray(length_L, jnp.float32)[None]})


# Interpreted: compiling is most of what these tests would cost.
def passes(model, params, text=TEXT):
  """Returns logits after each of the first tokens, by a full pass over just these."""

  def run(params, text_L, n):
    at = with_length(coords.padded(jnp.arange(T)[None] < n), model)
    return model.apply({"params": params}, text_L[None], at)[0]

  text_L = np.asarray(text)
  one = trace(run, params, text_L, np.int32(0))
  return np.array([one(params, text_L, np.int32(n + 1))[n] for n in range(T)])


def decoded(model, params, frozen=False, room=T, tokens=None):
  """Returns logits after each token, on the cache."""

  def step(params, token_11, n, cache):
    at = coords.consecutive(1, 1, n)
    return model.apply({"params": params}, token_11, at, None, cache, method="decode")

  cache, out = empty_cache(model.arch, 1, room, frozen), []
  one = trace(step, params, TEXT[None, :1], np.int32(0), cache)
  for n in range(tokens or room):
    logits_11V, cache = one(params, TEXT[None, n : n + 1], np.int32(n), cache)
    out.append(logits_11V[0, 0])
  return np.array(out)


def close(got, want):
  np.testing.assert_allclose(got, want, atol=5e-5, rtol=5e-5)


def slow_but_quick(specs):
  slow = lambda spec: () if spec in QUICK else pytest.mark.slow
  return [pytest.param(spec, marks=slow(spec)) for spec in specs]


@pytest.mark.parametrize("position", slow_but_quick(CHANGING + LASTING))
def test_decoding_is_the_full_pass_at_every_length(position):
  model, params = started(position)
  assert isinstance(empty_cache(model.arch, 1, T), CachedText) == (position in CHANGING)
  got, want = decoded(model, params), passes(model, params)
  close(got, want)


@pytest.mark.slow
def test_layers_in_one_program_read_texts_again_too():
  model, params = started(DYNAMIC, scan=True)
  want = passes(model, params)
  close(decoded(model, params), want)


@pytest.mark.parametrize("position", slow_but_quick(CHANGING[:4]))
def test_texts_within_the_original_length_stay_in_the_caches_of_layers(position):
  model, params = started(position)
  room = positions.build(position).stable_length(model.arch.dims)
  assert room == (5 if "trained=5" in position else ORIGINAL)
  assert not isinstance(empty_cache(model.arch, 1, room), CachedText)
  assert isinstance(empty_cache(model.arch, 1, room + 1), CachedText)
  want = passes(model, params)[:room]
  for frozen in (False, True):
    got = decoded(model, params, frozen, room)
    close(got, want)


def test_a_text_past_the_end_of_its_cache_is_undefined():
  model, params = started(DYNAMIC)
  got = decoded(model, params, room=ORIGINAL + 2, tokens=ORIGINAL + 4)
  assert np.all(np.isfinite(got[: ORIGINAL + 2]))
  assert np.all(np.isnan(got[ORIGINAL + 2 :]))


def test_one_layer_turns_its_keys_anew():
  model, params = started(DYNAMIC, layers=1)
  assert not isinstance(empty_cache(model.arch, 1, T), CachedText)
  want = passes(model, params)
  close(decoded(model, params), want)


@dataclasses.dataclass(frozen=True)
class DynamicByLength(DynamicRope):
  """Turns each token by the length that its text had when it was read."""

  factor: float = 2.0
  ids = ("length_BL",)
  relative = False

  def transform_qk(self, params, q_BLHK, k_BMHK, q_at, k_at):
    def one(x_BLHK, at):
      """As a text of its own, whose length is that of its token."""
      R, length_BL11 = x_BLHK.shape[-1] // 2, at.data["length_BL"][..., None, None]
      frequency = self.frequencies_of(params, R, length_BL11, None)
      angle_BL1R = at.pos_BL[..., None, None] * frequency
      a, b = jnp.split(x_BLHK, 2, axis=-1)
      cos, sin = jnp.cos(angle_BL1R), jnp.sin(angle_BL1R)
      return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)

    return one(q_BLHK, q_at), one(k_BMHK, k_at)


@dataclasses.dataclass(frozen=True)
class ScaledByLength(NopeScaled):
  """Sharpens each query by the length that its text had when it was read."""

  encoding: object = "rope"
  ids = ("length_BL",)

  def factor(self, params, q_at, k_at):
    times_BL11 = q_at.data["length_BL"][..., None, None] / params["trained"]
    return 1 + self.slope * jnp.log(jnp.maximum(times_BL11, 1))


@pytest.mark.parametrize(
  "position,defined",
  [
    (DYNAMIC, DynamicByLength()),
    pytest.param(CHANGING[2], ScaledByLength(), marks=pytest.mark.slow),
  ],
)
def test_frozen_tokens_stay_as_they_were_when_they_were_read(position, defined):
  model, params = started(position)
  got = decoded(model, params, frozen=True)
  want = passes(model.clone(arch=dataclasses.replace(model.arch, position=defined)),
                params)  # fmt: skip
  close(got, want)
  full = passes(model, params)
  inside = ORIGINAL
  close(got[:inside], full[:inside])
  assert np.abs(got[inside:] - full[inside:]).max() > 1e-3, "there are two definitions"


def test_written_texts_are_those_of_full_passes():
  """Greedy decoding and a beam, from a prompt that is padded on the left."""
  model, params = started(DYNAMIC)
  size, steps = 7, 4
  prompt_BL = np.array([[0, *TEXT[1:size]]])
  at = coords.padded(np.arange(size)[None] > 0)
  left = np.zeros(T - (size - 1) - steps, int)
  write = functools.partial(greedy, model, params, prompt_BL, steps, at)
  found = evaluate(write)[0]
  frozen = jax.eval_shape(functools.partial(write, frozen=True))
  assert len({*found.tolist()}) > 1 and frozen.shape[1:] == found.shape
  text, last = np.concatenate([TEXT[1:size], found, left]), size - 2
  want = passes(model, params, text)[last : last + steps].argmax(-1)
  np.testing.assert_array_equal(found, want)

  search = functools.partial(beam_search, model, params, prompt_BL, steps, V - 1)
  texts = evaluate(functools.partial(search, Beam(2, "power(alpha=0.0)"), at))
  best, n = np.asarray(texts.token_BKN[0, 0]), int(texts.length_BK[0, 0])
  logits = passes(model, params, np.concatenate([TEXT[1:size], best, left]))
  log_p = evaluate(jax.nn.log_softmax, logits[last : last + n])
  log_p = log_p[np.arange(n), best[:n]].sum()
  np.testing.assert_allclose(texts.score_BK[0, 0], log_p, rtol=1e-4)
