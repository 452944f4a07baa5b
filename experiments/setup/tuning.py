"""Tuning of a plan: each variant gets the same search, and what the search chose."""

import ast
import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from experiments.setup.validate import ConfigError, unknown_key
from transformer_jax.spec import SpecError
from transformer_jax.spec.grammar import IMPORT, parse

SEEDS = (1000,)  # of a search: those of the report are others
SPLIT = "validation"


@dataclasses.dataclass(frozen=True)
class Tune:
  """A search that every variant gets: the same values of the same keys.

  values   {key: values to try}; a key of the config, or KEY.ARGUMENT for an argument of
           a spec, as in train.optimizer.lr
  seeds    of the search; they are not reported

  Every combination is trained as the plan says, scored on the validation split at the
  trained length, and the best by the headline measure is trained with the plan's seeds.

  >>> rates = Tune({"train.optimizer.lr": (1e-3, 3e-3)})
  >>> list(rates)
  [{'train.optimizer.lr': 0.001}, {'train.optimizer.lr': 0.003}]
  """

  values: Mapping[str, Sequence[Any]]
  seeds: tuple[int, ...] = SEEDS

  def __post_init__(self):
    if not self.values or not self.seeds:
      raise ConfigError(
        "tune: write at least one key and one seed, as in"
        " Tune({'train.optimizer.lr': (1e-3, 3e-3, 1e-2)})"
      )
    for key, choices in self.values.items():
      if not isinstance(choices, tuple | list) or not choices:
        raise ConfigError(f"tune: {key}={choices!r}; write a tuple of values to try")

  def __iter__(self) -> Iterator[dict[str, Any]]:
    for combination in itertools.product(*self.values.values()):
      yield dict(zip(self.values, combination, strict=True))

  def __len__(self) -> int:
    return len([*iter(self)])

  @property
  def tried(self) -> str:
    """Returns the keys and their values, in words."""
    return " x ".join(
      f"{key} of {', '.join(map(str, choices))}" for key, choices in self.values.items()
    )


def parsed(words: Sequence[str]) -> Tune | None:
  """Returns the search of the command line; None without any.

  words   each KEY=VALUES, as in train.optimizer.lr=(1e-3, 3e-3)
  """
  values = {}
  for word in words:
    key, _, text = word.partition("=")
    try:
      choices = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
      choices = None
    if not isinstance(choices, tuple | list) or not choices:
      raise ConfigError(
        f"--tune={word}: write a key and a tuple of values, as in"
        " --tune='train.optimizer.lr=(1e-3, 3e-3, 1e-2)'"
      )
    values[key] = tuple(choices)
  return Tune(values) if values else None


def overrides(flat: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
  """Returns {flat key: value} that set keys and arguments of specs; raises ConfigError.

  flat     the config that is changed
  values   {key or KEY.ARGUMENT: value}

  >>> flat = {"train.optimizer": "adamw(lr=1.0, b1=0.8)"}
  >>> overrides(flat, {"train.optimizer.lr": 2.0})
  {'train.optimizer': 'adamw(lr=2.0, b1=0.8)'}
  """
  changed: dict[str, Any] = {}
  for key, value in values.items():
    spec_key, _, argument = key.rpartition(".")
    if key in flat:
      changed[key] = value
    elif isinstance(flat.get(spec_key), str):
      spec = changed.get(spec_key, flat[spec_key])
      changed[spec_key] = with_argument(spec, argument, value)
    else:
      raise ConfigError(f"tune: {unknown_key(key, flat)}")
  return changed


def with_argument(spec: str, name: str, value: Any) -> str:
  """Returns a spec with an argument set by name; raises ConfigError.

  >>> with_argument("my_file:Own", "size", 3)
  'my_file:Own(size=3)'
  """
  try:
    node = parse(spec, "spec")
  except SpecError as error:
    raise ConfigError(str(error)) from error
  if not isinstance(node, ast.Call):
    node = ast.Call(node, [], [])
  if not isinstance(node.func, ast.Name | ast.Attribute):
    raise ConfigError(
      f"tune: {spec} is a sum, and which part has {name} is not known; write whole"
      " specs as the values to try"
    )
  given = ast.parse(repr(value), mode="eval").body
  keywords = [
    ast.keyword(each.arg, given if each.arg == name else each.value)
    for each in node.keywords
  ]
  if name not in [each.arg for each in keywords]:
    keywords.append(ast.keyword(name, given))
  return ast.unparse(ast.Call(node.func, node.args, keywords)).replace(IMPORT, ":")


@dataclasses.dataclass(frozen=True)
class Trial:
  """One run of a search.

  values    {key: value} that it tried
  id        of its folder, below tuning/runs
  scores    {seed: score}; None: diverged or undefined
  seconds   that the run took
  flops     of its training, all seeds; 0: unknown

  >>> Trial({"train.optimizer.lr": 0.1}, "", {"0": 1.0, "1": 2.0}, 1.0, 0.0).mean
  1.5
  >>> Trial({"train.optimizer.lr": 9.0}, "", {"0": None, "1": 2.0}, 1.0, 0.0).mean
  """

  values: Mapping[str, Any]
  id: str
  scores: Mapping[str, float | None]
  seconds: float
  flops: float

  @property
  def mean(self) -> float | None:
    """Returns the mean over seeds; None where one has no score."""
    scores = [score for score in self.scores.values() if score is not None]
    return sum(scores) / len(scores) if len(scores) == len(self.scores) > 0 else None


@dataclasses.dataclass(frozen=True)
class Tuned:
  """The search of one variant, and what it chose.

  measure   score that it was chosen by, on the validation split at the trained length
  better    "lower" or "higher"
  chosen    {key: value} of the best trial
  trials    all of them, in the order of the grid

  >>> trials = [Trial({"k": k}, "", {"0": k * k}, 1.0, 0.0) for k in (1, 2)]
  >>> tuned = Tuned("bits_per_byte", "lower", {"k": 1}, tuple(trials))
  >>> tuned.edges
  ['k']
  """

  measure: str
  better: str
  chosen: Mapping[str, Any]
  trials: tuple[Trial, ...]

  @property
  def edges(self) -> list[str]:
    """Returns the keys whose chosen number is the smallest or the largest tried."""
    edges = []
    for key, value in self.chosen.items():
      tried = {trial.values[key] for trial in self.trials}
      numbers = all(isinstance(x, int | float) for x in tried) and len(tried) > 1
      if numbers and value in (min(tried), max(tried)):
        edges.append(key)
    return edges

  @property
  def best(self) -> Trial:
    """Returns the chosen trial."""
    return next(trial for trial in self.trials if trial.values == self.chosen)

  def sentence(self) -> str:
    """Returns the chosen values, with a warning where they lie at an edge."""
    chosen = " ".join(f"{key}={value}" for key, value in self.chosen.items())
    tried = f"best of {len(self.trials)}"
    edge = f"; at the edge of the {', '.join(self.edges)} tried" if self.edges else ""
    return f"{chosen} ({tried}{edge})"

  def record(self) -> dict[str, Any]:
    """Returns the entry of sweep.json."""
    return dataclasses.asdict(self)

  @classmethod
  def recorded(cls, entry: Any) -> "Tuned | None":
    """Returns the value of an entry of sweep.json; None where it is not one."""
    try:
      trials = tuple(Trial(**trial) for trial in entry["trials"])
      tuned = cls(**{**entry, "trials": trials})
      keys = [trial.values.keys() for trial in trials]
      fits = all(each == tuned.chosen.keys() for each in keys)
      numbers = [x for t in trials for x in t.scores.values() if x is not None]
      numbers += [x for t in trials for x in (t.seconds, t.flops)]
      fits &= all(isinstance(x, int | float) for x in numbers)
      return tuned if fits and tuned.best and tuned.edges is not None else None
    except (TypeError, KeyError, AttributeError, StopIteration):
      return None


def choose(measure: str, better: str, trials: Sequence[Trial]) -> Tuned | None:
  """Returns the search with its best trial, the first of equals; None if none scored.

  measure   name of the headline measure
  better    "lower" or "higher"
  """
  scored = [(trial, trial.mean) for trial in trials]
  whole = [(trial, mean) for trial, mean in scored if mean is not None]
  if not whole:
    return None
  sign = 1 if better == "lower" else -1
  best, _ = min(whole, key=lambda pair: sign * pair[1])
  return Tuned(measure, better, dict(best.values), tuple(trials))
