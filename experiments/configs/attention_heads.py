"""Which heads does each positional encoding make?

Clark et al., 2019, https://arxiv.org/abs/1906.04341 (heads that look one token back);
Olsson et al., 2022, https://arxiv.org/abs/2209.11895 (induction heads);
Haviv et al., 2022, https://arxiv.org/abs/2203.16634 (no encoding);
Michel et al., 2019, https://arxiv.org/abs/1905.10650 (how many heads are needed).

  python -m experiments.sweep --config=experiments/configs/attention_heads.py
  python -m experiments.heads --run=runs/attention_heads

Decoders of four layers with four heads each, on the source of Python's standard
library in bytes, five encodings and three seeds. The second command describes heads.
Cost: 14 minutes on two cores of an AMD EPYC that other work shared, at commit e391012.
Expect: heads that read the token before with RoPE alone, one of 16 with more than half
of its weight there, 6 of 16 with more than 0.3; no same-, first- or duplicate-token and
no induction head. RoPE is best at the trained length (2.29 bits per byte), ALiBi at
twice that (2.52).
docs/results/heads.md has all.
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
