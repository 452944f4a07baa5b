"""Four tiny runs, for tests of launchers."""

from experiments.configs import base
from experiments.setup.plan import Grid, Plan


def get_config():
  config = base.get_config()
  config.task = "copy(symbols=4)"
  config.seeds = (0,)
  config.model.update(width=8, heads=1, layers=1, feedforward=8, core="dense")
  config.train.update(
    length=4, batch_size=2, steps=9000, steps_per_dispatch=20, checkpoint_every=600
  )
  config.train.schedule = "constant"
  config.evaluate.update(lengths=(1,), examples=8, batch_size=8)
  return config


def sweep():
  return Plan(
    "Does it matter where?",
    Grid({"model.position": ("none", "alibi", "sinusoidal", "rope")}),
    baseline="none",
  )
