"""What happens to a sweep in which runs fail or diverge?"""

from question import get_config  # noqa: F401

from experiments.setup.plan import Chain, Grid, Group, Plan

COPY = {"task": "copy", "train.length": 4, "train.steps": 16}
POISONED = tuple(f"my_spiral:Poisoned(luck={luck})" for luck in (0.95, 0.0))


def sweep():
  fails = Grid({"model.position": ("none", "my_spiral:Broken")})
  diverges = Grid({"task": POISONED})
  parts = (
    Group("copy", fails, COPY),
    Group("poisoned", diverges, COPY | {"model.position": "none"}),
  )
  return Plan("What goes wrong?", Chain(*parts), "none")


def quick() -> Plan:
  """One run that fails and one that loses a seed."""
  poisoned = Grid({"task": POISONED[:1]})
  parts = (
    Group("copy", Grid({"model.position": ("my_spiral:Broken",)}), COPY),
    Group("poisoned", poisoned, COPY | {"model.position": "none"}),
  )
  return Plan("What goes wrong?", Chain(*parts), "my_spiral:Broken")
