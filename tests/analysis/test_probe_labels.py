"""Labels of probes, against loops over tokens."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import transformer_jax as tj
from transformer_jax.analysis.probes import ProbeError, probe_labels, token_properties
from transformer_jax.data.base import Batch
from transformer_jax.data.tasks.algorithmic.base import FIRST, SEPARATOR, START
from transformer_jax.positions import coords

L, B = 12, 600
TEXT = tj.tasks.build("text")
TOKEN_BL = np.random.default_rng(0).integers(0, 4, (3, L))
SEGMENT_BL = np.array([[0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2]] * 2 + [[1] * L])
PACKED = Batch(
  jnp.array(TOKEN_BL),
  jnp.array(TOKEN_BL) + 1,
  jnp.array(SEGMENT_BL == 1) * 1.0,
  coords.packed(SEGMENT_BL),
)


def labels(spec, task=TEXT, batch=PACKED, seed=0):
  """Returns {(text, place): label} and the places of the other tokens."""
  label = token_properties.build(spec, task)
  made = label.labels(task, batch, jax.random.key(seed))
  weight_BL = np.asarray(made.weight_BL)
  assert weight_BL.shape == batch.input_BL.shape
  values = np.asarray(made.label_BL).tolist()
  other = None if made.other_BL is None else np.asarray(made.other_BL)
  return {(b, n): values[b][n] for b, n in np.argwhere(weight_BL > 0).tolist()}, other


def segments():
  """Yields (text, places of a segment)."""
  for b, segment_L in enumerate(SEGMENT_BL):
    for number in (1, 2):
      if len(places := np.flatnonzero(segment_L == number)):
        yield b, places.tolist()


def test_positions_restart_in_each_text_of_a_row():
  wanted = {(b, n): i for b, places in segments() for i, n in enumerate(places)}
  assert labels("position")[0] == wanted


@pytest.mark.parametrize("since", [None, 2])
def test_length_so_far_is_counted_in_powers_of_two(since):
  wanted = {}
  for b, places in segments():
    count = None if since is not None else 0
    for n in places:
      count = None if count is None else count + 1
      if count is not None:
        wanted[b, n] = int(math.log2(count))
      if since is not None and TOKEN_BL[b, n] == since:
        count = 0
  assert labels(f"length_so_far(since={since})")[0] == wanted and wanted


def test_distances_are_those_to_the_other_token_and_equally_likely():
  many = dataclasses.replace(
    PACKED,
    input_BL=jnp.zeros((600, L), int),
    at=coords.consecutive(1, L),
  )
  found, other_BL = labels("distance(most=3)", batch=many)
  assert {n for _, n in found} == {*range(3, L)}
  for (b, n), label in found.items():
    assert n - other_BL[b, n] == label + 1
  share_C = np.bincount([*found.values()]) / len(found)
  np.testing.assert_allclose(share_C, 1 / 3, atol=0.02)
  _, other_BL = labels("distance(most=3)")
  for b, n in labels("distance(most=3)")[0]:  # the other token is in the same text
    assert SEGMENT_BL[b, other_BL[b, n]] == SEGMENT_BL[b, n]


@pytest.mark.parametrize("ahead", [1, 3])
def test_next_tokens_are_of_the_same_text(ahead):
  wanted, sets = {}, {}
  for b, places in segments():
    for n in places[:-ahead]:
      wanted[b, n] = TOKEN_BL[b, n + ahead]
      sets[b, n] = [TOKEN_BL[b, n + i + 1] for i in range(ahead)]
  assert labels(f"next_token(ahead={ahead})")[0] == wanted
  assert labels(f"next_set(ahead={ahead})")[0] == sets


def test_targets_are_those_of_the_task():
  counted = np.argwhere(SEGMENT_BL == 1).tolist()
  assert labels("target")[0] == {(b, n): TOKEN_BL[b, n] + 1 for b, n in counted}


def steps(prompt):
  return [sum(x - 1 for x in prompt[: n + 1]) % 5 for n in range(len(prompt))]


def ones(prompt):
  return [prompt[: n + 1].count(1) % 2 for n in range(len(prompt))]


def changes(prompt):
  pairs = [a != b for a, b in zip(prompt, prompt[1:], strict=False)]
  return [sum(pairs[:n]) % 2 for n in range(len(prompt))]


def brackets(opens, closes):
  def depth(prompt):
    upto = [prompt[: n + 1] for n in range(len(prompt))]
    return [min(7, x.count(opens) - x.count(closes)) for x in upto]

  return depth


def heights(prompt):
  height, found = 0, []
  for symbol in prompt:
    height = max(0, height - 1) if symbol == 2 else height + 1
    found.append(min(15, height))
  return found


PROMPTS = {
  "cycle_navigation": ("state", steps),
  "parity": ("state", ones),
  "even_pairs": ("state", changes),
  "modular_arithmetic_brackets": ("depth", brackets(8, 9)),
  "solve_equation": ("depth", brackets(7, 8)),
  "stack_manipulation": ("height", heights),
}


def drawn(task, length=9, bucket=L):
  draw = jax.jit(lambda key, length: task.score((), key, B, length, bucket))
  batch = draw(jax.random.key(0), jnp.int32(length))
  return batch, np.asarray(batch.input_BL)


@pytest.mark.parametrize("spec", PROMPTS)
def test_labels_of_a_prompt_are_those_of_an_automaton(spec):
  task, (name, oracle) = tj.tasks.build(spec), PROMPTS[spec]
  batch, token_BL = drawn(task)
  wanted = {}
  for b, token_L in enumerate(token_BL.tolist()):
    first, last = token_L.index(START) + 1, token_L.index(SEPARATOR)
    states = oracle([token - FIRST for token in token_L[first:last]])
    wanted |= {(b, first + n): state for n, state in enumerate(states)}
  found, _ = labels(name, task, batch)
  assert found == wanted
  assert len({*wanted.values()}) > 1


@pytest.mark.parametrize("reversed_", [False, True])
@pytest.mark.parametrize("operands", [False, True])
def test_carries_are_those_of_adding_by_hand(reversed_, operands):
  options = f"reversed={reversed_}, reversed_operands={operands}, base=4"
  task, n = tj.tasks.build(f"addition({options})"), 5
  batch, token_BL = drawn(task, length=n, bucket=6)
  wanted = {}
  for b, token_L in enumerate(token_BL.tolist()):
    start, separator = token_L.index(START), token_L.index(SEPARATOR)
    symbols = [token - FIRST for token in token_L[start + 1 : separator]]
    x, y = symbols[:n], symbols[n + 1 :]
    x, y = (x, y) if operands else (x[::-1], y[::-1])
    carries = [0]
    for i in range(n):
      carries.append((x[i] + y[i] + carries[-1]) // 4)
    carries = carries if reversed_ else carries[::-1]
    wanted |= {(b, separator + i): carry for i, carry in enumerate(carries)}
  assert labels("carry", task, batch)[0] == wanted
  assert {*wanted.values()} == {0, 1}


def test_every_task_that_makes_labels_is_tested():
  made = {}
  for name in tj.tasks:
    try:
      task = tj.tasks.build(name)
    except (TypeError, ValueError):
      continue  # it needs a source
    made[name] = task.probe_labels()
  tested = {name: {label} for name, (label, _) in PROMPTS.items()} | {
    "addition": {"carry"},
    "group_word": {"state"},  # in test_group_word.py
  }
  assert {name: {*found} for name, found in made.items() if found} == tested
  assert tj.tasks.build("addition(hints=20)").probe_labels() == {}


def test_a_label_that_a_task_does_not_make_is_named():
  with pytest.raises(ProbeError, match="'deepth'.*This run's task makes depth"):
    token_properties.build("deepth", tj.tasks.build("modular_arithmetic_brackets"))
  with pytest.raises(ProbeError, match="Text makes no label 'depth'.*makes none"):
    token_properties.OfTask("depth").prediction(TEXT, 8)


@pytest.mark.parametrize(
  ("spec", "words"),
  [
    ("distance(most=1)", "most is 1; write 2 or more"),
    ("next_token(ahead=0)", "ahead is 0; write 1 or more"),
    ("next_set(ahead=0)", "ahead is 0"),
  ],
)
def test_impossible_labels_are_refused(spec, words):
  with pytest.raises(ValueError, match=words):
    probe_labels.build(spec)


def test_distances_longer_than_the_texts_are_refused():
  label = probe_labels.build("distance(most=16)")
  with pytest.raises(ProbeError, match=r"texts of more than 16 .*distance\(most=4\)"):
    label.prediction(TEXT, tokens=8)


@pytest.mark.parametrize("name", [*probe_labels])
def test_contract_of_every_label(name):
  task = tj.tasks.build("cycle_navigation")
  label = probe_labels.build("of_task('state')" if name == "of_task" else name)
  score = jax.jit(lambda key: task.score((), key, 8, jnp.int32(24), 24))
  batch = score(jax.random.key(0))
  prediction = label.prediction(task, batch.input_BL.shape[1])
  draw = jax.jit(lambda batch, key: vars(label.labels(task, batch, key)))
  made = draw(batch, jax.random.key(1))
  counted = np.asarray(made["weight_BL"]) > 0
  label_I = np.asarray(made["label_BL"])[counted]
  assert label_I.min() >= 0 and label_I.max() < prediction.count
  assert (label.states == 2) == (made["other_BL"] is not None)
  real_BL = np.broadcast_to(np.asarray(batch.at.real_BL), counted.shape)
  assert counted.any() and not (counted & ~real_BL).any()
  share_C = prediction.shares(label_I)
  np.testing.assert_allclose(share_C.sum() >= 0.99, True)
