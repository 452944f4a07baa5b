"""Which positional encoding would read text best with ten times the budget?

Hoffmann et al., 2022, https://arxiv.org/abs/2203.15556.

  python -m experiments.sweep --config=experiments/configs/ladder.py
  python -m experiments.sweep --config=experiments/configs/ladder.py --plan=tuned

Three encodings at five sizes, each wider and trained for more steps, three seeds each.
Every encoding of a size has the FLOPs of `none`. The page fits a power law with an
offset to the loss of each encoding against the FLOPs of its training. It says which one
wins at ten times the largest budget, or that none is resolved. `--plan=tuned` searches
the learning rate of each encoding at each size first: one rate for all sizes bends a
curve.
Cost: 45 seeds in all, 31 minutes of the runs' own time on one core of an AMD EPYC with
other work beside. `--plan=tuned` also searches 60 rates with one seed: not measured.
Expect: at the trained length ALiBi is best at the smallest size, RoPE at the two
largest, and by its curve at ten times the budget. See docs/results/ladder.md.
"""

import dataclasses

from ml_collections import ConfigDict

from experiments.configs import quickstart
from experiments.setup.ladder_plan import Ladder
from experiments.setup.plan import Grid, Plan, Zipped
from experiments.setup.tuning import Tune

ENCODINGS = ("none", "alibi", "rope")
SIZES = {
  "model.width": (16, 24, 32, 48, 64),
  "model.feedforward": (64, 96, 128, 192, 256),
  "train.steps": (60, 80, 120, 180, 240),
}
RATES = (2e-3, 4e-3, 8e-3, 1.6e-2)


def get_config() -> ConfigDict:
  """Returns the quickstart's model, scored at the trained length and at twice that."""
  config = quickstart.get_config()
  config.train.checkpoint_every = 120
  config.evaluate.update(lengths=(1, 2))
  return config


def sweep() -> Plan:
  """Climbs the ladder with the rate of the quickstart."""
  encodings = Grid({"model.position": ENCODINGS})
  return Plan(
    question="Which encoding would read best with ten times the budget?",
    runs=Ladder("text", encodings, Zipped(SIZES), match="flops"),
    baseline="none",
  )


def tuned() -> Plan:
  """Climbs it with the best rate of each encoding at each size."""
  return dataclasses.replace(sweep(), tune=Tune({"train.optimizer.lr": RATES}))
