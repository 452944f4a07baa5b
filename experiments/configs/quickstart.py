"""Which positional encoding still works on texts longer than it was trained on?

Press et al., 2022, https://arxiv.org/abs/2108.12409;
Kazemnejad et al., 2023, https://arxiv.org/abs/2305.19466.

  python -m experiments.sweep --config=experiments/configs/quickstart.py
  python -m experiments.run --config=experiments/configs/quickstart.py \\
    --config.model.position='rope(base=5e5)'

Six encodings, three seeds each, on the source of Python's standard library (bits per
byte) and on copying a string (exact match). Each is trained at one length and scored on
the same targets with 1, 2, 4 and 8 times the context.
Cost: measured on ...
Expect: ...
"""

from ml_collections import ConfigDict

from experiments.configs import base
from experiments.plan import Chain, Grid, Group, Plan

ENCODINGS = ("none", "sinusoidal", "learned", "t5", "alibi", "rope")


def get_config() -> ConfigDict:
  """Returns the defaults: they are sized for this question."""
  return base.get_config()


def sweep() -> Plan:
  """Compares the encodings on text and on copying."""
  encodings = Grid({"model.position": ENCODINGS})
  return Plan(
    question="Which positional encoding still works on longer texts?",
    runs=Chain(
      Group("text", encodings),
      Group("copy", encodings, {"task": "copy", "train.length": 16}),
    ),
    baseline="none",
  )
