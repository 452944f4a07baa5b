"""Columns to judge, and judgements: the arguments and results of verdicts.py."""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from experiments.reporting.crossed import CrossedVariance
from experiments.reporting.family import Pair
from experiments.reporting.power import MoreSeeds
from experiments.reporting.statistics import UNBOUNDED, Bounds, Estimate
from experiments.setup.looks import Look

ALPHA = 0.05  # of all verdicts of a report together
EXPLORATORY = "exploratory"
VERDICTS = (
  "better",
  "worse",
  "equivalent",
  "did not resolve",
  EXPLORATORY,
  "not compared",
  "baseline",
  "undefined",
  "diverged",
  "failed",
  "unfinished",
)

Excuse = tuple[str, str]  # verdict and reason of what is not tested
# Of pairs, and of the seeds that count; without them, of all.
TestSets = Callable[..., Mapping[Pair, CrossedVariance]]


def _unknown(
  pairs: Iterable[Pair], seeds: Collection[int] | None = None
) -> Mapping[Pair, CrossedVariance]:
  return {}


@dataclasses.dataclass(frozen=True)
class Column:
  """Scores of one measure at one length of one group, and the pairs to judge.

  scores      {label: {seed: value}} with only the values that exist
  better      "lower" or "higher"
  pairs       of labels: the first is compared with the second
  primary     pairs that are judged; the others are exploratory
  excused     {label: (verdict, reason)} of runs without a test: an undefined length, a
              failed run, one that lost seeds
  unlike      {pair: reason} of runs that must not be compared: other targets or data
  baseline    label of the sweep's baseline
  best        whether the variant with the best mean may be called best
  resolution  standard error of one score from its examples; 0: unknown
  test_sets   returns {pair: variances of its difference over seeds and examples} of
              pairs; those are missing whose examples' scores are unknown
  bounds      least and largest value of the measure
  margin      difference up to which two variants are equivalent; None: not tested
  looks       of a sweep that adds seeds until it is resolved; (): seeds are fixed

  >>> Column({"none": {0: 1.0}}, "lower", [("none", "none")]).primary
  ()
  """

  scores: Mapping[str, Mapping[int, float]]
  better: str
  pairs: Sequence[Pair]
  primary: Collection[Pair] = ()
  excused: Mapping[str, Excuse] = dataclasses.field(default_factory=dict)
  unlike: Mapping[Pair, str] = dataclasses.field(default_factory=dict)
  baseline: str | None = None
  best: bool = False
  resolution: float = 0.0
  test_sets: TestSets = _unknown
  bounds: Bounds = UNBOUNDED
  margin: float | None = None
  looks: Sequence[Look] = ()

  def __post_init__(self):
    if self.better not in ("lower", "higher"):
      raise ValueError(f"better={self.better!r} is neither 'lower' nor 'higher'")


@dataclasses.dataclass(frozen=True)
class Judgement:
  """Judgement of one pair: score of the first, its difference, verdict.

  estimate       of the first, over the seeds that both have
  difference     first minus second
  p              two-sided p value of the difference alone, over all looks if there are
                 some; None: not tested
  p_holm         p value of the claim after the correction over the whole report
  p_equivalent   of two one-sided tests against the margin
  verdict        one of VERDICTS
  reason         why the verdict is neither better, worse nor equivalent
  seeds          those of the estimate
  more           seeds that would resolve it
  examples_error standard error that the scored examples add; None: unknown

  >>> from experiments.reporting.verdicts import judge
  >>> none, rope = {0: 0.50, 1: 0.52, 2: 0.49}, {0: 0.91, 1: 0.92, 2: 0.90}
  >>> pair = "rope", "none"
  >>> column = Column({"none": none, "rope": rope}, "higher", [pair], [pair])
  >>> found = judge({"text": column})["text"].of[pair]
  >>> found.verdict, round(found.difference.mean, 2)
  ('better', 0.41)
  """

  estimate: Estimate
  difference: Estimate
  p: float | None
  p_holm: float | None
  p_equivalent: float | None
  verdict: str
  reason: str = ""
  seeds: tuple[int, ...] = ()
  more: MoreSeeds | None = None
  examples_error: float | None = None


@dataclasses.dataclass(frozen=True)
class Judgements:
  """Judgements of a column.

  of        by pair
  leaders   the variant with the best mean and those not resolved from it: alone, it
            is best; (): nothing is claimed

  >>> Judgements({}).leaders
  ()
  """

  of: Mapping[Pair, Judgement]
  leaders: tuple[str, ...] = ()
