"""What do the layers of small models know of words, brackets and automata?

Belinkov et al., 2017, https://arxiv.org/abs/1704.03471 (parts of speech by layer);
Hewitt and Liang, 2019, https://arxiv.org/abs/1909.03368 (control tasks);
Voita and Titov, 2020, https://arxiv.org/abs/2003.12298 (code lengths).

  python -m transformer_jax.data.prepare brown --data_dir=data
  python -m experiments.sweep --config=experiments/configs/known_by_layer.py
  python -m experiments.probe --run=runs/known_by_layer --groups=brackets --label=depth
  python -m experiments.probe --run=runs/known_by_layer --groups=cycle --label=state

Language models of the Brown corpus, and models that compute expressions with brackets
or walk on a circle, with RoPE and without an encoding, three seeds each. The models
never saw a tag, a depth or an intermediate place: only the next token, or the answer.
Cost: 6 minutes of CPU (AMD EPYC).
Expect: see docs/results/probes.md, whose probes read their states.
"""

from ml_collections import ConfigDict

from experiments.configs import base
from experiments.setup.plan import Chain, Grid, Group, Plan

TOKENS = "window=64, scored=32, data_dir='data'"
BROWN = {"task": f"tokens('tfds:brown', tokenizer='subword(size=2000)', {TOKENS})"}
# Prompts of 1 to 16 symbols and their value; walks of 1 to 12 steps and their end.
STRINGS = {"train.batch_size": 64, "evaluate.batch_size": 64}
BRACKETS = {"task": "modular_arithmetic_brackets", "train.length": 16} | STRINGS
CYCLE = {"task": "cycle_navigation", "train.length": 12} | STRINGS


def get_config() -> ConfigDict:
  """Returns a decoder of three layers."""
  config = base.get_config()
  config.model.update(width=64, layers=3, heads=4, feedforward=256)
  config.train.update(length=64, batch_size=32, steps=400, steps_per_dispatch=20)
  config.train.update(optimizer="adamw(lr=4e-3, weight_decay=0.01)")
  config.train.update(checkpoint_every=400)
  config.evaluate.update(lengths=(1,), examples=512, batch_size=32)
  return config


def sweep() -> Plan:
  """Trains the models that are probed."""
  encodings = Grid({"model.position": ("none", "rope")})
  return Plan(
    question="What do the layers of small models know?",
    runs=Chain(
      Group("brown", encodings, BROWN),
      Group("brackets", encodings, BRACKETS),
      Group("cycle", encodings, CYCLE),
    ),
    baseline="none",
  )
