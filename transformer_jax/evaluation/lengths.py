"""Scores of a model at lengths it may never have seen, on the same target tokens."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from transformer_jax.data.base import Batch, Task
from transformer_jax.models import Transformer
from transformer_jax.training.loss import cross_entropy


@dataclasses.dataclass(frozen=True)
class Measure:
  """A number per row of a batch, and which way is better.

  compute   (loss_BL, right_BL, weight_BL) -> [B]; it is averaged over rows
  quarter   whether it has a meaning on the last quarter of the targets
  """

  better: str
  compute: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
  quarter: bool = True


def _mean(x_BL: jax.Array, weight_BL: jax.Array) -> jax.Array:
  return jnp.sum(x_BL * weight_BL, axis=1) / jnp.sum(weight_BL, axis=1)


MEASURES = {
  "bits_per_byte": Measure(
    "lower", lambda loss, right, weight: _mean(loss, weight) / math.log(2)
  ),
  "accuracy": Measure("higher", lambda loss, right, weight: _mean(right, weight)),
  # Each answer token right after the right ones: greedy decoding gives the answer.
  "exact_match": Measure(
    "higher",
    lambda loss, right, weight: jnp.all(right | (weight == 0), axis=1) * 1.0,
    quarter=False,
  ),
}


@dataclasses.dataclass(frozen=True)
class Evaluator:
  """Scores every seed of a model at several lengths.

  One program serves all lengths up to a bucket: shorter ones are padded on the left
  with places where there is no token.

  rows    examples per length, the same ones for every model
  chunk   examples whose scores are in memory at once
  split   splits the rows of an array over devices
  """

  model: Transformer
  task: Task
  rows: int
  chunk: int
  key: int = 0
  split: Callable[[jax.Array], jax.Array] = lambda x_BL: x_BL

  def run(self, params: Any, arrays: Any, lengths: tuple[int, ...]) -> list[dict]:
    """Returns rows {seed, length, measure, part, value}; params are stacked by seed.

    `seed` is the place in the stack. Values past the encoding's reach are None.
    """
    seeds = jax.tree.leaves(params)[0].shape[0]
    buckets = self.buckets(lengths)
    programs = {bucket: self.program(bucket) for bucket in {*buckets.values()}}
    found = []
    for length in lengths:
      scores = {column: [None] * seeds for column in self.columns()}
      if length in buckets:
        program = programs[buckets[length]]
        scores = jax.device_get(program(params, arrays, jnp.int32(length)))
      for (measure, part), values in scores.items():
        place = {"length": length, "measure": measure, "part": part}
        found += [
          {"seed": s, **place, "value": _plain(v)} for s, v in enumerate(values)
        ]
    return found

  def check(self, params: Any, arrays: Any, lengths: tuple[int, ...]) -> None:
    """Raises what `run` would raise; traces its programs and compiles nothing."""
    length = jax.ShapeDtypeStruct((), jnp.int32)
    for bucket in sorted({*self.buckets(lengths).values()}):
      self.program(bucket).eval_shape(params, arrays, length)

  def buckets(self, lengths: tuple[int, ...]) -> dict[int, int]:
    """Returns the padded length of every length that has a score."""
    defined = [n for n in lengths if self.undefined(n) is None]
    return {n: bucket_of(n, max(defined)) for n in defined}

  def columns(self) -> list[tuple[str, str]]:
    """Returns the (measure, part) pairs that are scored."""
    both = lambda name: (
      ("mean", "last_quarter") if MEASURES[name].quarter else ("mean",)
    )
    return [(name, part) for name in self.task.measures for part in both(name)]

  def undefined(self, length: int) -> str | None:
    """Returns why a length has no score, or None: an encoding may end somewhere."""
    arch = self.model.arch
    reach, tokens = arch.position.reach(arch.dims), self.task.tokens(length)
    if reach is None or tokens <= reach:
      return None
    return f"{arch.position.name} has {reach} positions and this length needs {tokens}"

  @functools.lru_cache(maxsize=8)  # noqa: B019, so that it is traced once
  def program(self, bucket: int):
    """Returns the jitted `(params, arrays, length) -> scores by (measure, part)`."""
    score = functools.partial(self.score, bucket=bucket)
    return jax.jit(jax.vmap(score, (0, None, None)))

  def score(self, params: Any, arrays: Any, length: jax.Array, bucket: int) -> dict:
    """Returns the scores of one seed, {(measure, part): mean over rows}."""
    key = jax.random.key(self.key)
    batch = self.task.score(arrays, key, self.rows, length, bucket)
    outcomes = self.chunks(params, batch)
    parts = {"mean": batch.weight_BL, "last_quarter": last_quarter(batch.weight_BL)}
    mean = lambda name, part: MEASURES[name].compute(*outcomes, parts[part]).mean()
    return {(name, part): mean(name, part) for name, part in self.columns()}

  def chunks(self, params: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
    """Returns loss_BL in nats and whether the first choice is right, a chunk a time."""
    B = batch.input_BL.shape[0]
    fold = lambda x: x.reshape(-1, min(self.chunk, B), *x.shape[1:])

    def one(own):
      part = _filled(jax.tree.map(self.split, own), batch)
      logits_BLV = self.model.apply({"params": params}, *part.reads)
      right_BL = jnp.argmax(logits_BLV, axis=-1) == part.target_BL
      return cross_entropy(logits_BLV, part.target_BL), right_BL

    # Coordinates that all rows share have a batch axis of 1 and go with every chunk.
    own = jax.tree.map(lambda x: fold(x) if x.shape[0] == B else None, batch)
    return jax.tree.map(lambda x: x.reshape(B, -1), jax.lax.map(one, own))


def _filled(tree: Any, whole: Any) -> Any:
  """Returns the tree with what is missing taken from the whole."""
  choose = lambda own, shared: shared if own is None else own
  return jax.tree.map(choose, tree, whole, is_leaf=lambda x: x is None)


def _plain(value) -> float | None:
  """Returns a number for JSON; what is undefined or not finite is None."""
  return float(value) if value is not None and math.isfinite(value) else None


def last_quarter(weight_BL: jax.Array) -> jax.Array:
  """Keeps the last quarter of the places that count in each row."""
  rank_BL = jnp.cumsum(weight_BL, axis=1)
  return weight_BL * (rank_BL > 0.75 * jnp.sum(weight_BL, axis=1, keepdims=True))


def bucket_of(length: int, longest: int) -> int:
  """Returns the padded length: the longest, or a quarter of it, or a sixteenth, ..."""
  bucket = longest
  while bucket % 4 == 0 and bucket // 4 >= length:
    bucket //= 4
  return bucket
