"""Sizes and statistics of a control problem, with which a model can play it."""

import dataclasses
import json
import pathlib

import numpy as np

from transformer_jax.data.files import DataError

FILE = "control.json"  # in a run's folder


@dataclasses.dataclass(frozen=True, eq=False)
class ControlSet:
  """A control problem as a model plays it, and the returns of those who played it.

  environment   Gymnasium id
  observed      indices of the observation that the model reads
  mean_S, std_S float32, of the observed numbers in training
  scale         of returns: the model reads them divided by it
  returns       {player: [mean return, standard deviation, best]}: each policy of the
                data, all of it ("data"), and random actions ("random")

  >>> returns = {"data": [100.0, 50.0, 200.0], "random": [20.0, 5.0, 30.0]}
  >>> one = np.ones(1, np.float32)
  >>> cart = ControlSet("CartPole-v1", (2,), 2 * one, 4 * one, 200.0, returns)
  >>> cart.standard(np.array([[9.0, 9.0, 6.0, 9.0]])).tolist(), cart.targets(3)
  ([[1.0]], (20.0, 110.0, 200.0))
  """

  environment: str
  observed: tuple[int, ...]
  mean_S: np.ndarray
  std_S: np.ndarray
  scale: float
  returns: dict[str, list[float]]

  def standard(self, observation_NS: np.ndarray) -> np.ndarray:
    """Returns the observed numbers, float32, standardized as in training."""
    observed_NS = observation_NS[..., list(self.observed)].astype(np.float32)
    return (observed_NS - self.mean_S) / self.std_S

  def targets(self, count: int) -> tuple[float, ...]:
    """Returns evenly spaced returns, from random's mean to the best of the data."""
    first, last = self.returns["random"][0], self.returns["data"][2]
    return tuple(float(x) for x in np.linspace(first, last, count))

  def save(self, folder: pathlib.Path) -> None:
    """Writes the file of a run. Raises DataError if another problem's is there."""
    path, text = folder / FILE, json.dumps(self._facts(), indent=1)
    if path.exists() and path.read_text(encoding="utf-8") != text:
      raise DataError(
        f"{path} is of other data: its observations were scaled otherwise, so the model"
        " would read other numbers"
      )
    path.write_text(text, encoding="utf-8")

  def _facts(self) -> dict[str, object]:
    numbers = {"mean_S": self.mean_S.tolist(), "std_S": self.std_S.tolist()}
    plain = {name: getattr(self, name) for name in ("environment", "scale", "returns")}
    return plain | numbers | {"observed": list(self.observed)}
