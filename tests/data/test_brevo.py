"""Brevo: the authors' texts, an oracle, graphs and orders, texts that models write."""

import collections
import functools
import itertools
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax.axes import Dims
from transformer_jax.data.base import tasks
from transformer_jax.data.tasks.algorithmic import dependency_graphs as graphs
from transformer_jax.data.tasks.algorithmic.base import (
  END,
  FIRST,
  PAD,
  SEPARATOR,
  START,
)
from transformer_jax.evaluation.valid_texts import TextWriter, ValidTextsEval
from transformer_jax.models import Architecture, Transformer
from transformer_jax.numpy_interpreter import evaluate
from transformer_jax.spec import SpecError

RECORDED = pathlib.Path(__file__).parents[2] / "third_party" / "physics_lm4"
CASES = {"brevo1": "brevo(names=14)", "brevo2": "brevo(letters=4)"}


@functools.cache
def recorded(case):
  """Returns (text, label, depth of the query) of the texts of the authors."""
  with np.load(RECORDED / "brevo.npz", allow_pickle=False) as file:
    names = ("tokens", "label", "token_type")
    rows = zip(*(file[f"{case}/{name}"] for name in names), strict=True)
    return [
      (x[x >= 0].tolist(), y[x >= 0].tolist(), -2 - int(depth[1]))
      for x, y, depth in rows
    ]


def ours(task, text):
  """Returns a text of the authors in the tokens of a task."""
  symbols = task.vocabulary - FIRST - 1
  token_of = {9999: START, 9998: SEPARATOR, 9997: FIRST + symbols}
  token_of |= {n: FIRST + n - 1 for n in range(1, symbols + 1)}
  assert text[-1] == 9998  # ends a text too
  return [*(token_of[number] for number in text[:-1]), END]


def read(task, tokens):
  """Returns the edges of a text, its query and its answer, by the layout alone."""
  mark = task.vocabulary - 1
  nodes, parts = [], [[]]
  for token in tokens:
    if token in (START, SEPARATOR, END, mark):
      assert not nodes
      parts.append([])
      continue
    nodes.append(token)
    if task.letters is None or token >= FIRST + task.letters:
      parts[-1].append(tuple(nodes))
      nodes = []
  none, edges, query, answer, after = parts
  assert not none and not after and len(query) == 1
  return list(zip(edges[::2], edges[1::2], strict=True)), query[0], answer


def check(task, tokens):
  """Asserts that a text is right; returns its query's depth and number of ancestors."""
  edges, query, answer = read(task, tokens)
  assert len({*edges}) == len(edges)
  for side in range(2):
    assert max(collections.Counter(edge[side] for edge in edges).values()) <= 4
  above, depth = {query}, None
  for distance in itertools.count():
    childless = [n for n in above if n not in {child for _, child in edges}]
    if childless and depth is None:
      depth = distance
    more = above | {parent for parent, child in edges if child in above}
    if more == above:
      break
    above = more
  assert {*answer} == above and len(answer) == len(above)
  for parent, child in edges:
    assert child not in above or answer.index(parent) < answer.index(child)
  assert answer[-1] == query
  return depth, len(answer)


def rows(batch):
  """Yields the tokens of each text, which of them count, and the query's depth."""
  for n, (input_L, target_L) in enumerate(
    zip(batch.input_BL, batch.target_BL, strict=True)
  ):
    token_L = np.append(input_L, target_L[-1])
    counts_L = np.append(0, batch.weight_BL[n]) > 0
    depth = batch.at.data["depth_BL"][n].max() if batch.at.data else None
    yield token_L[token_L != PAD].tolist(), counts_L[token_L != PAD].tolist(), depth


@pytest.mark.parametrize("case", CASES)
def test_texts_of_the_authors_are_right(case):
  task = tasks.build(CASES[case])
  for text, label, depth in recorded(case):
    tokens = ours(task, text)
    assert check(task, tokens)[0] == depth
    assert task.accepts(tokens)
    # Theirs counts the separator too.
    after = tokens.index(SEPARATOR)
    assert label == [0] * after + [1] * (len(tokens) - after)


@pytest.mark.parametrize("spec", ["brevo(names=9)", "brevo(letters=4)"])
def test_texts_are_right(spec):
  task = tasks.build(spec)
  scored = evaluate(lambda: task.score((), jax.random.key(0), 6, np.int32(6), 7))
  trained = evaluate(lambda: task.batch((), jax.random.key(0), 6, 7))
  for batch in (scored, trained):
    assert batch.input_BL.shape == (6, task.tokens(7))
    assert np.max(batch.target_BL) < task.vocabulary
    for tokens, counts, depth in rows(batch):
      found, size = check(task, tokens)
      assert task.accepts(tokens) and 2 <= size <= 7 and depth in (None, found)
      after = tokens.index(SEPARATOR) + 1
      assert counts == [False] * after + [True] * (len(tokens) - after)
  real_BL = np.asarray(scored.at.real_BL)
  np.testing.assert_array_equal(real_BL, np.asarray(scored.input_BL) != PAD)


def test_a_text_is_the_same_in_every_bucket():
  task = tasks.build("brevo(letters=2)")

  def draw(bucket):
    return task.row(jax.random.key(3), jnp.int32(4), bucket, scored=True)

  small, large = (jax.jit(draw, static_argnums=0)(bucket) for bucket in (4, 6))
  size = small[0].size
  for want_L, got_L in zip(jax.tree.leaves(small), jax.tree.leaves(large), strict=True):
    np.testing.assert_array_equal(got_L[:size], want_L)
    assert not got_L[size:].any()


def test_graphs_have_the_published_distribution():
  """Up to a quarter of the nodes, and at least one, are roots; 1 to 4 parents each."""

  @jax.jit
  def draw(key):
    return graphs.draw_graph(key, jnp.int32(9), 9)

  parent_BNP = np.asarray(jax.vmap(draw)(jax.random.split(jax.random.key(0), 900)))
  number_BN = (parent_BNP >= 0).sum(axis=2)
  roots_B = (number_BN == 0).sum(axis=1)
  shares = np.bincount(roots_B, minlength=5) / 900
  np.testing.assert_allclose(shares[:5], [0, 1 / 3, 1 / 3, 1 / 3, 0], atol=0.07)
  # A node after four others of which none has four children: each number alike.
  shares = np.bincount(number_BN[:, 4], minlength=5) / 900
  np.testing.assert_allclose(shares[1:], [1 / 4] * 4, atol=0.07)
  for parent_NP in parent_BNP[:50]:
    chosen = parent_NP[parent_NP >= 0]
    assert np.bincount(chosen).max() <= 4
    for node, parent_P in enumerate(parent_NP):
      some = parent_P[parent_P >= 0]
      assert len({*some}) == len(some) and (some < node).all()


def test_orders_are_drawn_from_their_end():
  # 3 depends on 1 and 2, and 2 on 0: the last but one is 1 or 2, each in half of all.
  parent_NP = jnp.array([[-1, -1], [-1, -1], [0, -1], [1, 2]])
  depends_NN = graphs.adjacency(parent_NP)

  @jax.jit
  def draw(key):
    member_N = graphs.ancestors(depends_NN, jnp.int32(3))
    return graphs.draw_order(key, depends_NN, member_N)

  order_BN = jax.vmap(draw)(jax.random.split(jax.random.key(0), 800))
  found = collections.Counter(map(tuple, np.asarray(order_BN).tolist()))
  shares = {order: count / 800 for order, count in found.items()}
  wanted = {(0, 2, 1, 3): 1 / 2, (0, 1, 2, 3): 1 / 4, (1, 0, 2, 3): 1 / 4}
  assert shares == pytest.approx(wanted, abs=0.07)
  only = np.asarray(graphs.ancestors(depends_NN, jnp.int32(2)))
  assert only.tolist() == [True, False, True, False]
  assert int(graphs.depth_of(depends_NN, only, jnp.int32(2))) == 1


def test_wrong_texts_are_not_accepted():
  task = tasks.build("brevo(names=4)")
  a, b, c, d, mark = 4, 5, 6, 7, 8
  prompt = [1, a, c, b, c, c, d, mark, c, 2]
  assert task.accepts([*prompt, b, a, c, 3])
  for tokens in (
    [],
    prompt,
    [*prompt, 3],
    [*prompt, a, b, c],
    [*prompt, a, c, b, 3],
    [*prompt, a, c, 3],
    [*prompt, a, b, c, d, 3],
    [*prompt, a, a, b, c, 3],
    [*prompt, a, b, c, 3, 3],
    [*prompt, a, b, c, 3, a],
    [*prompt[:-2], 2, a, b, c, 3],
    [1, a, mark, c, 2, c, 3],
  ):
    assert not task.accepts(tokens)
  words = tasks.build("brevo(letters=2, shortest=1)")
  assert words.accepts([1, 6, 7, 8, 7, 2, 6, 7, 3])
  assert not words.accepts([1, 6, 7, 8, 7, 2, 6, 4, 3])


@pytest.fixture(scope="module")
def writer():
  task = tasks.build("brevo(names=3)")
  dims = Dims(V=task.vocabulary, D=8, H=2, F=8, L=task.tokens(2))
  model = Transformer(Architecture(dims, position="learned", decoders=1))
  params = model.init(jax.random.key(0), jnp.zeros((1, 4), jnp.int32))["params"]
  return TextWriter(model, params, length=2)


def test_what_models_write_is_judged_by_the_task(writer):
  task = tasks.build("brevo(names=3)")
  how = ValidTextsEval(most=5, batch_size=3)
  record = how.recorded(task, [writer])
  texts, accepted = record["all"][0][0], record["all"][1][0]
  assert record["kind"] == "valid_texts" and record["texts"] == 5 == len(texts)
  assert accepted == [task.accepts(text) for text in texts]
  assert record["scores"] == [{"valid": np.mean(accepted)}]
  # With two nodes, the second depends on the first.
  for text, line in zip(texts, how.lines(task, record["all"], [7]), strict=True):
    a, b, mark, query, separator = text[1:6]
    assert [mark, query, separator] == [7, b, 2] and a != b
    assert line["seed"] == 7 and line["tokens"] == text
  right = [int(x) for x in record["samples"][0][1].split()]
  assert task.accepts(right) and right[:6] == texts[0][:6]


def test_a_perfect_writer_is_valid_and_nan_has_no_score(writer):
  task = tasks.build("brevo(names=3)")
  length, how = 2, ValidTextsEval(most=4, batch_size=4)
  wholes = np.asarray(task.prompts(length, 4)[1])

  class Perfect(TextWriter):
    def write(self, task, prompt_BL, batch_size):
      return wholes[:, 6:]

  class Lost(TextWriter):
    def write(self, task, prompt_BL, batch_size):
      return np.where(np.arange(4)[:, None] == 2, -1, wholes[:, 6:])

  agents = [kind(None, None, length) for kind in (Perfect, Lost)]
  assert how.record(task, agents)["scores"] == [{"valid": 1.0}, {"valid": None}]


@pytest.mark.parametrize(
  ("spec", "says"),
  [
    ("brevo(names=0)", "brevo: names is 0; it must be at least 1"),
    ("brevo(letters=0)", "brevo: letters is 0"),
    ("brevo(letters=4, shortest=5)", "at least shortest=5 and at most longest=4"),
    ("brevo(letters=40)", "letters=40 and longest=4 make more than 100,000 words"),
  ],
)
def test_impossible_arguments_are_refused(spec, says):
  with pytest.raises(SpecError, match=re.escape(says)):
    tasks.build(spec)


@pytest.mark.parametrize(
  ("spec", "says"),
  [
    ("brevo(names=5)", "6 nodes need as many names, and there are 5; raise names"),
    ("brevo(letters=1)", "6 nodes need as many names, and there are 3; raise letters"),
  ],
)
def test_more_nodes_than_names_are_refused(spec, says):
  with pytest.raises(SpecError, match=says):
    tasks.build(spec).tokens(6)
