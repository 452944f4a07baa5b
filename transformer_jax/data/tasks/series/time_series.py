"""Forecasting: the next values of a series of numbers."""

import dataclasses
import hashlib
import json
import pathlib
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.data.base import (
  MANY,
  Batch,
  Task,
  TaskData,
  check_fitted,
  check_sizes,
  check_split,
  note,
  shape,
  tasks,
)
from transformer_jax.data.files import DataError
from transformer_jax.data.readers import number_table
from transformer_jax.data.tasks.algorithmic.permutation import each_once
from transformer_jax.data.tasks.series import forecast_baselines
from transformer_jax.positions import coords

FILE = "series.json"  # in a run's folder
PARTS = {"train": (0.0, 0.8), "validation": (0.8, 0.9), "test": (0.9, 1.0)}


@dataclasses.dataclass(frozen=True)
class SeriesScale:
  """Mean and standard deviation of each column of the training values.

  >>> scale = SeriesScale({"sales": (10.0, 2.0)})
  >>> scale.original("sales", np.array([0.0, 1.5])).tolist()
  [10.0, 13.0]
  """

  columns: dict[str, tuple[float, float]]

  def standard(self, name: str, value_T: np.ndarray) -> np.ndarray:
    """Returns the values as a model reads and predicts them."""
    mean, deviation = self.columns[name]
    return (value_T - mean) / deviation

  def original(self, name: str, value_T: np.ndarray) -> np.ndarray:
    """Returns values in the unit of the file."""
    mean, deviation = self.columns[name]
    return value_T * deviation + mean


@tasks.register("time_series")
@dataclasses.dataclass(frozen=True)
class TimeSeries(Task):
  """Forecasts of the next values of a series; the length is the values that are read.

  A causal decoder reads a window and predicts, at each of its values, the `horizon`
  values that follow. Splits are by time: the first 80% of the values are trained on,
  10% are for validation and the last 10% for test. Values are standardized by the mean
  and the standard deviation of the training part, and so are the errors. The last place
  of a window is scored, at the same places for all lengths; windows may begin in an
  earlier part. The model needs `model.embedding=numbers(features=...)` with the number
  of columns, and `model.tied=False`.

  source    a .csv or .csv.gz file whose first line names its columns, one line for each
            moment, in order; or 'us_births', which is prepared from a package
  columns   that are read; the first one is predicted
  horizon   values that are predicted at each place
  season    values in a season, for the baseline that repeats the last one; 0: none
  objective what is minimized: squared_error, gaussian, quantiles((0.1, 0.5, 0.9))
  relative  predicts the difference from the value one season before, or from the last
            value without a season: a series may leave the range of its training part,
            as in NLinear, Zeng et al., 2022, https://arxiv.org/abs/2205.13504. The
            error of a difference is that of the value
  split     the scored split: 'test' or 'validation'
  data_dir  folder of prepared data; None: TFDS's default

  The facts have the errors of baselines: the last value, the last season, and a linear
  regression on the last 64 values. The best of them is the line in the figures.

  >>> import pathlib, tempfile
  >>> with tempfile.TemporaryDirectory() as folder:
  ...   path = pathlib.Path(folder, "week.csv")
  ...   _ = path.write_text("n\\n" + "\\n".join(str(n % 7) for n in range(200)))
  ...   task = tasks.build(f"time_series('{path}', columns=('n',), season=7)")
  ...   arrays, facts = task.load()
  >>> facts["values"], facts["baselines"]["seasonal_naive"]["mae"]
  ({'train': 160, 'test': 20}, 0.0)
  """

  source: str
  columns: tuple[str, ...] = ("value",)
  horizon: int = 1
  season: int = 0
  objective: str = "squared_error"
  relative: bool = True
  split: str = "test"
  data_dir: str | None = None

  kind: ClassVar[str] = "decoder"
  vocabulary: ClassVar[int] = 1
  measures: ClassVar[tuple[str, ...]] = ("mae", "mse")

  def __post_init__(self):
    check_split("time_series", self.split)
    check_sizes("time_series", horizon=self.horizon)
    check_sizes("time_series", 0, season=self.season)
    if not self.columns:
      raise DataError(
        f"time_series: columns is {self.columns!r}; write names, as columns=('sales',)"
      )

  @property
  def target_numbers(self) -> int:
    return self.horizon

  @property
  def target_kind(self) -> str:
    if not self.relative:
      return "values"
    if self.season > 1:
      return f"differences from the value {self.season} places before"
    return "differences from the last value"

  def tokens(self, length: int) -> int:
    return length

  def example(self, length: int) -> jax.Array:
    return jnp.zeros((1, length, len(self.columns)))

  def load(self) -> TaskData:
    """Returns values and places, facts, and a SeriesScale.

    Each split has value_TC, standardized values from the first one of the series to the
    last one of the split, and place_E: places whose next values the split has. Raises
    DataError, in one line, for unusable data.
    """
    path, facts = number_table.located(self.source, "time_series", self.data_dir)
    table = number_table.read(path / "data.csv" if path.is_dir() else path)
    numbers = {name: table.numbers(name) for name in self.columns}
    bounds = self._bounds(len(table.lines))
    scale = SeriesScale(
      {name: _moments(name, x_T[: bounds["train"][1]]) for name, x_T in numbers.items()}
    )
    value_TC = np.stack([scale.standard(n, x_T) for n, x_T in numbers.items()], axis=1)
    arrays = {
      name: self._arrays(value_TC, *bounds[split])
      for name, split in (("train", "train"), ("scored", self.split))
    }
    facts |= {
      "fingerprint": hashlib.sha256(value_TC.astype(np.float32).tobytes()).hexdigest(),
      "values": {x: bounds[x][1] - bounds[x][0] for x in ("train", self.split)},
      "split": "by time",
      "scale": scale.columns,
    }
    self._add_baselines(facts, value_TC[:, 0], arrays["scored"]["place_E"], bounds)
    return TaskData(arrays, facts, scale)

  def _bounds(self, T: int) -> dict[str, tuple[int, int]]:
    """Returns the first and the end of each split. Raises DataError if one is short."""
    bounds = {
      split: (round(first * T), round(end * T)) for split, (first, end) in PARTS.items()
    }
    for split in ("train", self.split):
      size = bounds[split][1] - bounds[split][0]
      if size < max(self.horizon, 1 + self.season):
        needs = max(self.horizon, 1 + self.season)
        raise DataError(
          f"'{self.source}' has {T} values, of which {size} are its {split} split;"
          f" horizon={self.horizon} and season={self.season} need {needs} there"
        )
    return bounds

  def _arrays(self, value_TC: np.ndarray, first: int, end: int) -> dict[str, Any]:
    # The place before a split is the first one whose next values are in it.
    place_E = np.arange(max(first - 1, 0), end - self.horizon, dtype=np.int32)
    return {"value_TC": value_TC[:end].astype(np.float32), "place_E": place_E}

  def _add_baselines(
    self, facts: dict[str, Any], value_T: np.ndarray, place_E: np.ndarray, bounds: Any
  ) -> None:
    train = bounds["train"][1]
    found = forecast_baselines.errors(
      value_T, place_E, self.horizon, train, self.season
    )
    names = ("mae", "mse")
    best = {name: min(each[name] for each in found.values()) for name in names}
    facts |= {"baselines": found, "guess": best}
    listed = ", ".join(f"{name} {each['mae']:.4f}" for name, each in found.items())
    note(facts, f"mean absolute error without a model, standardized: {listed}")

  def abstract(self) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
    value_TC = shape(MANY, len(self.columns), dtype=jnp.float32)
    split = {"value_TC": value_TC, "place_E": shape(MANY)}
    return {"train": split, "scored": split}

  def keep(self, folder: pathlib.Path, fitted: SeriesScale) -> None:
    """Saves how values were standardized. Raises DataError if it differs."""
    check_fitted(self, fitted, SeriesScale)
    path, text = folder / FILE, json.dumps(fitted.columns)
    if path.exists() and path.read_text(encoding="utf-8") != text:
      raise DataError(
        f"{path} is of other data: its values were standardized otherwise"
      )
    path.write_text(text, encoding="utf-8")

  def check(self, arrays: Any, length: int) -> None:
    T = len(arrays["train"]["value_TC"])
    if T < length + self.horizon:
      raise DataError(
        f"the training part of '{self.source}' has {T} values, and windows of"
        f" {length} with a horizon of {self.horizon} need {length + self.horizon};"
        " write a smaller train.length, or give a longer series"
      )

  def available(self, arrays: Any) -> int:
    """Returns the number of places of the scored split."""
    return len(arrays["scored"]["place_E"])

  def batch(
    self,
    arrays: Any,
    key: jax.Array,
    batch_size: int,
    length: int,
    progress: float | jax.Array = 1.0,
  ) -> Batch:
    """Returns windows of the training part; all their places count.

    Arguments are those of `Task.batch`. Places whose target is a difference from before
    the series do not count.
    """
    data = arrays["train"]
    starts = data["value_TC"].shape[0] - length - self.horizon + 1
    first_B1 = jax.random.randint(key, (batch_size, 1), 0, starts)
    place_BL = first_B1 + jnp.arange(length)
    weight_BL = (self._naive(place_BL).min(axis=-1) >= 0).astype(jnp.float32)
    return self._batch(data, place_BL, weight_BL, coords.consecutive(1, length))

  def score(
    self, arrays: Any, key: jax.Array, batch_size: int, length: jax.Array, bucket: int
  ) -> Batch:
    """Returns the last `length` values before each forecast, which alone counts.

    Arguments are those of `Task.score`. Windows are aligned right, and shorter at the
    start of the series.
    """
    data = arrays["scored"]
    chosen_B = each_once(key, data["place_E"].shape[0], batch_size)
    last_B1 = jnp.asarray(data["place_E"])[chosen_B][:, None]
    place_BL = last_B1 - bucket + 1 + jnp.arange(bucket)
    real_BL = (place_BL >= 0) & (place_BL > last_B1 - length)
    weight_BL = (place_BL == last_B1).astype(jnp.float32)
    return self._batch(data, place_BL, weight_BL, coords.padded(real_BL))

  def _naive(self, place_BL: jax.Array) -> jax.Array:
    """Returns the places from whose values the targets are differences, [B, L, N]."""
    if not self.relative:
      return place_BL[..., None]
    return place_BL[..., None] - forecast_baselines.places_back(
      self.horizon, self.season
    )

  def _batch(
    self, data: Any, place_BL: jax.Array, weight_BL: jax.Array, at: coords.Coords
  ) -> Batch:
    value_TC = jnp.asarray(data["value_TC"])
    last = value_TC.shape[0] - 1
    ahead_BLN = place_BL[..., None] + 1 + jnp.arange(self.horizon)
    target_BLN = value_TC[jnp.clip(ahead_BLN, 0, last), 0]
    if self.relative:
      target_BLN -= value_TC[jnp.clip(self._naive(place_BL), 0, last), 0]
    x_BLC = jnp.where(at.real_BL[..., None], value_TC[jnp.clip(place_BL, 0, last)], 0.0)
    return Batch(x_BLC, target_BLN, weight_BL, at)


def _moments(name: str, value_T: np.ndarray) -> tuple[float, float]:
  """Returns mean and standard deviation. Raises DataError where nothing changes."""
  mean, deviation = float(value_T.mean()), float(value_T.std())
  if not deviation:
    raise DataError(
      f"column '{name}' is {mean:g} in the whole training part: there is nothing to"
      " learn; leave it out, or give a longer series"
    )
  return mean, deviation
