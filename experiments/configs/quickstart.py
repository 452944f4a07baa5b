"""Which positional encoding still works on texts longer than it was trained on?

Press et al., 2022, https://arxiv.org/abs/2108.12409;
Kazemnejad et al., 2023, https://arxiv.org/abs/2305.19466.

  python -m experiments.sweep --config=experiments/configs/quickstart.py
  python -m experiments.run --config=experiments/configs/quickstart.py \\
    --config.model.position='rope(base=5e5)'

Six encodings, three seeds each, on the source of Python's standard library (bits per
byte) and on copying a string (exact match). Each is trained at one length and scored on
the same targets with 1, 2, 4 and 8 times the context.
Cost: 4 minutes on 2 cores of an AMD EPYC, one run on each core, compiling included (7
minutes of CPU, a third of them compiling). Measured at commit aa68826.
Expect: with 8 times the context ALiBi still reads at 3.05 bits per byte, 0.48 better
than no encoding; RoPE is best at the trained length (2.84) and worst at 8 times (4.25).
Copying fails for all of them past the trained length. docs/results/quickstart.md has
ten seeds.
A first look, not a benchmark. 1,024 windows of 64 bytes are scored; of the test split's
14,032 windows 1,454 stand word for word in the training split (Python 3.11.7) and are
left out. For text the test set's standard error is 0.19 to 0.30 of the seeds'.
"""

from ml_collections import ConfigDict

from experiments.configs import base
from experiments.setup.plan import Chain, Grid, Group, Plan

ENCODINGS = ("none", "sinusoidal", "learned", "t5", "alibi", "rope")

# Strings of 1 to 8 symbols; at every length the same last 8 are scored.
COPY = {"task": "copy(scored=8)", "train.length": 8, "train.batch_size": 32}
COPY |= {"train.steps": 450, "train.steps_per_dispatch": 30}
COPY |= {"train.checkpoint_every": 300, "evaluate.batch_size": 16}


def get_config() -> ConfigDict:
  """Returns the defaults with small batches: many steps in little time."""
  config = base.get_config()
  config.train.update(batch_size=16, steps=240, steps_per_dispatch=20)
  config.train.optimizer = "adamw(lr=8e-3, weight_decay=0.01)"
  config.evaluate.update(examples=1024, batch_size=16)
  return config


def sweep() -> Plan:
  """Compares the encodings on text and on copying."""
  encodings = Grid({"model.position": ENCODINGS})
  return Plan(
    question="Which positional encoding still works on longer texts?",
    runs=Chain(
      Group("text", encodings),
      Group("copy", encodings, COPY),
    ),
    baseline="none",
    cost="4 minutes on two cores",
  )
