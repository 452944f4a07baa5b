"""Does a hybrid of gated delta layers and attention need a positional encoding?

Yang et al., 2024, https://arxiv.org/abs/2412.06464 (gated delta rule, hybrids);
Kimi Team, 2025, https://arxiv.org/abs/2510.26692 (3:1, no encoding in full layers);
Allen-Zhu, 2025, https://arxiv.org/abs/2512.17351 (short convolutions in attention);
Arora et al., 2023, https://arxiv.org/abs/2312.04927 (recall);
Merrill et al., 2024, https://arxiv.org/abs/2404.08819 (state tracking).

  python -m experiments.sweep --config=experiments/configs/hybrids.py

Four layers of width 64. In a hybrid three have Gated DeltaNet in the place of
attention, and the fourth attends, without an encoding, with RoPE or with ALiBi; beside
it four layers of attention with each. All have as many parameters, by the units of the
feed-forward layers, and read the same tokens: source code by bytes, the values of keys
seen before (MQAR), and running products of permutations (S3).
Cost: 70 minutes on one core of an AMD EPYC with much other work beside it, at commit
f837fcac91.
Expect: on text every hybrid is better than full attention with its encoding, and loses
0.03 bits per byte without one where full attention loses 0.78; short convolutions alone
win back 0.65 of these. Recall and state tracking do not resolve with five seeds. See
docs/results/hybrids.md.
"""

from ml_collections import ConfigDict

from experiments.configs import base
from experiments.setup.plan import Chain, Change, Group, Plan
from experiments.setup.primary import Comparisons

ENCODINGS = ("none", "rope", "alibi")
LAYERS = {
  "full": "multihead",
  "hybrid": "alternate(gated_delta, multihead, 4)",
}
RECALL = {
  "task": "mqar(keys=16, values=8)",
  "train.length": 4,
  "train.batch_size": 64,
  "train.steps": 600,
  "train.checkpoint_every": 600,
  "evaluate.batch_size": 64,
}
STATE = {
  "task": "group_word('S3')",
  "train.length": 16,
  "train.batch_size": 32,
  "train.steps": 800,
  "train.checkpoint_every": 800,
  "evaluate.batch_size": 64,
}


def get_config() -> ConfigDict:
  """Returns a decoder of four layers, with five seeds."""
  config = base.get_config()
  config.seeds = (0, 1, 2, 3, 4)
  config.model.update(width=64, layers=4, heads=4, feedforward=256)
  config.train.update(length=128, batch_size=16, steps=400, steps_per_dispatch=40)
  config.train.update(checkpoint_every=400, optimizer="adamw(lr=4e-3)")
  config.evaluate.update(lengths=(1, 2, 4), examples=512, batch_size=16)
  return config


def arms() -> list[Change]:
  """Returns attention in all layers and in one of four, with each encoding."""
  return [
    Change(
      {"model.attention": attention, "model.position": position},
      name=f"{layers} {position}",
    )
    for layers, attention in LAYERS.items()
    for position in ENCODINGS
  ]


def convolved() -> list[Change]:
  """Returns full attention whose queries, keys and values are convolved too."""
  attention = "multihead + short_conv(residual=True)"
  return [
    Change(
      {"model.attention": attention, "model.position": position},
      name=f"full {position}, short_conv",
    )
    for position in ("none", "rope")
  ]


def negative() -> Change:
  """Returns the hybrid without encoding whose states may change their sign.

  Grazzi et al., 2024, https://arxiv.org/abs/2411.12537: tracking needs it.
  """
  overrides = {
    "model.attention": "alternate(gated_delta(negative=True), multihead, 4)",
    "model.position": "none",
  }
  return Change(overrides, name="hybrid none, negative")


def contrasts() -> tuple[tuple[str, str], ...]:
  """Returns the pairs with verdicts: by layers, and by encoding within them."""
  by_layers = [(f"hybrid {name}", f"full {name}") for name in ENCODINGS]
  by_encoding = [
    (f"{layers} {name}", f"{layers} none")
    for layers in LAYERS
    for name in ENCODINGS[1:]
  ]
  others = [("hybrid none", "full rope"), ("hybrid none, negative", "hybrid none")]
  for name in ("none", "rope"):
    others.append((f"hybrid {name}", f"full {name}, short_conv"))
    others.append((f"full {name}, short_conv", f"full {name}"))
  return (*by_layers, *others, *by_encoding)


def sweep() -> Plan:
  """Compares hybrids with full attention on text, recall and state tracking."""
  return Plan(
    question="Does a hybrid of gated delta layers and attention need an encoding?",
    runs=Chain(
      Group("text", [*arms(), *convolved()]),
      Group("recall", arms(), RECALL),
      Group("state", [*arms(), negative()], STATE),
    ),
    baseline="full rope",
    match="parameters",
    comparisons=Comparisons(contrasts=contrasts()),
  )
