"""Words of reports: lists of names."""

SHOWN = 6  # names in one list before "and 3 more"


def listed(labels: list[str]) -> str:
  """Returns "a, b and c", or the first few and how many more."""
  if len(labels) > SHOWN:
    return ", ".join(labels[:SHOWN]) + f" and {len(labels) - SHOWN} more"
  return " and ".join(filter(None, [", ".join(labels[:-1]), labels[-1]]))
