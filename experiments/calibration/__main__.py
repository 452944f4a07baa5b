"""Runs the calibration and writes its tables into docs/statistics.md.

`python -m experiments.calibration` takes about five minutes of one core. The seed is
fixed: the same versions of NumPy and SciPy write the same tables.
"""

import pathlib
import time

from absl import app, flags

from experiments.calibration import rate_tables, sequential_tables
from experiments.calibration.methods import METHODS, RESAMPLING, weighted
from experiments.calibration.rates import SEEDS, Rates, measure
from experiments.calibration.seed_noise import NOISES

FLAGS = flags.FLAGS
flags.DEFINE_integer("repetitions", 4000, "Simulated reports of each noise.", 100)
flags.DEFINE_integer("resampled", 400, "The same for methods that resample.", 100)
flags.DEFINE_bool("check", False, "Prints the tables and writes nothing.")

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "statistics.md"
MORE_SEEDS = (4, 5, 6, 10)
PRIORS = (0.2, 0.4, 0.8, 1.2, 2, 4)
OF_PRIORS = ("equal", "unequal", "baseline", "recorded")
CHOSEN = "moderated"


def main(argv: list[str]) -> None:
  if argv[1:]:
    raise app.UsageError(f"{argv[1]} is no flag: see --help")
  start = time.process_time()
  found = {noise: _methods(noise) for noise in NOISES}
  titled = {NOISES[noise].title: rates for noise, rates in found.items()}
  made = {
    field: rate_tables.by_noise(titled, field)
    for field in ("errors", "coverage", "power")
  }
  seeds = {noise: _seeds(noise, found[noise][CHOSEN]) for noise in NOISES}
  made["seeds"] = rate_tables.by_setting({NOISES[x].title: y for x, y in seeds.items()})
  made["priors"] = rate_tables.by_setting(
    {NOISES[x].title: _priors(x) for x in OF_PRIORS}
  )
  made |= sequential_tables.tables(FLAGS.repetitions)
  for name, table in made.items():
    print(f"\n{name}\n{table}")
  if not FLAGS.check:
    PAGE.write_text(rate_tables.replaced(PAGE.read_text(), made))
  print(f"\n{time.process_time() - start:.0f} seconds of CPU")


def _methods(noise: str) -> dict[str, Rates]:
  """Returns {method: rates} under a noise."""
  print(f"{NOISES[noise].title} ...", flush=True)
  return {
    name: measure(method, NOISES[noise], _repetitions(name))
    for name, method in METHODS.items()
  }


def _repetitions(name: str) -> int:
  return FLAGS.resampled if name in RESAMPLING else FLAGS.repetitions


def _seeds(noise: str, three: Rates) -> dict[str, Rates]:
  """Returns the chosen method's rates by the number of seeds."""
  count, chosen = FLAGS.repetitions // 2, METHODS[CHOSEN]
  more = {
    f"{n} seeds": measure(chosen, NOISES[noise], count, seeds=n) for n in MORE_SEEDS
  }
  return {f"{SEEDS} seeds": three, **more}


def _priors(noise: str) -> dict[str, Rates]:
  """Returns the chosen method's rates by the weight of the pooled variance."""
  rates = {}
  for prior in PRIORS:
    rates[f"{prior:g} df"] = measure(weighted(prior), NOISES[noise], FLAGS.repetitions)
  return rates


if __name__ == "__main__":
  app.run(main)
