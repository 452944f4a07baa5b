"""Scores at several lengths, beyond the training length too, on the same targets."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from transformer_jax import global_arrays
from transformer_jax.data import task_probe
from transformer_jax.data.base import Batch, Task, target_places
from transformer_jax.devices import platform
from transformer_jax.evaluation import (
  answer_measure,  # noqa: F401, is a measure
  measure_probe,
)
from transformer_jax.evaluation.batch_scores import BatchScorer
from transformer_jax.evaluation.example_scores import ExampleScores
from transformer_jax.evaluation.measures import (
  Measure,
  TargetMeasure,
  measures,
  name_of,
)
from transformer_jax.evaluation.scoring_programs import (
  ScoringPrograms,
  averaging,
  drawing,
)
from transformer_jax.mesh_shape import SEQUENCE
from transformer_jax.models import Transformer
from transformer_jax.training import seed_parts
from transformer_jax.training.objectives import objective_of

INFINITE = "infinite: a target has probability 0"
# Tokens of padding, with each seed, that take as long as to compile another program.
MUCH_PADDING, MUCH = 2**24, {"cpu": 2**17}
NO_NUMBER = "no example has a number of this measure"


@dataclasses.dataclass(frozen=True)
class Evaluator:
  """Scores of every seed of a model at several lengths.

  One program serves all lengths up to a bucket: shorter inputs are padded on the left,
  unless that would take longer than to compile another program.
  On a CPU it has one seed, elsewhere all of them: see `training.seed_parts`.

  examples     scored at each length, the same ones for every model; all of them if the
               task has fewer
  batch_size   examples in memory at once
  key          seed of the draw of examples
  split        shards the batch axis of an array over devices
  measures     the headline first; (): those of the task

  Raises SpecError if a user's task or measure does not do as it declares.

  >>> from transformer_jax.axes import Dims
  >>> from transformer_jax.data.base import tasks
  >>> from transformer_jax.models import Architecture
  >>> arch = Architecture(Dims(V=6, D=8, H=2, F=8, L=8), position="rope", decoders=1)
  >>> task = tasks.build("copy(symbols=2)")
  >>> evaluator = Evaluator(Transformer(arch), task, examples=8, batch_size=4)
  >>> evaluator.columns()
  [('accuracy', 'mean'), ('accuracy', 'last_quarter'), ('exact_match', 'mean')]
  >>> evaluator.buckets((3, 16, 64))
  {3: 4, 16: 16, 64: 64}
  """

  model: Transformer
  task: Task
  examples: int
  batch_size: int
  key: int = 0
  split: Callable[[jax.Array], jax.Array] = lambda x_BL: x_BL
  measures: tuple[Measure, ...] = ()

  def __post_init__(self):
    task_probe.check(self.task, ["score"])
    for measure in self.measures:
      measure_probe.check(measure)
      measure_probe.check_targets(measure, objective_of(self.task).targets)

  @functools.cached_property
  def named(self) -> dict[str, Measure]:
    """Measures by name, the headline first."""
    chosen = self.measures or map(measures.build, self.task.measures)
    return {name_of(measure): measure for measure in chosen}

  @functools.cached_property
  def scorer(self) -> BatchScorer:
    """Scores of one seed on a batch."""
    return BatchScorer(
      self.model, self.named, self.batch_size, self.split, objective_of(self.task)
    )

  def run(self, params: Any, arrays: Any, lengths: tuple[int, ...]) -> list[dict]:
    """Returns rows {seed, length, measure, part, value}; params are stacked by seed.

    `seed` is the index in the stack. An undefined value is None, with its `reason`:
    positions past the encoding's last one, no target, or NaN logits.
    """
    return self.run_examples(params, arrays, lengths)[0]

  def run_examples(
    self, params: Any, arrays: Any, lengths: tuple[int, ...]
  ) -> tuple[list[dict], ExampleScores]:
    """Returns the rows of `run`, and the scores of the single examples.

    Seeds of both are indices in the stack.
    """
    seeds = jax.tree.leaves(params)[0].shape[0]
    parts = seed_parts.split(params, seed_parts.together(seeds))
    buckets = self.buckets(lengths)
    programs = {bucket: self.program(bucket) for bucket in {*buckets.values()}}
    found: list[dict] = []
    value_SE: dict[tuple[int, str, str], Any] = {}
    weight_E: dict[tuple[int, str], Any] = {}
    for length in lengths:
      scores = {column: [math.nan] * seeds for column in self.columns()}
      reasons = [self.undefined(length)] * seeds
      if length in buckets:
        each = programs[buckets[length]](parts, arrays, length)
        scores, *counts, singles, weights = seed_parts.join(global_arrays.read(each))
        reasons = [why_undefined(*map(int, pair)) for pair in zip(*counts, strict=True)]
        value_SE |= {(length, *column): x_SE for column, x_SE in singles.items()}
        # The same for all seeds.
        weight_E |= {(length, part): x_SE[0] for part, x_SE in weights.items()}
      for (measure, part), values in scores.items():
        place = {"length": length, "measure": measure, "part": part}
        own = not isinstance(self.named[measure], TargetMeasure)
        found += [
          {"seed": s, **place, **_value(v, _reason(reasons[s], own))}
          for s, v in enumerate(values)
        ]
    return found, ExampleScores(tuple(range(seeds)), value_SE, weight_E)

  def check(self, params: Any, arrays: Any, lengths: tuple[int, ...]) -> None:
    """Raises the errors of `run`; draws examples, and does not compile the model.

    params   shapes, stacked by seed; with the shardings of the parameters that are
             scored, `run` does not trace again
    """

    def part(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
      together = seed_parts.together(x.shape[0])
      shape = (together, *x.shape[1:])
      return jax.ShapeDtypeStruct(shape, x.dtype, sharding=x.sharding)

    params = jax.tree.map(part, params)
    for bucket in sorted({*self.buckets(lengths).values()}):
      self.program(bucket).check(params, arrays)

  def check_longest(self, params: Any, lengths: tuple[int, ...]) -> None:
    """Raises errors of drawing examples at any length, and of the model at the longest.

    A sixth of the time of `check`, for models whose parts are tested at all lengths.

    params   shapes of one seed
    """
    buckets = sorted({*self.buckets(lengths).values()})
    batches = [_drawn(self.task, self.examples, bucket) for bucket in buckets]
    for batch in batches[-1:]:
      self._apply_abstract(params, batch)

  def _apply_abstract(self, params: Any, batch: Batch) -> None:
    """Traces the model on as many examples of a batch as are scored at once."""
    B = batch.input_BL.shape[0]

    def chunk(x):
      if x.shape[0] != B:
        return x
      return jax.ShapeDtypeStruct((self.batch_size, *x.shape[1:]), x.dtype)

    jax.eval_shape(
      lambda p, part: self.model.apply({"params": p}, *part.reads),
      params,
      jax.tree.map(chunk, batch),
    )

  def buckets(self, lengths: tuple[int, ...]) -> dict[int, int]:
    """Returns the padded length of every length that has a score."""
    defined = [n for n in lengths if self.undefined(n) is None]
    return {n: self._padded(n, max(defined)) for n in defined}

  def _padded(self, length: int, max_length: int) -> int:
    """Returns the padded length, or the length itself where padding takes too long."""
    bucket = bucket_of(length, max_length)
    padding = self.task.tokens(bucket) - self.task.tokens(length)
    much = self.examples * padding > MUCH.get(platform(), MUCH_PADDING)
    return length if much else bucket

  def columns(self) -> list[tuple[str, str]]:
    """Returns the (measure, part) pairs that are scored."""
    return self.scorer.columns()

  def undefined(self, length: int) -> str | None:
    """Returns why a length has no score, or None: an encoding may end somewhere."""
    arch = self.model.arch
    num_positions, tokens = (
      arch.position.num_positions(arch.dims),
      self.task.tokens(length),
    )
    if num_positions is None or tokens <= num_positions:
      return None
    return (
      f"{arch.position.name} has {num_positions} positions and this length needs"
      f" {tokens}"
    )

  @functools.cached_property
  def _programs(self) -> dict[int, ScoringPrograms]:
    """Programs by bucket: they go with the evaluator, and its model with them."""
    return {}

  def program(self, bucket: int) -> ScoringPrograms:
    """Returns the programs of all lengths of a bucket."""
    if bucket not in self._programs:
      draw = drawing(self.task, self.examples, self.key)
      parts = self.scorer, draw, self._average
      self._programs[bucket] = ScoringPrograms.of(*parts, bucket, self.last(bucket))
    return self._programs[bucket]

  @functools.cached_property
  def _average(self) -> Any:
    return averaging(self.scorer)

  def last(self, bucket: int) -> int | None:
    """Returns how many last places of a bucket are computed to the end; None: all.

    Measures that read logits get those of all places.
    """
    by_target = all(isinstance(x, TargetMeasure) for x in self.named.values())
    split = jax.sharding.get_abstract_mesh().shape.get(SEQUENCE, 1) > 1
    whole = not by_target or split or not isinstance(self.model, Transformer)
    return None if whole else target_places(self.task, bucket)


@functools.lru_cache(maxsize=64)  # models that are compared share a task
def _drawn(task: Task, rows: int, bucket: int) -> Batch:
  """Returns the shapes of a scored batch."""
  draw = functools.partial(task.score, batch_size=rows, bucket=bucket)
  length = jax.ShapeDtypeStruct((), jnp.int32)
  key = jax.eval_shape(lambda: jax.random.key(0))

  def score(arrays, key, length):
    return draw(arrays, key, length=length)

  return jax.eval_shape(score, task.abstract(), key, length)


def why_undefined(examples: int, lost: int) -> str:
  """Returns why a mean over examples is undefined; `lost`: examples with NaN logits."""
  if not examples:
    return "no example has a target at this length"
  if lost:
    return f"logits of {lost} of {examples} examples are not numbers"
  return INFINITE


def _reason(reason: str | None, own: bool) -> str | None:
  """Returns why a measure is undefined; `own`: it is no function of losses and hits."""
  return NO_NUMBER if own and reason == INFINITE else reason


def _value(value: float, reason: str | None) -> dict[str, Any]:
  """Returns the JSON fields of a number; None and `reason` if it is not finite."""
  if math.isfinite(value):
    return {"value": float(value)}
  return {"value": None, "reason": reason}


def bucket_of(length: int, max_length: int) -> int:
  """Returns the padded length: max_length, a quarter of it, a sixteenth, ..."""
  bucket = max_length
  while bucket % 4 == 0 and bucket // 4 >= length:
    bucket //= 4
  return bucket
