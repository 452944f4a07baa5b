"""Scores of a batch of examples by measure and part, in chunks that fit into memory."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from transformer_jax.data.base import Batch
from transformer_jax.evaluation import measure_probe
from transformer_jax.evaluation.measures import Measure, Outputs, TargetMeasure
from transformer_jax.members import call
from transformer_jax.training.objectives import Objective, objectives


@dataclasses.dataclass(frozen=True, eq=False)
class BatchScorer:
  """Scores of one seed of a model on a batch of examples.

  model        a Transformer, or a recurrent model
  named        measures by name, the headline first
  batch_size   examples in memory at once
  split        shards the batch axis of an array over devices
  objective    tells losses and hits from outputs and targets

  >>> from transformer_jax.evaluation.measures import measures
  >>> BatchScorer(None, {"bits": measures.build("bits_per_byte")}, 4).columns()
  [('bits', 'mean'), ('bits', 'last_quarter')]
  """

  model: Any
  named: Mapping[str, Measure]
  batch_size: int
  split: Callable[[jax.Array], jax.Array] = lambda x_BL: x_BL
  objective: Objective = objectives.build("cross_entropy")

  def columns(self) -> list[tuple[str, str]]:
    """Returns the (measure, part) pairs that are scored."""

    def both(measure):
      return ("mean", "last_quarter") if measure.quarter else ("mean",)

    return [(name, part) for name, x in self.named.items() for part in both(x)]

  def average(
    self, loss_BL: jax.Array, right_BL: jax.Array, others: dict, weight_BL: jax.Array
  ) -> tuple[dict, jax.Array, jax.Array, dict, dict]:
    """Returns {(measure, part): mean over examples}.

    Also the number of examples with a target, and of those with NaN in a scored logit;
    {(measure, part): scores of the single examples}, NaN where there is none; and
    {part: their sums of weights}.

    loss_BL, right_BL, others   result of `chunks`
    weight_BL                   1 where a prediction counts
    """
    parts = {"mean": weight_BL, "last_quarter": last_quarter(weight_BL)}
    # A copy, so that the code below does not change how the plain mean is compiled.
    copies = jax.lax.optimization_barrier((loss_BL, right_BL, weight_BL))
    nan_BL, counts_BL = jnp.isnan(copies[0]), copies[2] > 0
    real_B, lost_B = (jnp.any(x, axis=1) for x in (counts_BL, counts_BL & nan_BL))
    plain = jnp.all(real_B) & ~jnp.any(nan_BL)
    # Targets without weight may be NaN; examples with NaN at a scored target are lost.
    clean_loss_BL, clean_right_BL = (
      jnp.where(counts_BL, x, 0).astype(x.dtype) for x in copies[:2]
    )

    def single(name, part):
      measure = self.named[name]
      if isinstance(measure, TargetMeasure):
        some_B = measure.compute(clean_loss_BL, clean_right_BL, parts[part])
      else:
        some_B = others[name, part]
      return jnp.where(lost_B, jnp.nan, some_B)

    def mean(name, part):
      measure, single_B = self.named[name], singles[name, part]
      if not isinstance(measure, TargetMeasure):
        # An example without a number is left out, unless its logits are NaN.
        return mean_of(single_B, real_B & (lost_B | ~jnp.isnan(single_B)))
      some = mean_of(single_B, real_B)
      all_B = measure.compute(loss_BL, right_BL, parts[part])
      return jnp.where(plain, all_B.mean(), some)

    singles = {(name, part): single(name, part) for name, part in self.columns()}
    scores = {(name, part): mean(name, part) for name, part in self.columns()}
    singles = {
      column: jnp.where(real_B, x_B, jnp.nan) for column, x_B in singles.items()
    }
    weights = {part: jnp.sum(weight_BL, axis=1) for part, weight_BL in parts.items()}
    return scores, jnp.sum(real_B), jnp.sum(lost_B), singles, weights

  def chunks(
    self, params: Any, batch: Batch, last: int | None = None
  ) -> tuple[jax.Array, jax.Array, dict[tuple[str, str], jax.Array]]:
    """Returns loss_BL and the objective's metric, right_BL, chunk by chunk.

    Of cross-entropy they are nats, and whether argmax is right. Also {(measure, part):
    x_B} of the measures that read logits.

    If logits are NaN or a label with weight is outside of the vocabulary, the loss is
    NaN and argmax means nothing.

    last   number of places with targets, the batch's last ones; None: all
    """
    options = {} if last is None else {"last": last}
    B = batch.input_BL.shape[0]
    rows = -(-B // self.batch_size) * self.batch_size

    def fold(x):
      # Examples that fill the last chunk are computed and dropped.
      x = x if rows == B else x[jnp.arange(rows) % B]
      return x.reshape(-1, self.batch_size, *x.shape[1:])

    def one(own):
      part = _filled(jax.tree.map(self.split, own), batch)
      logits_BLV: Any = self.model.apply({"params": params}, *part.reads, **options)
      loss_BL, right_BL = self.objective.losses(
        logits_BLV, part.target_BL, part.weight_BL
      )
      return loss_BL, right_BL, self._others(params, part, logits_BLV)

    # Coordinates that all examples share have a batch axis of 1 and are not cut.
    own = jax.tree.map(lambda x: fold(x) if x.shape[0] == B else None, batch)
    *targets, others = jax.lax.map(one, own)
    loss_BL, right_BL = (x.reshape(rows, -1)[:B] for x in targets)
    return loss_BL, right_BL, {k: x.reshape(rows)[:B] for k, x in others.items()}

  def _others(
    self, params: Any, batch: Batch, logits_BLV: jax.Array
  ) -> dict[tuple[str, str], jax.Array]:
    """Returns {(measure, part): x_B} of the measures that read logits."""
    parts = {"mean": lambda weight_BL: weight_BL, "last_quarter": last_quarter}
    found = {}
    for name, part in self.columns():
      measure = self.named[name]
      if isinstance(measure, TargetMeasure):
        continue
      outputs = Outputs(
        logits_BLV,
        batch.target_BL,
        parts[part](batch.weight_BL),
        batch.at.real_BL,
        self.model,
        params,
        batch.reads,
        self.objective,
      )
      where = f"{type(measure).__name__}.score"
      x_B = jnp.asarray(call(where, measure.score, outputs), jnp.float32)
      measure_probe.check_scores(where, x_B.shape, len(batch.weight_BL))
      found[name, part] = x_B
    return found


def _filled(tree: Any, whole: Any) -> Any:
  """Returns the tree with its missing leaves taken from `whole`."""

  def choose(own, shared):
    return shared if own is None else own

  return jax.tree.map(choose, tree, whole, is_leaf=lambda x: x is None)


def mean_of(x_B: jax.Array, real_B: jax.Array) -> jax.Array:
  """Returns the mean over the real examples; NaN if there is none."""
  return jnp.sum(jnp.where(real_B, x_B, 0.0)) / jnp.sum(real_B)


def last_quarter(weight_BL: jax.Array) -> jax.Array:
  """Returns weights of the last quarter of each row's targets, 0 elsewhere."""
  rank_BL = jnp.cumsum(weight_BL, axis=1)
  return weight_BL * (rank_BL > 0.75 * jnp.sum(weight_BL, axis=1, keepdims=True))
