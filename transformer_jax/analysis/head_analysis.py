"""Heads of a model on the texts of a data set: statistics, similarities, importance."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.analysis import example_stream, head_importance
from transformer_jax.analysis.head_batch import (
  HeadBatch,
  Vocabulary,
  has_tokens,
  layers,
)
from transformer_jax.analysis.head_similarity import HeadSimilarity, joined
from transformer_jax.analysis.head_statistic import HeadStatistic
from transformer_jax.data.base import Batch
from transformer_jax.members import call
from transformer_jax.models import capture
from transformer_jax.models.recurrent.model import Recurrence
from transformer_jax.spec import SpecError
from transformer_jax.training.objectives import CROSS_ENTROPY, Objective

EVEN = "even"  # path of a head that attends to all keys alike
PRUNING_SEED = 0  # of the random orders of pruning


@dataclasses.dataclass(frozen=True, eq=False)
class HeadScores:
  """Numbers of the heads of one seed, by text.

  value_EH   {name: {path of a layer: texts by heads}}, NaN: a text has none; at path
             "even/..." of a head that attends evenly to what it sees

  >>> value_EH = {"entropy": {"decoder/layer_0/attention": np.array([[0.5, 1.5]])}}
  >>> HeadScores(value_EH).mean("entropy")
  {'decoder/layer_0/attention': array([0.5, 1.5])}
  """

  value_EH: Mapping[str, Mapping[str, np.ndarray]]

  def mean(self, name: str) -> dict[str, np.ndarray]:
    """Returns {path: means over texts that have a number, [H]}; NaN: none has."""
    return {path: means(x_EH) for path, x_EH in self.value_EH[name].items()}


def means(x_EH: np.ndarray) -> np.ndarray:
  """Returns the means over texts, without those that are NaN."""
  number_H = np.sum(~np.isnan(x_EH), axis=0)
  total_H = np.nansum(x_EH, axis=0)
  return np.where(number_H > 0, total_H / np.maximum(number_H, 1), np.nan)


@dataclasses.dataclass(frozen=True, eq=False)
class HeadAnalysis:
  """A model and texts, with the programs that look at its heads.

  Programs are compiled once for each shape of a part; the parameters of other seeds use
  the same ones.

  model        a Transformer or a recurrent model
  batch        texts
  vocabulary   kinds of its tokens; None: unknown
  batch_size   texts in memory at once
  objective    whose losses importance is about

  >>> HeadAnalysis(None, None).batch_size
  32
  """

  model: Any
  batch: Any
  vocabulary: Vocabulary | None = None
  batch_size: int = 32
  objective: Objective = CROSS_ENTROPY

  def __post_init__(self):
    vocabulary, batch = self.vocabulary, self.batch
    if vocabulary is None or batch is None or not has_tokens(batch.input_BL):
      return
    counted = vocabulary.counted(batch.input_BL, batch.at.real_BL)
    if batch.source_BL is not None:
      counted = counted.counted(batch.source_BL, batch.source_at.real_BL)
    object.__setattr__(self, "vocabulary", counted)

  def heads(self, params: Any) -> dict[str, int]:
    """Returns {path of a layer: number of its heads}; {}: no layer attends."""
    part = next(example_stream.parts(self.batch, self.batch_size))
    return head_importance.heads_of(self.model, params, part)

  def missing(self, statistic: HeadStatistic) -> str:
    """Returns why a statistic is left out; "": it is not."""
    vocabulary = self.vocabulary
    texts_known = vocabulary is not None and vocabulary.delimiter_V is not None
    absent = {
      "tokens": "" if has_tokens(self.batch.input_BL) else "the inputs are no tokens",
      "delimiters": "" if texts_known else "the texts of the tokens are not known",
      "counts": "" if vocabulary else "the counts of the tokens are not known",
      "texts": "" if len(self.batch.input_BL) > 1 else "there is one text only",
    }
    return next((absent[x] for x in sorted(statistic.needs) if absent[x]), "")

  def statistics(self, chosen: Mapping[str, HeadStatistic]) -> Any:
    """Returns a function from parameters to the HeadScores of statistics, by name.

    Texts are read twice where a statistic compares each of them with all others.
    """
    chosen = {name: x for name, x in chosen.items() if not self.missing(x)}
    comparing = {name: x for name, x in chosen.items() if "texts" in x.needs}

    def add(params: Any, part: Batch) -> dict[str, dict[str, Any]]:
      found = self._with_even(params, part)
      return {
        name: {path: statistic.total(layer) for path, layer in found.items()}
        for name, statistic in comparing.items()
      }

    def look(given: tuple[Any, Any], part: Batch) -> dict[str, dict[str, jax.Array]]:
      params, totals = given
      found = self._with_even(params, part)
      return {
        name: {
          path: scores(statistic, layer, totals.get(name, {}).get(path))
          for path, layer in found.items()
        }
        for name, statistic in chosen.items()
      }

    programs = self._compiled(add), self._compiled(look)

    def run(params: Any) -> HeadScores:
      texts, totals = (self.batch, self.batch_size), {}
      if comparing:
        totals = example_stream.sums(programs[0], params, *texts)
        totals = jax.tree.map(np.float32, totals)
      found = example_stream.per_text(programs[1], (params, totals), *texts)
      return HeadScores({name: capture.in_order(found[name]) for name in chosen})

    return run

  def similarities(self, chosen: Mapping[str, HeadSimilarity]) -> Any:
    """Returns a function from parameters to {name: {kind: (mean, error)}}, [H, H].

    A kind is `decoder/attention`, `decoder/cross`, `encoder/attention`, with the heads
    of all its layers; the error is the standard error over texts.
    """

    def look(params: Any, part: Batch) -> Any:
      found = kinds(layers(self.model, params, part.reads, self.vocabulary))
      return {
        name: {kind: _moments(x, joined(some)) for kind, some in found.items()}
        for name, x in chosen.items()
      }

    program = self._compiled(look)

    def run(params: Any) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
      found = example_stream.sums(program, params, self.batch, self.batch_size)
      return {
        name: {kind: _mean_and_error(*x) for kind, x in of_kinds.items()}
        for name, of_kinds in found.items()
      }

    return run

  def importance(self) -> Any:
    """Returns a function from parameters to HeadScores of `ablation` and `gradient`.

    ablation   loss of a text without the head minus that with it, in nats
    gradient   size of the derivative of its loss by the gate of the head

    Michel et al., 2019, https://arxiv.org/abs/1905.10650. The model attends by its own
    core, and no weights are held.
    """
    programs: dict[str, Any] = {}

    def run(params: Any) -> HeadScores:
      heads = self._heads(programs, params)
      stream = (self.batch, self.batch_size)
      slope = example_stream.per_text(programs["gradient"], params, *stream)
      setting = params, jnp.asarray(head_importance.without_one(heads))
      loss_EN = example_stream.per_text(programs["gates"], setting, *stream)
      ends = np.cumsum([*heads.values()])[:-1]
      lost = np.split(loss_EN[:, 1:] - loss_EN[:, :1], ends, axis=1)
      ablation = dict(zip(heads, lost, strict=True))
      return HeadScores({"ablation": ablation, "gradient": capture.in_order(slope)})

    return run

  def pruning(self, random_orders: int = 3) -> Any:
    """Returns a function (parameters, importance_H) -> {order: loss_EN}.

    Losses of texts with none, one, ..., all of the heads taken away: by `importance`,
    the least important first, and in `random` orders, the mean of which is given.
    importance_H has the heads of all layers, one layer after another. Give texts that
    the importance was not measured on.
    """
    programs: dict[str, Any] = {}

    def run(params: Any, importance_H: np.ndarray) -> dict[str, np.ndarray]:
      self._heads(programs, params)

      def losses(order_H: np.ndarray) -> np.ndarray:
        setting = params, jnp.asarray(head_importance.pruned(order_H))
        return example_stream.per_text(
          programs["gates"], setting, self.batch, self.batch_size
        )

      random = np.random.default_rng(PRUNING_SEED)
      drawn = [random.permutation(len(importance_H)) for _ in range(random_orders)]
      found = {"importance": losses(np.argsort(importance_H, kind="stable"))}
      if drawn:
        found["random"] = np.mean([losses(order_H) for order_H in drawn], axis=0)
      return found

    return run

  def _heads(self, programs: dict[str, Any], params: Any) -> dict[str, int]:
    """Returns the heads of each layer; makes the programs, the first time."""
    if "heads" not in programs:
      programs["heads"] = heads = self.heads(params)
      program = self.model, heads, self.objective
      programs["gradient"] = head_importance.by_gradient(*program)
      programs["gates"] = head_importance.by_gates(*program)
    return programs["heads"]

  def _with_even(self, params: Any, part: Batch) -> dict[str, HeadBatch]:
    """Returns the layers by path, and each with a head that attends evenly."""
    found = layers(self.model, params, part.reads, self.vocabulary)
    even = {f"{EVEN}/{path}": layer.evenly() for path, layer in found.items()}
    return found | even

  def _compiled(self, look: example_stream.LookAtPart) -> example_stream.LookAtPart:
    # The steps of a recurrent model are recorded outside of programs.
    return look if isinstance(self.model.arch, Recurrence) else jax.jit(look)


def kinds(found: Mapping[str, HeadBatch]) -> dict[str, list[HeadBatch]]:
  """Returns the layers of each kind, by `decoder/attention` and the like."""
  some: dict[str, list[HeadBatch]] = {}
  for path in capture.in_order(dict(found)):
    some.setdefault(kind_of(path), []).append(found[path])
  return some


def kind_of(path: str) -> str:
  """Returns the stack and the sort of attention of a layer.

  >>> kind_of("decoder/layer_3/cross"), kind_of("decoder/cross")
  ('decoder/cross', 'decoder/cross')
  """
  stack, *_, last = path.split("/")
  return f"{stack}/{last}"


def scores(statistic: HeadStatistic, layer: HeadBatch, total: Any = None) -> jax.Array:
  """Returns x_BH of a statistic; raises SpecError for another shape of a user's one.

  total   of all texts, of a statistic that compares; None: the layer has all of them
  """
  where = f"{type(statistic).__name__}.score"
  if total is None:
    x_BH = jnp.asarray(call(where, statistic.score, layer))
  else:
    x_BH = jnp.asarray(call(where, statistic.against, layer, total))
  wanted = layer.weight_BHLM.shape[:2]
  if x_BH.shape != wanted:
    raise SpecError(
      f"{where} returns shape {x_BH.shape} and it must be {wanted}: a number for each"
      " text and head"
    )
  return x_BH


def _moments(similarity: HeadSimilarity, layer: HeadBatch) -> Sequence[jax.Array]:
  """Returns number, sum and sum of squares over texts of each pair of heads."""
  x_BHH = similarity.score(layer)
  known_BHH = jnp.isfinite(x_BHH)
  x_BHH = jnp.where(known_BHH, x_BHH, 0)
  return [jnp.sum(y_BHH, axis=0) for y_BHH in (known_BHH * 1.0, x_BHH, x_BHH**2)]


def _mean_and_error(n_HH, total_HH, square_HH) -> tuple[np.ndarray, np.ndarray]:
  with np.errstate(invalid="ignore", divide="ignore"):
    mean_HH = total_HH / n_HH
    spread_HH = np.maximum(square_HH - n_HH * mean_HH**2, 0) / (n_HH - 1)
    return mean_HH, np.sqrt(spread_HH / n_HH)
