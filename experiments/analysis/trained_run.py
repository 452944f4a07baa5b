"""A finished run in Python: parameters, scores, texts, activations."""

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from experiments import inference
from experiments.analysis import probing, token_texts
from experiments.analysis.answers import generate
from experiments.reporting.probe_result import ProbeResult, ProbeSettings
from experiments.runner import train
from experiments.runner.build import Experiment
from experiments.setup.validate import ConfigError
from transformer_jax.analysis import HeadAnalysis, head_statistics
from transformer_jax.analysis.head_analysis import EVEN
from transformer_jax.data.base import Batch, Task
from transformer_jax.evaluation import activations, example_scores
from transformer_jax.evaluation.example_scores import ExampleScores
from transformer_jax.models import Transformer
from transformer_jax.training import sharding
from transformer_jax.training.json_files import warn
from transformer_jax.training.objectives import objective_of


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedRun:
  """A finished run: config, model, task, parameters by seed, and scores.

  folder       of the run
  experiment   the objects of its config
  stacked      parameters of all seeds, NumPy arrays with a leading axis of seeds
  tokenizer    the one it was trained with, `Bytes` for bytes; None: its task has none
  result       content of result.json

  >>> import types
  >>> import numpy as np
  >>> experiment = types.SimpleNamespace(seeds=(3, 5))
  >>> stacked = {"gain_D": np.array([[1.0, 2.0], [3.0, 4.0]])}
  >>> run = TrainedRun(Path("runs/ID"), None, experiment, stacked, None, {})
  >>> run.params[5]["gain_D"].tolist()
  [3.0, 4.0]
  """

  folder: Path
  config: ConfigDict = dataclasses.field(repr=False)
  experiment: Experiment = dataclasses.field(repr=False)
  stacked: Any = dataclasses.field(repr=False)
  tokenizer: Any = dataclasses.field(repr=False)
  result: dict[str, Any] = dataclasses.field(repr=False)

  @property
  def model(self) -> Transformer:
    """Returns the model: `run.model.apply({"params": run.params[0]}, token_BL)`."""
    return self.experiment.trainer.model

  @property
  def task(self) -> Task:
    """Returns the task."""
    return self.experiment.task

  @property
  def seeds(self) -> tuple[int, ...]:
    """Returns the seeds."""
    return self.experiment.seeds

  @property
  def scores(self) -> list[dict[str, Any]]:
    """Returns the recorded scores, {seed, length, measure, part, value} each."""
    return self.result["scores"]

  @functools.cached_property
  def example_scores(self) -> ExampleScores | None:
    """Returns the scores of single examples, from examples.npz; None in older runs.

    `example_scores.value_SE[length, measure, part]` has them, seeds by examples.
    """
    return example_scores.read(self.folder)

  @functools.cached_property
  def params(self) -> dict[int, Any]:
    """Returns {seed: parameters}, those that were scored: with train.ema, the mean."""

    def at(n):
      return jax.tree.map(lambda x: x[n], self.stacked)

    return {seed: at(n) for n, seed in enumerate(self.seeds)}

  def score(self, lengths: Sequence[int] | None = None) -> list[dict[str, Any]]:
    """Returns the scores of all seeds, as `scores` has them, on one device.

    lengths   of the task, in its own unit; None: those of the config

    The data are read again; a line is printed if they have changed since the run.
    Shorter texts are padded, to a length that depends on the longest one: other lengths
    beside one may change its last digits.
    """
    lengths = self.experiment.lengths if lengths is None else tuple(lengths)
    if not lengths or not all(isinstance(n, int) and n > 0 for n in lengths):
      raise ConfigError(
        f"lengths={lengths}: write lengths of the task, as in (64, 256)"
      )
    with jax.set_mesh(sharding.make_mesh()):
      found = self.experiment.evaluator.run(self.stacked, self._arrays, lengths)
    return [score | {"seed": self.seeds[score["seed"]]} for score in found]

  def batch(self, examples: int = 4, length: int | None = None) -> Batch:
    """Returns examples drawn from the scored split, with targets and weights.

    examples   number of rows; fewer if the split has fewer
    length     of the task; None: that of training
    """
    length = self.experiment.trainer.length if length is None else length
    draw = functools.partial(self.task.score, batch_size=examples, bucket=length)
    key = jax.random.key(self.experiment.evaluator.key)
    return jax.jit(draw)(self._arrays, key, length=jnp.int32(length))

  def generate(
    self, prompts: Sequence[Any], seed: int | None = None, **options: Any
  ) -> list[Any]:
    """Returns an output for each prompt; options are those of `answers.generate`.

    prompts   texts, or symbols of an algorithmic task: `run.task.problem(4)[0]`
    seed      of the run; None: its first one
    """
    return generate(self.task, self.of_seed(seed), prompts, **options)

  def attention_weights(
    self, inputs: Any, seed: int | None = None
  ) -> dict[str, jax.Array]:
    """Returns {path: w_BHLM} of all layers: see `activations.attention_weights`.

    inputs   a `batch`, or token_BL
    seed     of the run; None: its first one
    """
    return self._look(activations.attention_weights, inputs, seed)

  def hidden_states(self, inputs: Any, seed: int | None = None) -> dict[str, jax.Array]:
    """Returns {path: x_BLD} of all layers: see `activations.hidden_states`.

    inputs   a `batch`, or token_BL
    seed     of the run; None: its first one
    """
    return self._look(activations.hidden_states, inputs, seed)

  def probe(self, label: str, probe: str = "linear", **settings: Any) -> ProbeResult:
    """Returns the scores of probes of all seeds, by layer.

    label      what is read, as in "position" or "distance(most=8)"
    probe      that reads it
    settings   others of `ProbeSettings`

    `run.probe("position").estimate("probe", layer=0)` is a mean with its interval.
    Raises ConfigError.
    """
    wanted = ProbeSettings(label, probe, **settings)
    return probing.probe(self.experiment, self.params, wanted, self.folder)

  def head_analysis(
    self, examples: int = 128, length: int | None = None, batch_size: int = 32
  ) -> HeadAnalysis:
    """Returns the programs that look at heads: statistics, similarities, importance.

    examples     drawn from the scored split, the same for each seed
    length       of the task; None: that of training
    batch_size   texts in memory at once, with L x M floats for each head

    Raises ConfigError for a length beyond the positions of the encoding.
    """
    trained = self.experiment.trainer.length
    length = trained if length is None else length
    if reason := self.experiment.evaluator.undefined(length):
      raise ConfigError(f"length={length}: {reason}; write {trained} or less")
    batch = self.batch(examples, length)
    words = token_texts.vocabulary(self)
    objective = objective_of(self.task)
    return HeadAnalysis(self.model, batch, words, batch_size, objective)

  def head_statistics(
    self, statistics: Iterable[str] = (), seed: int | None = None, **texts: Any
  ) -> dict[str, dict[str, Any]]:
    """Returns {statistic: {path of a layer: numbers of texts by heads}} of one seed.

    statistics   specs; (): all that are registered
    seed         of the run; None: its first one
    texts        options of `head_analysis`
    """
    params = self.of_seed(seed).params
    analysis = self.head_analysis(**texts)
    specs = tuple(statistics) or tuple(head_statistics)
    run = analysis.statistics({spec: head_statistics.build(spec) for spec in specs})
    with jax.set_mesh(sharding.make_mesh()):
      found = run(params).value_EH
    return {
      name: {path: x for path, x in some.items() if not path.startswith(EVEN)}
      for name, some in found.items()
    }

  def of_seed(self, seed: int | None = None) -> inference.Trained:
    """Returns one seed, as the inference commands use it; None: the first one."""
    seed = self.seeds[0] if seed is None else seed
    if seed not in self.params:
      seeds = ", ".join(map(str, self.seeds))
      raise ConfigError(f"seed={seed}: this run has the seeds {seeds}")
    params = self.params[seed]
    return inference.Trained(
      self.folder, self.config, self.experiment, params, self.tokenizer
    )

  def _look(self, function: Any, inputs: Any, seed: int | None) -> dict[str, jax.Array]:
    reads = inputs.reads if isinstance(inputs, Batch) else (jnp.asarray(inputs),)
    with jax.set_mesh(sharding.make_mesh()):  # `ring` needs one
      return function(self.model, self.of_seed(seed).params, *reads)

  @functools.cached_property
  def _arrays(self) -> Any:
    """Returns the arrays of the task's data."""
    arrays, facts = train.load(self.task)
    then = (self.result.get("data") or {}).get("fingerprint")
    if then not in (None, facts.get("fingerprint")):
      warn(f"the data of {self.folder} have changed since it was trained")
    return arrays
