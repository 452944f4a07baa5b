"""Seeds of a sweep that adds them until it is resolved: what is open, in sentences."""

import dataclasses

from experiments.reporting.findings import Comparison, Findings
from experiments.reporting.judgements import ALPHA
from experiments.reporting.text import listed
from experiments.setup.looks import Looks

RESOLVED = ("better", "worse", "equivalent")
OPEN = "did not resolve"
NOTE = (
  "Seeds were added until a comparison was resolved, so runs have unequal numbers of"
  " them. Intervals of differences are of all seeds in common, not corrected for"
  " stopping: a difference that was resolved early is on average smaller than measured."
)


@dataclasses.dataclass(frozen=True)
class Outlook:
  """Primary comparisons of a sweep with looks that were tested.

  resolved    better, worse or equivalent
  open        to which the next look adds seeds
  futile      that would need more seeds than there will be
  exhausted   unresolved at the last look

  >>> outlook = Outlook([], [], [], [])
  >>> outlook.count
  0
  """

  resolved: list[Comparison]
  open: list[Comparison]
  futile: list[Comparison]
  exhausted: list[Comparison]

  @property
  def count(self) -> int:
    """Returns the number of comparisons that were tested."""
    parts = (self.resolved, self.open, self.futile, self.exhausted)
    return sum(map(len, parts))

  def sentence(self, most: int) -> str:
    """Returns how many comparisons are resolved, and why the others are not.

    most   seeds that a run gets
    """
    if not self.count:
      return "no comparison is tested yet"
    text = f"{len(self.resolved)} of {self.count} comparisons resolved"
    parts = [
      (self.futile, f"would need more than {most} seeds"),
      (self.exhausted, "did not resolve at the last look"),
    ]
    return ", ".join([text, *(f"{len(some)} {why}" for some, why in parts if some)])


def outlook(findings: Findings, most: int | None = None) -> Outlook:
  """Sorts the tested comparisons of a sweep with looks.

  most   seeds that a run gets; None: those of the last look
  """
  assert findings.looks is not None
  limit = findings.looks.counts[-1] if most is None else most
  every = (*findings.comparisons, *findings.pairs)
  found = Outlook([c for c in every if c.verdict in RESOLVED], [], [], [])
  for comparison in every:
    if comparison.verdict == OPEN:
      after = next_count(findings, comparison)
      if after is None or after > limit:
        found.exhausted.append(comparison)
      elif _futile(comparison, findings.looks, limit):
        found.futile.append(comparison)
      else:
        found.open.append(comparison)
  return found


def next_count(findings: Findings, comparison: Comparison) -> int | None:
  """Returns the number of seeds at the next look of a comparison; None: no other."""
  assert findings.looks is not None
  counts = findings.looks.counts
  reached = findings.looks.reached(comparison.seeds)
  return counts[reached] if reached < len(counts) else None


def _futile(comparison: Comparison, looks: Looks, most: int) -> bool:
  """Returns whether even the lower end of the seeds that would resolve is too many.

  A comparison that is equal in every seed, without any error, never resolves.
  """
  more, there = comparison.more, comparison.difference.count
  if more is None:
    return there > 1 and comparison.difference.mean == 0
  # The seeds to add are counted from those of the last look.
  there = looks.counts[looks.reached(comparison.seeds) - 1]
  return more.low is None or there + more.low > most


def sentences(findings: Findings) -> list[str]:
  """Returns how a sweep with looks was sampled, [] for one with fixed seeds."""
  looks = findings.looks
  if looks is None:
    return []
  state = outlook(findings).sentence(looks.counts[-1])
  texts = [f"{schedule(findings)} {state[0].upper()}{state[1:]}."]
  return texts + ([late(findings)] if looks.late else [])


def schedule(findings: Findings) -> str:
  """Returns a sentence on the looks, and the error that each may spend."""
  assert findings.looks is not None
  counts, weights = findings.looks.counts, findings.looks.weights
  if len(counts) == 1:
    return f"Seeds were to be added until resolved, up to {counts[0]}: one look."
  spent = listed([f"{100 * ALPHA * x:.2g}" for x in weights], most=len(weights))
  return (
    "Seeds were added until resolved: looks were declared at"
    f" {listed([*map(str, counts)], most=len(counts))} seeds, which may spend {spent}%"
    f" of error, {100 * ALPHA:.2g}% together."
  )


def late(findings: Findings) -> str:
  """Returns a sentence on looks that were declared after first results."""
  assert findings.looks is not None
  most = 100 * ALPHA * (2 - findings.looks.weights[0])
  first = findings.looks.counts[0]
  return (
    "The looks were declared when there were results already: if those were a reason"
    f" to, and had been judged once, at {first} seeds, the error of all is up to"
    f" {most:.2g}%, not 5%; more if they had been judged more often."
  )
