"""A report's account of its numbers: method, budgets, data, versions."""

from experiments.reporting import comparable
from experiments.reporting.comparisons import Findings
from experiments.reporting.text import count, listed

METHOD = (
  "A seed draws a run's initial weights and its batches; a variant and the baseline are"
  " paired by seed, over the seeds that both have. {targets}",
  "Intervals are 95% Student t intervals over seeds, one at a time. A verdict of better"
  " or worse needs p < 0.05 in a two-sided paired t test after Holm's correction over"
  " the variants compared at one length of one measure of one group. “Did not resolve”"
  " means not significant after this correction. The interval beside a verdict is not"
  " corrected, so it can exclude zero where the verdict is “did not resolve”. With few"
  " seeds the test assumes that differences between seeds are roughly normal.",
  "A number without ± comes from one seed, or is equal in every seed. A single seed is"
  " never tested. Where the difference is equal in all seeds a t test is undefined; a"
  " sign test replaces it, and needs six seeds to reach significance.",
  "A run with a diverged seed keeps the mean of its other seeds but is not tested:"
  " omitting the diverged seed would favour it. Where the baseline has one, no variant"
  " of the column is tested. A length that an encoding does not define is undefined,"
  " never clamped. The lead of the best over the next in the answer is one uncorrected"
  " paired t test.",
  "Parameters are counted in the parameter tree. FLOPs are XLA's count for one training"
  " step of one seed before optimization, with dense attention and every layer written"
  " out. Peak memory is that of the compiled training of all seeds: arguments and"
  " temporary buffers. Tokens per second and seconds are those of this one run of each"
  " variant on this machine, not a paired benchmark.",
)


def method(findings: Findings) -> list[str]:
  """Returns the paragraphs on statistics and cost."""
  return [line.format(targets=_targets(findings)) for line in METHOD]


def _targets(findings: Findings) -> str:
  """Returns sentences on which groups share their targets."""
  groups: dict[str, list[str]] = {}
  for group in findings.sweep.groups:
    runs = [run for run in findings.sweep.of(group) if run.result]
    if runs:
      groups.setdefault(comparable.over_lengths(runs), []).append(group)
  return " ".join(text.format(listed(names)) for text, names in groups.items())


def budgets(findings: Findings) -> list[str]:
  """Returns a line for each group: its runs, differing settings and budgets."""
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
  """Returns (name, values) of devices, commits, versions and data of all results."""
  facts: dict[str, dict[str, None]] = {}
  for run in findings.finished:
    for name in ("device", "commit", "sources"):
      facts.setdefault(name, {})[str(run.fact(name) or "not recorded")] = None
    for name, version in (run.fact("versions") or {}).items():
      facts.setdefault("versions", {})[f"{name} {version}"] = None
    for name, value in (run.fact("data") or {}).items():
      facts.setdefault(f"data of {run.group}: {name}", {})[str(value)] = None
  return [(name, ", ".join(values)) for name, values in facts.items()]
