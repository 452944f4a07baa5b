"""Does a small encoder need positions to tell parts of speech?

Devlin et al., 2019, section 5.3, https://arxiv.org/abs/1810.04805: words are read as
they come and a word's tag is predicted at its first token. Francis and Kučera, 1964.

  python -m transformer_jax.data.prepare brown --data_dir=data
  python -m experiments.sweep --config=experiments/configs/brown_tagging.py

Two layers of width 64, from the start, read sentences of the Brown corpus and give each
word one of 93 tags: those of the corpus without their suffixes (-tl, -hl, +bez, *).
All sentences of the 14 held-out texts are scored. The floor, the most common tag of
each word, is in each result as data.guess.lookup.
Cost: 13 to 20 minutes for each encoding on one core, with much other work beside it
and some of it stopped: far less on a quiet machine.
Expect: 0.945 with rope, 0.89 with sinusoids, 0.88 without positions; the floor is
0.906. See docs/results/brown_tagging.md.
"""

from ml_collections import ConfigDict

from experiments.configs import base
from experiments.setup.plan import Grid, Group, Plan

ENCODINGS = ("none", "sinusoidal", "rope")
TASK = "tagging('tfds:brown', coarse='[^-+*]+|--|.', classes=96, data_dir='data')"


def get_config() -> ConfigDict:
  """Returns a small tagger."""
  config = base.get_config()
  config.task = TASK
  config.model.update(kind="encoder", width=64, layers=2, heads=4, feedforward=256)
  config.model.update(head="linear(bias=True)", tied=False)
  config.train.update(length=64, batch_size=32, steps=1000, steps_per_dispatch=20)
  config.train.update(optimizer="adamw(lr=4e-3, weight_decay=0.01)")
  config.train.update(schedule="cosine(warmup=50)", checkpoint_every=200)
  config.evaluate.update(lengths=(1, 2), examples=1592, batch_size=199)
  return config


def sweep() -> Plan:
  """Compares the encodings."""
  return Plan(
    question="Does a small encoder need positions to tell parts of speech?",
    runs=Group("brown", Grid({"model.position": ENCODINGS})),
    baseline="none",
  )
