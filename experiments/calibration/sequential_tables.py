"""Tables of docs/statistics.md on sweeps that are run until resolved."""

from experiments.calibration.rate_tables import COVERAGE, MOST_ERRORS, marked
from experiments.calibration.seed_noise import NOISES
from experiments.calibration.sequential_rates import (
  LARGE,
  SMALL,
  SequentialRates,
  measure,
)
from experiments.setup.looks import declared

FIXED = (3, 5, 10, 20)  # seeds of the sweeps that stand beside it
MOST = 20
OF_SHARES = ("equal", "unequal", "baseline", "recorded")
LOOKS = declared(tuple(range(3)), MOST)
# Shares of the error that were tried, by what they are proportional to.
TRIED = {"equal": 0.0, "√seeds": 0.5, "seeds": 1.0}


def tables(repetitions: int) -> dict[str, str]:
  """Simulates all noises; returns {mark: table}.

  repetitions   reports in which nothing differs, an eighth of them of each effect
  """
  fewer = max(1, repetitions // 8)
  found = {}
  for name, noise in NOISES.items():
    print(f"{noise.title}, until resolved ...", flush=True)
    found[name] = {
      "until": measure(noise, LOOKS.counts, LOOKS.weights, repetitions, fewer)
    } | {str(n): measure(noise, (n,), (1.0,), repetitions, fewer) for n in FIXED}
  size = repetitions // 2, fewer // 2
  shares = {
    noise: {
      name: measure(NOISES[noise], LOOKS.counts, _shares(power), *size)
      for name, power in TRIED.items()
    }
    | {
      "seeds, no giving up": measure(
        NOISES[noise], LOOKS.counts, LOOKS.weights, *size, gives_up=False
      )
    }
    for noise in OF_SHARES
  }
  return {
    "until": _designs(found),
    "seeds_until": _seeds({name: rates["until"] for name, rates in found.items()}),
    "shares": _shares_table(shares),
  }


def _shares(power: float) -> tuple[float, ...]:
  """Returns shares of the error proportional to a power of the number of seeds."""
  sizes = [count**power for count in LOOKS.counts]
  return tuple(size / sum(sizes) for size in sizes)


def _triple(rates: SequentialRates) -> str:
  """Returns family-wise error / power at a small effect / at a large one."""
  errors = marked(rates.errors, rates.errors > MOST_ERRORS)
  return f"{errors} / {rates.power[SMALL]:.1f} / {rates.power[LARGE]:.1f}"


def _designs(found: dict[str, dict[str, SequentialRates]]) -> str:
  header = ["noise", "until resolved", *(f"{n} seeds" for n in FIXED)]
  rows = [
    [NOISES[name].title, *map(_triple, designs.values())]
    for name, designs in found.items()
  ]
  return _table(header, rows)


def _seeds(found: dict[str, SequentialRates]) -> str:
  header = ["noise", "nothing differs", "all by 2 SD", "all by 4 SD"]
  header += ["estimate of 2 SD", "of 4 SD", "coverage of 0", "of 2 SD", "of 4 SD"]
  rows = [
    [
      NOISES[name].title,
      *(f"{seeds:.1f}" for seeds in rates.seeds.values()),
      *(f"{rates.estimate[size]:.0f}%" for size in (SMALL, LARGE)),
      *(
        marked(x, not COVERAGE[0] <= x <= COVERAGE[1]) for x in rates.coverage.values()
      ),
    ]
    for name, rates in found.items()
  ]
  return _table(header, rows)


def _shares_table(found: dict[str, dict[str, SequentialRates]]) -> str:
  rows = [
    [
      NOISES[noise].title,
      *(
        f"{_triple(x)} / {x.seeds[0.0]:.1f} / {x.seeds[LARGE]:.1f}"
        for x in rates.values()
      ),
    ]
    for noise, rates in found.items()
  ]
  return _table(["noise", *next(iter(found.values()))], rows)


def _table(header: list[str], rows: list[list[str]]) -> str:
  lines = [header, ["---"] * len(header), *rows]
  return "\n".join("| " + " | ".join(line) + " |" for line in lines)
