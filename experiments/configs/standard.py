"""Which of ten positional encodings, and of three with randomized positions, reads on?

Kazemnejad et al., 2023, https://arxiv.org/abs/2305.19466;
Ruoss et al., 2023, https://arxiv.org/abs/2305.16843.

  python -m experiments.sweep --config=experiments/configs/standard.py

Five seeds each, on the source of Python's standard library, copying, reversing and
associative recall; scored on the same targets with up to 16 times the context.
Cost: measured on ...
Expect: ...
"""

from ml_collections import ConfigDict

from experiments.configs import base
from experiments.plan import Chain, Grid, Group, Plan

ENCODINGS = (
  *("none", "sinusoidal", "learned", "shaw", "t5", "alibi", "rope", "fire"),
  *("transformer_xl", "forgetting"),
  *("randomized(sinusoidal)", "randomized(shaw)", "randomized(rope)"),
)
TASKS = ("copy", "reverse", "recall")


def get_config() -> ConfigDict:
  """Returns the defaults with more seeds, more steps and longer texts."""
  config = base.get_config()
  config.task = 'text(source="stdlib", window=1024)'
  config.seeds = (0, 1, 2, 3, 4)
  config.train.steps = 800
  config.evaluate.lengths = (1, 2, 4, 8, 16)
  return config


def sweep() -> Plan:
  """Compares the encodings on text and on each synthetic task."""
  encodings = Grid({"model.position": ENCODINGS})
  text = Group("text", encodings)
  short = [Group(task, encodings, {"task": task, "train.length": 16}) for task in TASKS]
  return Plan(
    question="Which positional encoding still works on longer texts?",
    runs=Chain(text, *short),
    baseline="none",
  )
