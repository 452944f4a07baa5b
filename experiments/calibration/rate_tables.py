"""Tables of docs/statistics.md: every method under every noise."""

from experiments.calibration.rates import Rates

MARK = "<!-- {name}: python -m experiments.calibration -->"
END = "<!-- end -->"
MOST_ERRORS = 5.5  # percent of reports with a false verdict
COVERAGE = (94.0, 96.0)  # percent of 95% intervals
LEAST_POWER = 80.0  # percent of reports


def cells(rates: Rates) -> str:
  """Returns the cells of a row; bold: outside its target."""
  low, high = COVERAGE
  return " | ".join(
    [
      marked(rates.errors, rates.errors > MOST_ERRORS),
      marked(rates.coverage, not low <= rates.coverage <= high),
      marked(rates.power, rates.power < LEAST_POWER),
    ]
  )


def marked(percent: float, missed: bool) -> str:
  return f"**{percent:.1f}**" if missed else f"{percent:.1f}"


def by_noise(found: dict[str, dict[str, Rates]], field: str) -> str:
  """Returns one table of one rate: noises down, methods across.

  found   {title of a noise: {short name of a method: its rates}}
  field   errors, coverage or power
  """
  names = list(next(iter(found.values())))
  position = ("errors", "coverage", "power").index(field)
  lines = ["| noise | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
  for title, rates in found.items():
    row = [cells(rates[name]).split(" | ")[position] for name in names]
    lines.append(f"| {title} | " + " | ".join(row) + " |")
  return "\n".join(lines)


def by_setting(found: dict[str, dict[str, Rates]]) -> str:
  """Returns error / coverage / power of one method: noises down, settings across.

  found   {title of a noise: {setting: rates}}
  """
  settings = list(next(iter(found.values())))
  lines = ["| noise | " + " | ".join(settings) + " |"]
  lines.append("|---" * (len(settings) + 1) + "|")
  for title, rates in found.items():
    row = [cells(rates[x]).replace(" | ", " / ") for x in settings]
    lines.append(f"| {title} | " + " | ".join(row) + " |")
  return "\n".join(lines)


def replaced(page: str, tables: dict[str, str]) -> str:
  """Returns a page with new tables between its marks.

  tables   {name of a mark: table}
  """
  for name, table in tables.items():
    mark = MARK.format(name=name)
    head, found, rest = page.partition(mark)
    _, end, tail = rest.partition(END)
    if not found or not end:
      raise ValueError(f"docs/statistics.md has no table {name}: put its mark back")
    page = f"{head}{mark}\n\n{table}\n\n{end}{tail}"
  return page
