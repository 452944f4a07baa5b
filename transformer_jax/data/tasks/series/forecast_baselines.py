"""Forecasts without a model: the last value, the last season, a linear regression."""

from collections.abc import Callable
from typing import Any

import numpy as np

LAGS = 64  # of the linear regression, at most
Forecast = Callable[[np.ndarray], np.ndarray]  # places_E -> forecast_EH


def future(value_T: np.ndarray, place_E: np.ndarray, horizon: int) -> np.ndarray:
  """Returns the `horizon` values after each place, [E, H]."""
  return value_T[place_E[:, None] + 1 + np.arange(horizon)]


def last_value(value_T: np.ndarray, horizon: int) -> Forecast:
  """Returns the forecast that nothing changes."""
  return lambda place_E: np.repeat(value_T[place_E, None], horizon, axis=1)


def places_back(horizon: int, season: int) -> np.ndarray:
  """Returns how far back the value is that repeats one season later, for each forecast.

  horizon   values that are forecast
  season    values in a season; 0: the last value is repeated

  >>> places_back(5, 2).tolist(), places_back(3, 0).tolist()
  ([1, 0, 1, 0, 1], [0, 0, 0])
  """
  season = max(season, 1)
  return season - 1 - np.arange(horizon) % season


def seasonal(value_T: np.ndarray, horizon: int, season: int) -> Forecast:
  """Returns the forecast of the value one season before, or as many as needed.

  Hyndman and Athanasopoulos, 2021, section 5.2. https://otexts.com/fpp3
  """
  return lambda place_E: value_T[place_E[:, None] - places_back(horizon, season)]


def linear(
  value_T: np.ndarray, horizon: int, train: int, least: int
) -> tuple[Forecast, int]:
  """Returns a least-squares regression on the last values, and how many it reads.

  train   values that it is fitted to, from the first one
  least   places before all those that are forecast, which limits what it reads
  """
  lags = max(1, min(LAGS, least, train // 4))

  def read(place_E: np.ndarray) -> np.ndarray:
    x_EL = value_T[place_E[:, None] - np.arange(lags)]
    return np.concatenate([x_EL, np.ones((len(x_EL), 1))], axis=1)

  fitted_E = np.arange(lags - 1, train - horizon)
  target_EH = future(value_T, fitted_E, horizon)
  weight_LH = np.linalg.lstsq(read(fitted_E), target_EH, rcond=None)[0]
  return lambda place_E: read(place_E) @ weight_LH, lags


def errors(
  value_T: np.ndarray, place_E: np.ndarray, horizon: int, train: int, season: int
) -> dict[str, dict[str, Any]]:
  """Returns {baseline: {mae, mse}} of forecasts at the scored places.

  value_T   all values, as the model reads them
  place_E   scored places, none before the training values end
  horizon   values that are forecast
  train     number of training values
  season    values in a season; 0: there is none
  """
  regression, lags = linear(value_T, horizon, train, int(place_E.min()))
  forecasts = {"last_value": last_value(value_T, horizon)}
  if season:
    forecasts["seasonal_naive"] = seasonal(value_T, horizon, season)
  forecasts[f"linear_{lags}"] = regression
  truth_EH = future(value_T, place_E, horizon)

  def score(forecast: Forecast) -> dict[str, float]:
    error_EH = forecast(place_E) - truth_EH
    mae, mse = np.abs(error_EH).mean(), np.square(error_EH).mean()
    return {"mae": round(float(mae), 6), "mse": round(float(mse), 6)}

  return {name: score(forecast) for name, forecast in forecasts.items()}
