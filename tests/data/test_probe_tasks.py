"""The quick test of tasks of users; all of ours that draw their batches pass it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import transformer_jax.data  # noqa: F401, fills the registry of tasks
from transformer_jax.data import task_probe
from transformer_jax.data.base import Batch, Task, tasks
from transformer_jax.data.tasks.algorithmic.base import Strings
from transformer_jax.data.tasks.algorithmic.copy import Copy
from transformer_jax.evaluation.lengths import Evaluator
from transformer_jax.positions import coords
from transformer_jax.spec import SpecError
from transformer_jax.training.step import Trainer

# These read files, which the quick test leaves alone.
FILES = {"text", "translation", "tokens", "prefix_tokens", "masked", "spans"}
FILES |= {"classification", "tagging", "images", "time_series", "signals"}
POSED = {"blanks", "pairs", "prefixed"}
SPECS = sorted({*tasks} - FILES - POSED) + [f"{name}(copy)" for name in sorted(POSED)]


# Those that draw in ways of their own; that symbols fit is a claim of oracles as well.
QUICK = "addition", "flip_flop", "mqar", "scan", "blanks(copy)", "pairs(copy)"
QUICK += "prefixed(copy)", "passkey", "modular_arithmetic_brackets"
slow = lambda spec: () if spec in QUICK else pytest.mark.slow


@pytest.mark.parametrize("spec", [pytest.param(x, marks=slow(x)) for x in SPECS])
def test_every_task_is_as_it_declares(spec):
  task_probe.probe(tasks.build(spec))


def task(base=Task, **members):
  """Returns an object of a user's class, which counts up from a random token."""

  def batch(self, arrays, key, batch_size, length, progress=1.0):
    start_B1 = jax.random.randint(key, (batch_size, 1), 0, 8)
    token_BL = (start_B1 + jnp.arange(length + 1)) % 8
    ones_BL, at = jnp.ones((batch_size, length)), coords.consecutive(1, length)
    return Batch(token_BL[:, :-1], token_BL[:, 1:], ones_BL, at)

  def score(self, arrays, key, batch_size, length, bucket):
    batch = self.batch(arrays, key, batch_size, bucket)
    real_1L = jnp.arange(bucket)[None] >= bucket - length
    weight_BL = batch.weight_BL * real_1L
    return dataclasses.replace(batch, weight_BL=weight_BL, at=coords.padded(real_1L))

  own = {"batch": batch, "score": score, "tokens": lambda self, length: length}
  own = own | {"vocabulary": 8} if base is Task else {}
  own = {
    n: x for n, x in own.items() if n != "vocabulary" or "vocabluary" not in members
  }
  cls = type("Mine", (base,), {"__module__": __name__, **own, **members})
  return dataclasses.dataclass(frozen=True)(cls)()


def changed(**fields):
  """Returns a hook that draws a batch with other fields."""

  def batch(self, arrays, key, batch_size, length, progress=1.0):
    drawn = task().batch(arrays, key, batch_size, length)
    return dataclasses.replace(drawn, **{n: f(drawn) for n, f in fields.items()})

  return {"batch": batch}


def by_numpy(self, arrays, key, batch_size, length, progress=1.0):
  token_BL = jnp.asarray(np.random.randint(0, 8, (batch_size, length)), jnp.int32)
  at = coords.consecutive(1, length)
  return Batch(token_BL, token_BL, jnp.ones((batch_size, length)), at)


WRONG = {
  "a misspelt vocabulary": ({"vocabluary": 8}, "rename it to vocabulary"),
  "no vocabulary": ({"vocabulary": None}, "Mine.vocabulary is None"),
  "another kind": ({"kind": "decodr"}, "Did you mean 'decoder'"),
  "measures as a text": ({"measures": "accuracy"}, "Mine.measures is 'accuracy'"),
  "no score": ({"score": Task.score}, "Mine has no score()"),
  "names of arguments": (
    {"batch": lambda self, arrays, key, B, L, progress=1.0: None},
    "write def batch(self, arrays, key, batch_size, length, progress)",
  ),
  "a former name": (
    {"batch": lambda self, arrays, key, batch_size, length, done=1.0: None},
    "write def batch(self, arrays, key, batch_size, length, progress)",
  ),
  "no batch": (
    {"batch": lambda self, arrays, key, batch_size, length, progress=1.0: None},
    "returns None; return a Batch",
  ),
  "tokens": ({"tokens": lambda self, length: length + 1}, "it must be (4, 7)"),
  "a small vocabulary": ({"vocabulary": 7}, "the numbers 0 to 6; raise vocabulary"),
  "random numbers of NumPy": ({"batch": by_numpy}, "draw from the key"),
  "a float": (
    changed(input_BL=lambda batch: 1.0 * batch.input_BL),
    "returns input_BL of float32; return int32",
  ),
  "nothing counts": (
    changed(weight_BL=lambda batch: 0 * batch.weight_BL),
    "counts no prediction",
  ),
  "a source": ({"kind": "encoder_decoder"}, "has no source"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_untrue_is_refused_in_one_sentence_with_the_cure(case):
  members, says = WRONG[case]
  with pytest.raises(SpecError) as error:
    task_probe.check(task(**members))
  said = str(error.value)
  assert says in said and said.startswith("Mine") and "\n" not in said


def test_a_misspelt_hook_of_strings_is_refused():
  class Mine(Copy):
    def string(self, random_N, length, longest):
      return random_N, random_N

  with pytest.raises(
    SpecError, match="Mine.string is not a hook.*rename it to strings"
  ):
    task_probe.check(Mine())
  with pytest.raises(SpecError, match="Mine.numbers hides the hook numbers"):
    task_probe.check(task(Strings, numbers=3, symbols=2))


@pytest.mark.parametrize("kind", [ValueError, AssertionError])
def test_a_task_may_need_longer_texts(kind):
  least = 16

  def batch(self, arrays, key, batch_size, length, progress=1.0):
    if length < least:
      raise kind("too short")
    return task().batch(arrays, key, batch_size, length)

  task_probe.check(task(batch=batch))
  least = 10**6
  with pytest.raises(SpecError, match="Mine.batch fails.*too short"):
    task_probe.check(task(batch=batch))


def test_what_is_right_passes():
  task_probe.check(task())
  task_probe.check(Copy())


@pytest.mark.parametrize(
  "build",
  [
    lambda task: Trainer(None, task, None, None, batch_size=2, length=4),
    lambda task: Evaluator(None, task, examples=2, batch_size=2),
  ],
  ids=["trainer", "evaluator"],
)
def test_a_task_given_in_python_is_tried(build):
  too_large = changed(target_BL=lambda drawn: drawn.target_BL + 8)
  with pytest.raises(SpecError, match="Mine has the numbers 0 to 7"):
    build(task(**too_large))
  build(task())


def test_a_task_is_tried_once(monkeypatch):
  tried, mine = [], task()
  draw = type(mine).batch
  monkeypatch.setattr(
    type(mine), "batch", lambda self, *args, **kw: tried.append(0) or draw(self, *args)
  )
  both = Trainer(None, mine, None, None, 2, 4), Evaluator(None, mine, 2, 2)
  first = len(tried)
  for each in both:
    dataclasses.replace(each, batch_size=4)
  assert 0 < first == len(tried)
