"""How a report's numbers were made: method, budgets, data, versions."""

from experiments.reporting import comparable
from experiments.reporting.comparisons import Findings
from experiments.reporting.summary import count
from experiments.reporting.text import listed

METHOD = (
  "A seed draws a run's initial weights and its batches; a variant and the baseline are"
  " paired by seed, over the seeds that both have. {targets}",
  "Intervals are 95% Student t intervals over seeds, one at a time. A verdict of better"
  " or worse needs p < 0.05 in a two-sided paired t test after Holm's correction over"
  " the variants compared at one length of one measure of one group; the interval"
  " beside it is not widened, so it can leave out zero where the verdict is “did not"
  " resolve”. With few seeds this rests on differences between seeds being roughly"
  " normal.",
  "A number without ± comes from one seed or is the same in every seed. One seed is"
  " never judged. Where all seeds give the very same difference a t test does not apply"
  " and the sign test judges, which needs six seeds to resolve anything.",
  "A run that lost a seed to divergence keeps the mean of its other seeds but is not"
  " judged by it: leaving the lost seed out would flatter it. Where the baseline lost"
  " one, nothing is judged. A length that an encoding does not define is undefined,"
  " never clamped. The lead of the best over the next in the answer is one uncorrected"
  " paired t test.",
  "Parameters are counted in the parameter tree. FLOPs are what XLA counts for one"
  " training step of one seed before it optimizes, with dense attention and every layer"
  " written out. Peak memory is that of the compiled training of all seeds: arguments"
  " and temporary buffers. Tokens per second and seconds are those of this one run of"
  " each variant on this machine, not a paired benchmark.",
)


def method(findings: Findings) -> list[str]:
  """Returns how the numbers were made, as far as the runs recorded it."""
  return [line.format(targets=_targets(findings)) for line in METHOD]


def _targets(findings: Findings) -> str:
  """Says in which groups all lengths and variants have the same targets."""
  groups: dict[str, list[str]] = {}
  for group in findings.sweep.groups:
    runs = [run for run in findings.sweep.of(group) if run.result]
    if runs:
      groups.setdefault(comparable.over_lengths(runs), []).append(group)
  return " ".join(text.format(listed(names)) for text, names in groups.items())


def budgets(findings: Findings) -> list[str]:
  """Says, group by group, what the runs share, what they do not, and by how much."""
  lines = []
  for group in findings.sweep.groups:
    runs = [run for run in findings.sweep.of(group) if run.config]
    keys = sorted({key for run in runs for key in run.config})
    differing = [k for k in keys if len({repr(r.config.get(k)) for r in runs}) > 1]
    finished = [run for run in findings.sweep.of(group) if run.result]
    text = f"{group}: {len(finished)} of {len(findings.sweep.of(group))} runs finished"
    if len(runs) > 1:
      text += (
        f"; all {len(keys)} settings are equal but {listed(differing or ['none'])}"
      )
    text += comparable.sizes(finished)
    for name, key in (("parameters", "parameters"), ("FLOPs/token", "flops_per_token")):
      values = [run.fact(key) for run in finished if run.fact(key)]
      if values:
        text += f"; {name} {count(min(values))} to {count(max(values))}"
    lines.append(text + ".")
  return lines


def origins(findings: Findings) -> list[tuple[str, str]]:
  """Returns (what, values) pairs that say where the numbers come from."""
  facts: dict[str, dict[str, None]] = {}
  for run in findings.finished:
    for name in ("device", "commit", "sources"):
      facts.setdefault(name, {})[str(run.fact(name) or "not recorded")] = None
    for name, version in (run.fact("versions") or {}).items():
      facts.setdefault("versions", {})[f"{name} {version}"] = None
    for name, value in (run.fact("data") or {}).items():
      facts.setdefault(f"data of {run.group}: {name}", {})[str(value)] = None
  return [(name, ", ".join(values)) for name, values in facts.items()]
