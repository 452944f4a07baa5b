"""Scores by length: the same targets, few programs, nothing clamped."""

import dataclasses
import functools
import gc
import math
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from interpreted import interpreted

from transformer_jax.attention.cores import cores
from transformer_jax.axes import Dims
from transformer_jax.data.base import Batch, Task, target_places, tasks
from transformer_jax.evaluation.batch_scores import last_quarter
from transformer_jax.evaluation.decode import greedy
from transformer_jax.evaluation.lengths import Evaluator, bucket_of
from transformer_jax.models import Architecture, Transformer
from transformer_jax.numpy_interpreter import evaluate
from transformer_jax.positions import coords, positions
from transformer_jax.spec import SpecError
from transformer_jax.training import sharding

LENGTHS = (4, 8, 16, 32)


@dataclasses.dataclass(frozen=True)
class Digits(Task):
  """The last four tokens of a fixed text are scored, whatever comes before."""

  vocabulary = 8
  measures = ("bits_per_byte", "accuracy", "exact_match")

  def tokens(self, length):
    return length

  def score(self, arrays, key, batch_size, length, bucket):
    token_BL = jax.random.randint(key, (batch_size, 33), 0, 8)[:, -bucket - 1 :]
    real_L = jnp.arange(bucket) >= bucket - length
    weight_L = (jnp.arange(bucket) >= bucket - 4) * 1.0
    weight_BL = jnp.broadcast_to(weight_L, (batch_size, bucket))
    at = coords.padded(real_L[None])
    return Batch(token_BL[:, :-1], token_BL[:, 1:], weight_BL, at)


def make(position, task=None, length=4, encoders=0):
  task = task or Digits()
  V, L = task.vocabulary, task.tokens(length)
  dims = Dims(V=V, D=16, H=2, F=16, L=L)
  position, core = positions.build(position), cores.build("dense")
  arch = Architecture(dims, position, core, decoders=1, encoders=encoders)
  model, token_BL = Transformer(arch), jnp.zeros((1, L), jnp.int32)
  keys = jax.random.split(jax.random.key(0), 2)
  init = jax.vmap(lambda key: model.init(key, token_BL, source_BL=token_BL)["params"])
  shapes, random = jax.eval_shape(init, keys), np.random.default_rng(0)
  draw = lambda x: jnp.asarray(0.3 * random.normal(size=x.shape), x.dtype)
  return model, task, jax.tree.map(draw, shapes)


def value(rows, **wanted):
  (row,) = [r for r in rows if wanted.items() <= r.items()]
  return row["value"]


def test_scores_are_those_of_each_text_alone():
  model, task, params = make("alibi")
  rows = Evaluator(model, task, examples=6, batch_size=3).run(params, (), LENGTHS)
  assert len(rows) == 2 * 4 * (2 + 2 + 1)
  token_BL = jax.random.randint(jax.random.key(0), (6, 33), 0, 8)
  run = interpreted(lambda p, x: jax.nn.log_softmax(model.apply({"params": p}, x)))
  for seed, length in ((0, 4), (1, 32)):
    own = jax.tree.map(lambda x, s=seed: x[s], params)
    log_p = run(own, token_BL[:, -length - 1 : -1])[:, -4:]
    target = np.asarray(token_BL[:, -4:])
    hit = np.take_along_axis(log_p, target[..., None], -1)[..., 0]
    right = log_p.argmax(-1) == target
    where = {"seed": seed, "length": length, "part": "mean"}
    close = lambda got, want: np.testing.assert_allclose(got, want, atol=1e-5)
    close(value(rows, measure="bits_per_byte", **where), -hit.mean() / math.log(2))
    close(value(rows, measure="accuracy", **where), right.mean())
    close(value(rows, measure="exact_match", **where), right.all(1).mean())
    last = where | {"part": "last_quarter"}
    close(
      value(rows, measure="bits_per_byte", **last), -hit[:, -1].mean() / math.log(2)
    )


def test_scores_of_a_seed_have_the_same_bits_whatever_seeds_are_beside_it():
  model, task, params = make("alibi")
  evaluator = Evaluator(model, task, examples=6, batch_size=3)
  rows = evaluator.run(params, (), (4, 8))
  for order in ([1], [1, 0]):
    some = jax.tree.map(lambda x, order=order: x[np.array(order)], params)
    found = evaluator.run(some, (), (4, 8))
    found = [row | {"seed": order[row["seed"]]} for row in found]
    assert (
      all(row in rows for row in found) and len(found) == len(rows) * len(order) / 2
    )


def test_lengths_share_programs():
  assert [bucket_of(n, 512) for n in (64, 128, 129, 256, 512)] == [
    128,
    128,
    512,
    512,
    512,
  ]
  assert [bucket_of(n, 100) for n in (10, 25, 26)] == [25, 25, 100]
  for longest in (60, 64, 100):  # a longer bucket would need more data than there is
    buckets = [bucket_of(n, longest) for n in range(1, longest + 1)]
    assert all(n <= b <= longest for n, b in enumerate(buckets, 1))


def test_lengths_are_traced_and_compiled_once_a_bucket_after_the_check_too(monkeypatch):
  traced, programs, original = [], [], Evaluator.program

  class Counted(Digits):
    def score(self, arrays, key, batch_size, length, bucket):
      traced.append(bucket)
      return super().score(arrays, key, batch_size, length, bucket)

  def program(self, bucket):
    programs.append(original(self, bucket))
    return programs[-1]

  model, task, params = make("rope", Counted())
  evaluator = Evaluator(model, task, examples=2, batch_size=2)
  mesh = sharding.make_mesh(data=1, tensor=1, sequence=1)
  params = sharding.whole(mesh, params)
  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), params
  )
  traced.clear()
  with jax.set_mesh(mesh):
    evaluator.check(shapes, (), LENGTHS)
    monkeypatch.setattr(Evaluator, "program", program)
    evaluator.run(params, (), LENGTHS)
  assert sorted(traced) == [8, 32]
  assert [program.losses._cache_size() for program in programs] == [1, 1]


def test_much_padding_takes_longer_than_another_program():
  model, task, _ = make("rope")
  few, many = (Evaluator(model, task, examples=n, batch_size=2) for n in (2, 2**14))
  assert few.buckets((4, 16, 32)) == {4: 8, 16: 32, 32: 32}
  assert many.buckets((4, 16, 32)) == {4: 8, 16: 16, 32: 32}


@dataclasses.dataclass(frozen=True)
class LastDigits(Digits):
  """Digits that say where they are scored."""

  def target_places(self, bucket):
    return 4

  def score(self, arrays, key, batch_size, length, bucket):
    return super().score(arrays, key, batch_size, length, bucket)


def test_declared_places_change_no_score():
  model, task, params = make("rope")
  want, got = (
    Evaluator(model, x, examples=4, batch_size=2).run(params, (), LENGTHS)
    for x in (task, LastDigits())
  )
  for row, other in zip(got, want, strict=True):
    assert row.pop("value") == pytest.approx(other.pop("value"), rel=1e-5)
    assert row == other


@dataclasses.dataclass(frozen=True)
class OtherDigits(LastDigits):
  """Scores that are its own, below declared places that it inherits."""

  def score(self, arrays, key, batch_size, length, bucket):
    batch = super().score(arrays, key, batch_size, length, bucket)
    return dataclasses.replace(batch, weight_BL=jnp.ones_like(batch.weight_BL))


@dataclasses.dataclass(frozen=True)
class WrongDigits(OtherDigits):
  """Declares fewer places than it scores."""

  def target_places(self, bucket):
    return 4


def test_places_are_those_of_the_class_that_scores():
  assert target_places(LastDigits(), 8) == 4 and target_places(OtherDigits(), 8) is None
  model, _, _ = make("rope")
  with pytest.raises(SpecError, match=r"WrongDigits.target_places\(6\) is 4, and"):
    Evaluator(model, WrongDigits(), examples=4, batch_size=2)


def test_a_model_goes_with_its_evaluator():
  model, task, params = make("alibi")
  evaluator = Evaluator(model, task, examples=4, batch_size=2)
  assert evaluator.run(params, (), (4,)) and evaluator.program(4) is not None
  gone = weakref.ref(evaluator)
  del evaluator
  gc.collect()
  assert gone() is None


@pytest.mark.parametrize("name", ["learned", "randomized(learned, max_positions=10)"])
def test_past_a_tables_end_scores_are_undefined_not_clamped(name):
  model, task, params = make(name)
  evaluator = Evaluator(model, task, examples=2, batch_size=2)
  rows = evaluator.run(params, (), LENGTHS)
  reach = 4 if name == "learned" else 10
  for row in rows:
    assert (row["value"] is None) == (row["length"] > reach), row
  assert evaluator.undefined(4) is None
  assert f"has {reach} positions and this length needs 16" in evaluator.undefined(16)


def test_last_quarter_counts_only_scored_places():
  weight_BL = jnp.array([[0, 1, 1, 1, 1, 1, 1, 1, 1, 0]])
  np.testing.assert_array_equal(
    last_quarter(weight_BL), [[0, 0, 0, 0, 0, 0, 0, 1, 1, 0]]
  )


@pytest.mark.parametrize(
  "spec",
  [
    pytest.param("copy(symbols=2)", marks=pytest.mark.slow),
    "pairs(copy(symbols=2))",
  ],
)
def test_exact_match_is_what_greedy_decoding_gives(spec):
  task = tasks.build(spec)
  encoders = int(task.kind == "encoder_decoder")
  model, task, params = make("rope", task, length=2, encoders=encoders)
  # Of many models that answer at random, some are right on some strings of one symbol.
  noise = lambda x: jax.random.normal(jax.random.key(x.size), (64, *x.shape[1:]))
  params = jax.tree.map(noise, params)
  # One program scores both lengths, so the shorter one is padded there and not here.
  rows = Evaluator(model, task, examples=16, batch_size=8).run(params, (), (1, 2))
  rows = [row for row in rows if row["length"] == 1]
  batch = jax.jit(lambda: task.score((), jax.random.key(0), 16, 1, 1))()
  prompt_BL, answer_BL = batch.input_BL[:, :-1], batch.target_BL[:, -2:]

  def write(own):
    read = functools.partial(model.apply, {"params": own}, method="encode")
    memory = read(batch.source_BL) if task.kind == "encoder_decoder" else None
    return greedy(model, own, prompt_BL, 2, memory=memory)

  written_SBL = evaluate(jax.vmap(write), params)
  match_S = np.all(written_SBL == answer_BL, axis=2).mean(axis=1)
  scored_S = [row["value"] for row in rows if row["measure"] == "exact_match"]
  np.testing.assert_allclose(scored_S, match_S)
  assert 0 < match_S.max() < 1


def test_what_cannot_be_scored_is_refused_before_anything_compiles():
  model, task, params = make("learned", tasks.build("recall(keys=5)"))
  evaluator = Evaluator(model, task, examples=2, batch_size=2)
  evaluator.check(params, (), (2, 4, 8))  # 8 pairs are past the table and not scored
  one = jax.eval_shape(lambda: jax.tree.map(lambda x: x[0], params))
  evaluator.check_longest(one, (2, 4, 8))
  model, task, params = make("rope", tasks.build("recall(keys=5)"))
  evaluator = Evaluator(model, task, examples=2, batch_size=2)
  for check in (
    lambda: evaluator.check(params, (), (2, 4, 8)),
    lambda: evaluator.check_longest(one, (2, 4, 8)),
  ):
    with pytest.raises(SpecError, match=r"write recall\(keys=8\)"):
      check()
