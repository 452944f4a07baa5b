"""Steps of one run that are to be traced by jax.profiler: the flag --profile."""

import dataclasses
import re
from collections.abc import Sequence

from experiments.setup.runs import Run
from experiments.setup.validate import ConfigError
from transformer_jax.spec import nearest

HOW = "write the first and the last step, as in --profile=100..120"


@dataclasses.dataclass(frozen=True)
class ProfiledSteps:
  """Steps first..last of one run.

  label   of the run; "": the first one of the command

  >>> str(parsed("rope(base=5e5):100..120"))
  'rope(base=5e5):100..120'
  """

  label: str
  first: int
  last: int

  def __str__(self) -> str:
    return f"{self.label}{':' * bool(self.label)}{self.first}..{self.last}"

  def of(self, todo: Sequence[Run]) -> Run | None:
    """Returns the run that is traced, None where it is not among these."""
    named = (run for run in todo if self.label in ("", run.label))
    return next(named, None)

  def check(self, todo: Sequence[Run]) -> None:
    """Raises ConfigError for a run that is not there, or has fewer steps."""
    run, labels = self.of(todo), [run.label for run in todo]
    if run is None:
      raise ConfigError(
        f"--profile={self}: no run is called {self.label!r}."
        f"{nearest(self.label, labels)} Runs: {', '.join(dict.fromkeys(labels))}"
      )
    steps = run.config.train.steps
    if self.first > steps:
      raise ConfigError(
        f"--profile={self}: {run.group} {run.label} has {steps} steps; write for"
        f" example --profile={max(1, steps - 20)}..{steps}"
      )


def parsed(text: str) -> ProfiledSteps | None:
  """Returns the steps of --profile=LABEL:FIRST..LAST, None for ""; raises ConfigError.

  >>> parsed("100..120").label
  ''
  """
  if not text:
    return None
  match = re.fullmatch(r"(?:(.*):)?(\d{1,12})\.\.(\d{1,12})", text, re.DOTALL)
  if not match:
    raise ConfigError(f"--profile={text!r}: {HOW}")
  first, last = int(match[2]), int(match[3])
  if not 1 <= first <= last:
    raise ConfigError(f"--profile={text}: steps count from 1 and grow; {HOW}")
  return ProfiledSteps(match[1] or "", first, last)
