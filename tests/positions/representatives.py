"""A few of many that together show everything that any of them shows."""


def representatives(features):
  """Returns a few names that together have every feature of `{name: features}`.

  The next one is that with the most features that none before it has; of those alike,
  the first.
  """
  chosen, missing = [], set().union(*features.values())
  while missing:
    name = max(features, key=lambda name: len(missing & features[name]))
    chosen.append(name)
    missing -= features[name]
  return chosen
