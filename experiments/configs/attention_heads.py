"""Which heads does each positional encoding make?

Clark et al., 2019, https://arxiv.org/abs/1906.04341 (heads that look one token back);
Olsson et al., 2022, https://arxiv.org/abs/2209.11895 (induction heads);
Haviv et al., 2022, https://arxiv.org/abs/2203.16634 (no encoding);
Michel et al., 2019, https://arxiv.org/abs/1905.10650 (how many heads are needed).

  python -m experiments.sweep --config=experiments/configs/attention_heads.py

Decoders of four layers with four heads each, on the source of Python's standard
library in bytes, five encodings and three seeds.
Cost: about 15 minutes of CPU, reckoned from 40 steps of one run.
Expect: not known yet.
"""

from ml_collections import ConfigDict

from experiments.configs import base
from experiments.setup.plan import Grid, Group, Plan

ENCODINGS = ("none", "sinusoidal", "t5", "alibi", "rope")


def get_config() -> ConfigDict:
  """Returns a decoder of 16 heads, and windows in which words return."""
  config = base.get_config()
  config.model.update(width=64, layers=4, heads=4, feedforward=256)
  config.train.update(length=128, batch_size=16, steps=600, steps_per_dispatch=20)
  config.train.update(optimizer="adamw(lr=4e-3, weight_decay=0.01)")
  config.train.update(checkpoint_every=600)
  config.evaluate.update(lengths=(1, 2), examples=256, batch_size=32)
  return config


def sweep() -> Plan:
  """Compares the encodings."""
  return Plan(
    question="Which heads does each positional encoding make?",
    runs=Group("text", Grid({"model.position": ENCODINGS})),
    baseline="none",
  )
