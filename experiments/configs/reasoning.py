"""Do Canon layers replace a positional encoding in depth, breadth and hierarchy?

Allen-Zhu, 2025, https://arxiv.org/abs/2512.17351 (the tasks and the layers);
Allen-Zhu and Li, 2023, https://arxiv.org/abs/2305.13673 (the grammars).

  python -m experiments.sweep --config=experiments/configs/reasoning.py

Small models answer how far a word is on a cycle (Depo, scored by the number of hops),
list what a node of a graph depends on (Brevo) and write sentences of a grammar (Lano):
without an encoding, with RoPE and with ALiBi, the first two with Canon layers as well.
Brevo and Lano have many right texts: `valid` is the share of those that models write
and the task accepts; the loss of Brevo has a floor above zero, that of Lano on cfg3f is
0.74 nats per token.
Cost: not measured; 15 runs of three seeds, of about 1,000 short steps each.
Expect: by the paper, Canon layers bring models without an encoding to those with RoPE.
"""

from ml_collections import ConfigDict

from experiments.configs import base
from experiments.setup.plan import Chain, Change, Group, Plan

CANON = {"model.convolution": "canon('ABCD')"}
DEPO = {
  "task": "depo(hops=4, letters=8)",
  "train.length": 8,
  "train.batch_size": 64,
  "evaluate.lengths": (1, 2),
}
BREVO = {
  "task": "brevo(names=16)",
  "train.length": 8,
  "train.batch_size": 64,
  "evaluate.lengths": (1,),  # models write texts of the trained length
  "evaluate.texts": 256,
}
LANO = {
  "task": "lano('cfg3f')",
  "train.length": 512,
  "train.batch_size": 8,
  "train.steps": 600,
  "train.checkpoint_every": 600,
  "evaluate.lengths": (1,),
  "evaluate.batch_size": 8,
  "evaluate.examples": 64,
  "evaluate.texts": 64,
}


def get_config() -> ConfigDict:
  """Returns a small decoder."""
  config = base.get_config()
  config.model.update(width=64, layers=4, heads=4, feedforward=256)
  config.train.update(steps=1000, steps_per_dispatch=50, checkpoint_every=1000)
  config.evaluate.update(examples=256, batch_size=64)
  return config


def arms() -> list[Change]:
  """Returns encodings, and Canon layers beside the first two."""
  plain = [
    Change({"model.position": name}, name=name) for name in ("none", "rope", "alibi")
  ]
  canon = [
    Change({"model.position": name, **CANON}, name=f"{name}, Canon")
    for name in ("none", "rope")
  ]
  return [*plain, *canon]


def sweep() -> Plan:
  """Compares encodings and Canon layers on three synthetic tasks."""
  return Plan(
    question="Do Canon layers replace a positional encoding?",
    runs=Chain(
      Group("depo", arms(), DEPO),
      Group("brevo", arms(), BREVO),
      Group("lano", arms(), LANO),
    ),
    baseline="rope",
  )
