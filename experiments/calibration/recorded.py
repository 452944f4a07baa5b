"""Spreads and scores over seeds in published reports, as the calibration draws them.

Spreads: standard deviations over three seeds of every variant whose seeds differ, at
the trained and the longest length, those in docs/results of quickstart.md, attention.md
and length_generalization.md at commit 83cdafb. A spread over three seeds is itself
uncertain; what that adds to the spread of spreads is taken off again.

Scores: those of the quickstart's headline measures with ten seeds, recorded_scores.csv
beside this file, from its results_by_seed.csv at commit 34da9f0.
"""

import csv
import pathlib

import numpy as np
from scipy import special

# In thousandths.
RECORDED = {
  "text 1x: 64": "16.9 21.3 37.4 19.7 24.6 11.3",
  "text 8x: 512": "12.1 87.8 24.2 24.6 109",
  "copy 1x: 8": "66.4 30.2 99.4 135 24.6 144",
  "copy 8x: 64": "9.7 6.8 26.2 47.1 24.6",
  "attention 1x: 64": (
    "24.6 16.1 9.7 16.9 38.2 28.6 23 19.3 16.9 24.2 6.8 12.9 13.7 11.7 30.2 "
    "27.4 24.6 16.9 25.8 12.1"
  ),
  "attention 8x: 512": (
    "24.6 15.7 2.8 11.3 39.8 33.4 23 17.3 23.3 24.6 12.5 12.9 13.3 35 30.6 "
    "28.6 27 12.1 33 2.8"
  ),
  "bucket_sort 10": "1.6 13.7 31.4 2.8 58.4",
  "bucket_sort 100": "80.9 260 5.2 28.2 40.7 104 19.7 67.2 52.3 25",
  "even_pairs 10": "45.1 133 117 31.4 126 8.9 101",
  "even_pairs 100": "47.9 31.4 145 18.1 8.9 39.4 71.7 32.6 142 8.9 39.4",
  "reverse 10": "10.9 4 2.8 15.7 57.6 49.1 21.3 16.1 29.4",
  "reverse 100": "14.9 8 14.5 2.8 15.3 14.9 6.8 12.9 16.1 16.1",
  "repeat 100": "7.6 26.6 270 76.9 124 9.7 4.8 41.5 65.2 128 16.1",
  "copy 10": "67.2 5.2 4.4 23 8.4 2.8 146 27 12.9 124 90.6",
  "copy 100": "20.1 12.9 35.8 4 40.7 25.8 47.9 16.1 9.3 0.8 15.3 24.6",
  "passkey 10": "9.7 36.2 8.4 1.6 6.4 10.1 14.1 7.3 7.3 22.1",
  "passkey 100": "90.6 43.5 366 77.3 216 290 232 102 1.6 1.6 28.2 186",
}
# Variance of the logarithm of a variance that is estimated with two degrees of freedom.
OF_THREE_SEEDS = float(special.polygamma(1, 1))


def true_spreads(observed: np.ndarray) -> np.ndarray:
  """Returns standard deviations as unequal as the true ones are, of mean square 1.

  observed   standard deviations of variants over three seeds, in any unit
  """
  logs = 2 * np.log(observed)
  variance = logs.var(ddof=1)
  kept = np.sqrt(max(0.0, variance - OF_THREE_SEEDS) / variance)
  spreads = np.exp((logs.mean() + kept * (logs - logs.mean())) / 2)
  return spreads / np.sqrt((spreads**2).mean())


SPREADS = [true_spreads(np.array(x.split(), float)) for x in RECORDED.values()]


def score_noise() -> list[np.ndarray]:
  """Returns the noise of each recorded column, noise_VS: scores minus their mean.

  A column is a measure at a length of a group. Variants whose seeds are equal are left
  out, which have no noise.
  """
  columns: dict[tuple[str, str], list[list[float]]] = {}
  with open(pathlib.Path(__file__).with_name("recorded_scores.csv")) as file:
    for group, length, _, *scores in csv.reader(file):
      columns.setdefault((group, length), []).append([float(x) for x in scores])
  noise = [np.array(rows) - np.mean(rows, axis=1)[:, None] for rows in columns.values()]
  return [noise_VS[noise_VS.any(axis=1)] for noise_VS in noise]
