"""Writing: beams against lists, drawn tokens against probabilities, ends of texts."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax.attention.cores import cores
from transformer_jax.axes import Dims
from transformer_jax.evaluation.beam import Beam, Power, beam_search
from transformer_jax.evaluation.decode import Sampling, greedy, highest, sample
from transformer_jax.models import Architecture, families
from transformer_jax.numpy_interpreter import evaluate
from transformer_jax.positions import coords, positions
from transformer_jax.training import sharding

B, L, M, V, STEPS, END = 2, 4, 5, 7, 6, 3
DIMS = Dims(V=V, D=8, H=2, F=16, L=16)
FAMILIES = {"recurrent('gru', 'luong')": "none", "transformer": "rope"}
# Left padded, one of the prompts is shorter; so is one of the sources.
AT = coords.padded(jnp.arange(L) >= jnp.array([[0], [2]]))
SOURCE_AT = coords.padded(jnp.arange(M) < jnp.array([[3], [M]]))


def texts(seed, *shape):
  return jax.random.randint(jax.random.key(seed), shape, 0, V)


PROMPT_BL, SOURCE_BM = texts(1, B, L), texts(2, B, M)


@functools.cache
def started(family, scan=False):
  """Returns a model, random parameters, and `encode` of the sources."""
  parts = positions.build(FAMILIES[family]), cores.build("dense")
  arch = Architecture(DIMS, *parts, encoders=1, decoders=1, scan=scan)
  model = families.build(family)(arch)
  init = lambda key: model.init(key, PROMPT_BL, None, SOURCE_BM)["params"]
  random = np.random.default_rng(3)
  draw = lambda x: jnp.asarray(0.7 * random.normal(size=x.shape), x.dtype)
  params = jax.tree.map(draw, jax.eval_shape(init, jax.random.key(0)))
  encode = functools.partial(model.apply, method="encode")
  return model, params, evaluate(encode, {"params": params}, SOURCE_BM, SOURCE_AT)


def search(model, params, prompt_BL, steps, end, how, at, memory):
  """Returns the hypotheses of a beam search, interpreted: compiling takes seconds."""
  run = lambda params: beam_search(
    model, params, prompt_BL, steps, end, how, at, memory
  )
  return evaluate(run, params)


@functools.cache
def log_p(family):
  """Returns a function of (row, written tokens): log p of the next token, NumPy."""
  model, params, _ = started(family)

  @jax.jit
  def run(row, text_L, n):
    token_1L = jnp.concatenate([PROMPT_BL[row], text_L])[None]
    own = lambda at: jax.tree.map(lambda x: x[row][None], at)
    real_1L = jnp.concatenate([own(AT).real_BL, jnp.ones((1, STEPS), bool)], axis=1)
    reads = token_1L, coords.padded(real_1L), SOURCE_BM[row][None], own(SOURCE_AT)
    logits_1LV = model.apply({"params": params}, *reads)
    return jax.nn.log_softmax(logits_1LV[0, L + n - 1])

  @functools.cache
  def one(row, text):
    return np.asarray(run(row, np.array(text + (0,) * (STEPS - len(text))), len(text)))

  return one


def by_hand(next_log_p, row, width, penalty, stop):
  """Beam search of one text, as `transformers` does it, with lists."""
  live, found = [((), 0.0)], []
  for n in range(1, STEPS + 1):
    tried = []
    for text, total in live:
      for token, value in enumerate(next_log_p(row, text)):
        tried.append((text + (token,), total + value))
    tried.sort(key=lambda pair: -pair[1])
    for rank, (text, total) in enumerate(tried[: 2 * width]):
      if rank < width and (text[-1] == END or n == STEPS):
        found.append((text, total / penalty(n)))
    live = [pair for pair in tried[: 2 * width] if pair[0][-1] != END][:width]
    found = sorted(found, key=lambda pair: -pair[1])[:width]
    if len(found) == width:
      bound = {"full": -np.inf, "likely": live[0][1] / penalty(n)}
      bound["sure"] = live[0][1] / penalty(STEPS)
      if found[-1][1] >= bound[stop]:
        break
  return found


gnmt = lambda n: ((5 + n) / 6) ** 0.6


@pytest.mark.parametrize(
  ("family", "stop"),
  [("recurrent('gru', 'luong')", stop) for stop in ("likely", "full", "sure")]
  # Beams of a Transformer are compared with recorded ones.
  + [pytest.param("transformer", "likely", marks=pytest.mark.slow)],
)
def test_beams_are_those_of_lists(family, stop):
  width = 3
  model, params, memory = started(family)
  how = Beam(width, stop=stop)
  found = search(model, params, PROMPT_BL, STEPS, END, how, AT, memory)
  for row in range(B):
    expected = by_hand(log_p(family), row, width, gnmt, stop)
    for n, (text, score) in enumerate(expected):
      length = int(found.length_BK[row, n])
      assert tuple(found.token_BKN[row, n, :length].tolist()) == text
      assert (found.token_BKN[row, n, length:] == END).all()
      np.testing.assert_allclose(found.score_BK[row, n], score, atol=1e-5)


def test_a_wide_beam_finds_the_best_of_all_texts():
  family = "recurrent('gru', 'luong')"
  model, params, memory = started(family)
  steps, how = 3, Beam(V**2, "gnmt(alpha=1.0)", "sure")
  found = search(model, params, PROMPT_BL, steps, END, how, AT, memory)
  for row in range(B):
    scores = {}
    for text in itertools.product(range(V), repeat=steps):
      text = text[: text.index(END) + 1] if END in text else text
      total = sum(log_p(family)(row, text[:n])[t] for n, t in enumerate(text))
      scores[text] = total / ((5 + len(text)) / 6)
    best = max(scores, key=scores.get)
    length = int(found.length_BK[row, 0])
    assert tuple(found.token_BKN[row, 0, :length].tolist()) == best


@pytest.mark.parametrize(
  "family",
  ["recurrent('gru', 'luong')", pytest.param("transformer", marks=pytest.mark.slow)],
)
def test_greedy_texts_end_and_are_beams_of_one(family):
  model, params, memory = started(family)
  write = lambda *end: evaluate(
    lambda params: greedy(model, params, PROMPT_BL, STEPS, AT, memory, *end), params
  )
  free = write()
  end = int(free[0, 1])  # what the first text writes second
  written = write(end)
  how = Beam(1, Power(0.0), "full")
  found = search(model, params, PROMPT_BL, STEPS, end, how, AT, memory)
  for row in range(B):
    text, wanted = free[row].tolist(), []
    for token in text:
      wanted.append(end if end in wanted else token)
    assert written[row].tolist() == wanted == found.token_BKN[row, 0].tolist()
    expected = []
    for _ in range(STEPS):
      expected.append(int(np.argmax(log_p(family)(row, tuple(expected)))))
    assert text == expected


def test_the_most_likely_token_is_the_first_of_the_highest():
  logits_BV = np.random.default_rng(0).integers(0, 3, (50, V)).astype(np.float32)
  np.testing.assert_array_equal(highest(logits_BV), np.argmax(logits_BV, axis=-1))
  assert highest(jnp.full((1, V), jnp.nan)) == -1  # no token


def test_rows_written_on_two_devices_are_those_of_one():
  model, params, _ = started("transformer")
  mesh = sharding.make_mesh(data=2)
  write = jax.jit(lambda params, rows: greedy(model, params, rows, STEPS))
  rows_BL = sharding.place_rows(mesh, PROMPT_BL)
  written = write(sharding.whole(mesh, params), rows_BL)
  assert len(rows_BL.sharding.device_set) == len(written.sharding.device_set) == 2
  assert {shard.data.shape for shard in rows_BL.addressable_shards} == {(1, L)}
  np.testing.assert_array_equal(written, write(params, PROMPT_BL))
  uneven_BL = sharding.place_rows(mesh, PROMPT_BL[:1])  # on both of them
  assert {shard.data.shape for shard in uneven_BL.addressable_shards} == {(1, L)}


def test_caches_of_layers_in_one_program_are_searched_too():
  model, params, memory = started("transformer")
  scanned, _, _ = started("transformer", scan=True)
  stack = lambda side: {
    ("layers" if name == "layer_0" else name): (
      jax.tree.map(lambda x: x[None], part) if name == "layer_0" else part
    )
    for name, part in side.items()
  }
  stacked = params | {side: stack(params[side]) for side in ("encoder", "decoder")}
  rest = PROMPT_BL, STEPS, END, Beam(3), AT, memory
  one, other = search(model, params, *rest), search(scanned, stacked, *rest)
  np.testing.assert_array_equal(one.token_BKN, other.token_BKN)


def probabilities(logits_V, temperature, k, p):
  """What tokens are drawn with, from the words of the papers."""
  p_V = np.exp(logits_V / temperature) / np.exp(logits_V / temperature).sum()
  order = np.argsort(-p_V)
  if k:
    p_V[order[k:]] = 0
    p_V /= p_V.sum()
  together, nucleus = 0.0, []
  for token in order:
    if together < p:
      nucleus.append(token)
    together += p_V[token]
  kept_V = np.zeros_like(p_V)
  kept_V[nucleus] = p_V[nucleus]
  return kept_V / kept_V.sum()


@pytest.mark.parametrize(
  "how", [(1.0, 0, 1.0), (0.5, 0, 1.0), (1.0, 3, 1.0), (2.0, 0, 0.7), (1.5, 5, 0.6)]
)
def test_tokens_are_drawn_from_the_likely_ones(how):
  logits_BV = 2 * np.random.default_rng(0).normal(size=(3, 9))
  found_BV = jax.nn.softmax(Sampling(*how).logits(jnp.asarray(logits_BV)))
  expected_BV = [probabilities(logits_V, *how) for logits_V in logits_BV]
  np.testing.assert_allclose(found_BV, expected_BV, atol=1e-6)


def test_drawn_texts_have_the_probabilities_of_the_model():
  family, rows = "recurrent('gru', 'luong')", 4000
  model, params, _ = started(family)
  many = lambda x: jnp.repeat(x[:1], rows, axis=0)
  at, source_at = jax.tree.map(many, (AT, SOURCE_AT))

  @jax.jit
  def draw(key):
    encode = functools.partial(model.apply, {"params": params}, method="encode")
    memory = encode(many(SOURCE_BM), source_at)
    how = Sampling(temperature=1.0, top_k=3)
    return sample(model, params, many(PROMPT_BL), 2, key, how, at, memory, END)

  drawn = np.asarray(draw(jax.random.key(0)))
  first_V = probabilities(log_p(family)(0, ()), 1.0, 3, 1.0)
  for first in range(V):
    chosen = drawn[drawn[:, 0] == first]
    error = 5 * np.sqrt(first_V[first] / rows)
    assert abs(len(chosen) / rows - first_V[first]) <= error
    if first == END and len(chosen):
      assert (chosen[:, 1] == END).all()
    elif len(chosen):
      second_V = probabilities(log_p(family)(0, (first,)), 1.0, 3, 1.0)
      counted_V = np.bincount(chosen[:, 1], minlength=V) / len(chosen)
      assert (np.abs(counted_V - second_V) <= 5 * np.sqrt(second_V / len(chosen))).all()


def test_impossible_ways_to_write_are_refused():
  for wrong, says in (
    (lambda: Sampling(temperature=0), "decode greedily"),
    (lambda: Sampling(top_k=-1), "0 for all tokens"),
    (lambda: Sampling(top_p=0.0), "above 0"),
    (lambda: Beam(0), "1 or more"),
    (lambda: Beam(penalty="gnmy"), "Did you mean 'gnmt'"),
    (lambda: Beam(stop="never"), "one of full, likely, sure"),
  ):
    with pytest.raises(ValueError, match=says):
      wrong()
