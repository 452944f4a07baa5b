"""Why divide by sqrt(d)? Three scales of attention scores, from narrow to wide heads.

Vaswani et al., 2017, section 3.2.1, https://arxiv.org/abs/1706.03762;
Yang et al., 2022, https://arxiv.org/abs/2203.03466 (1 / d).

  python -m experiments.sweep --config=experiments/configs/sqrt_d.py
  python -m experiments.score_scale --workdir=runs/sqrt_d

Products of queries and keys are divided by sqrt(d), by nothing, and by d. Heads have
width 4, 16, 64 and 256; all else is the same. The second command measures variance,
entropy and gradients before training, at widths from 4 to 256, and draws them beside
the derivation and the losses of these runs.
Cost: 4 minutes on 2 cores of an AMD EPYC, and 3 for the second command, at f49697a.
Expect: without a scale 0.06, 0.19 and 0.30 bits per byte worse in heads of 16, 64 and
256. See docs/results/sqrt_d.md.
"""

from ml_collections import ConfigDict

from experiments.configs import base
from experiments.setup.plan import Chain, Change, Group, Plan

WIDTHS = (4, 16, 64, 256)
SCALES = {"1/sqrt(d)": "scale(0.5)", "none": "scale(0)", "1/d": "scale(1)"}


def get_config() -> ConfigDict:
  """Returns a small decoder of text, whose attention has no bias of its own."""
  config = base.get_config()
  config.model.update(position="sinusoidal", width=64, layers=2, heads=4)
  config.train.update(length=64, batch_size=16, steps=240, steps_per_dispatch=20)
  config.train.update(optimizer="adamw(lr=4e-3, weight_decay=0.01)")
  config.train.update(checkpoint_every=240, keep_checkpoints=1)
  config.evaluate.update(lengths=(1,), examples=1024, batch_size=64)
  return config


def sweep() -> Plan:
  """Compares the scales at each width."""
  scales = [Change({"model.attention": x}, name=name) for name, x in SCALES.items()]
  widths = [Group(f"d = {d}", scales, {"model.head_width": d}) for d in WIDTHS]
  return Plan(
    question="Why are the scores of attention divided by sqrt(d)?",
    runs=Chain(*widths),
    baseline="1/sqrt(d)",
  )
