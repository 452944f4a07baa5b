"""A report's account of its numbers: method, budgets, data, versions."""

from collections.abc import Mapping

from experiments.reporting import comparable, sampling, time_spent
from experiments.reporting.findings import Findings
from experiments.reporting.text import count, listed, measure_name, multiple
from experiments.setup import primary

METHOD = (
  "A seed draws a run's initial weights and its batches; runs are compared over the"
  " seeds that both have. {targets}",
  "{declared} These comparisons have verdicts, and all of them together one error of"
  " 5%: at most one report in twenty calls any two variants better, worse or"
  " equivalent that are not, or a variant best that is not. Everything else is"
  " exploratory: estimates with intervals, each 95% alone.",
  "The standard error of a difference is that of seeds as blocks: each variant's"
  " residual variance, moderated towards the pooled variance of its column; where the"
  " scores of single examples are kept, it has the examples' variance too, so that a"
  " verdict holds for other seeds and other examples. Holm's"
  " correction runs over the comparisons of the whole report. “Did not resolve” means"
  " not significant after it, never that there is no difference; beside it stand the"
  " seeds to add so that four of five repetitions would resolve a difference of the"
  " measured size, and the same at the ends of the 95% interval of the spread. The"
  " interval beside a verdict is not corrected, so it can exclude zero where nothing"
  " is resolved.",
  "A variant is best only where it is resolved from each other one; else those not"
  " resolved from it lead with it. Intervals of a mean are Student's t over seeds."
  " Intervals end at the bounds of a measure, where the t interval is cut off. A share"
  " of N examples is not taken to vary less over seeds than one example does: so a"
  " score that is equal in every seed is a result. A single seed is never tested.",
  "A run with a diverged seed keeps the mean of its other seeds but is not tested:"
  " omitting the diverged seed would favour it. Where the baseline has one, no variant"
  " of the column is tested. A length that an encoding does not define is undefined,"
  " never clamped.",
  "Parameters are counted in the parameter tree. FLOPs are XLA's count for one training"
  " step of one seed before optimization, with dense attention and every layer written"
  " out. Peak memory is that of the compiled training of all seeds: arguments and"
  " temporary buffers. Tokens per second and seconds are those of this one run of each"
  " variant on this machine, not a paired benchmark.",
)
# Of a sweep that adds seeds until it is resolved.
LOOKS = (
  "{schedule} A look reads the scores of its seeds alone. The p value of a comparison"
  " is the smallest of its looks, each divided by the share of the error that the look"
  " may spend; Holm's correction takes these. So the error of 5% holds whenever the"
  " sweep ends. A run gets no more seeds once all its comparisons are resolved, or if"
  " even the lower end of the seeds that would resolve is beyond the last look. A"
  " difference that ended a comparison is on average smaller than measured."
)
# Of a sweep with a ladder of sizes.
LADDER = (
  "The curves of a ladder predict beyond what was trained. A winner there is resolved"
  " from every other variant with an error of 5% of its own, beside that of the"
  " verdicts, if the power laws hold. Their intervals are over seeds, for the scored"
  " examples."
)


def method(findings: Findings) -> list[str]:
  """Returns the paragraphs on statistics and cost."""
  facts = {"targets": _targets(findings), "declared": declared(findings)}
  lines = [line.format(**facts) for line in METHOD]
  lines += filter(None, [time_spent.goodput_of_all(findings.finished)])
  if any(run.ladder for run in findings.sweep.runs):
    lines.append(LADDER)
  if findings.looks is None:
    return lines
  added = LOOKS.format(schedule=sampling.schedule(findings))
  return [
    *lines,
    *([f"{added} {sampling.late(findings)}"] if findings.looks.late else [added]),
  ]


def declared(findings: Findings) -> str:
  """Returns a sentence on the primary comparisons of the plan."""
  plan, baseline = findings.sweep.comparisons, findings.sweep.baseline
  measures = listed([*map(measure_name, plan.measures)]) if plan.measures else ""
  what = measures or "the headline measure of each group"
  if plan.part != "mean":
    what += f" ({plan.part.replace('_', ' ')} of the targets)"
  lengths = [f"the {x}" if isinstance(x, str) else multiple(x) for x in plan.lengths]
  pairs = plan.contrasts
  who = {
    primary.BASELINE: f"each variant against {baseline}",
    primary.ALL_PAIRS: "all pairs of variants of a group",
  }
  which = (
    who[pairs]
    if isinstance(pairs, str)
    else listed([f"{a} against {b}" for a, b in pairs])
  )
  margins = plan.margin if isinstance(plan.margin, Mapping) else {"": plan.margin}
  within = [f"{x:g} {measure_name(name)}".strip() for name, x in margins.items() if x]
  equal = f" Differences below {listed(within)} are equivalent." if within else ""
  return f"The plan compares {which}, by {what}, at {listed(lengths)} length.{equal}"


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
