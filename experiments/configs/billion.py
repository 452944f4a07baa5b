"""Does the order of the encodings hold for a model of 1.3 billion parameters?

The shape of LLaMA at this size: Touvron et al., 2023,
https://arxiv.org/abs/2302.13971; its learning rate is GPT-3's of 1.3 billion, Brown et
al., 2020, https://arxiv.org/abs/2005.14165; 20 tokens for each parameter: Hoffmann et
al., 2022, https://arxiv.org/abs/2203.15556.

  python -m transformer_jax.data.prepare lm1b
  python -m transformer_jax.data.prepare tfds:lm1b --corpus=data/lm1b_32k \\
    --tokenizer='subword(size=32000)'
  python -m experiments.estimate --config=experiments/configs/billion.py \\
    --topology=v5e:4x4
  python -m experiments.sweep --config=experiments/configs/billion.py

Parameters and moments are split over 16 devices (mesh.fsdp), batches over all. One
seed, which no difference can be tested with: --config.seeds='(0,1,2)' where there is
room, with --config.mesh.seed=3 on devices of their own.
Cost: unknown; compiled for v5e and v6e (docs/results/profile.md), and not run on a TPU.
A toy of it is trained on two devices in tests/runner/test_billion.py.
Expect: unknown.
"""

from ml_collections import ConfigDict

from experiments.configs import base
from experiments.setup.plan import Grid, Plan

ENCODINGS = ("none", "t5", "alibi", "rope", "rope(base=5e5)")


def get_config() -> ConfigDict:
  """Returns a model of 1.35 billion parameters."""
  config = base.get_config()
  config.task = "tokens('data/lm1b_32k', tokenizer='subword(size=32000)', window=8192)"
  config.seeds = (0,)
  config.model.update(width=2048, layers=24, heads=16, feedforward=5504)
  config.model.update(activation="swiglu", tied=False)
  config.model.update(dtype="bfloat16", scan=True, remat="full")
  config.train.update(length=2048, batch_size=256, steps=50_000)
  config.train.update(steps_per_dispatch=50, checkpoint_every=1000)
  config.train.schedule = "cosine(warmup=2000)"
  config.train.optimizer = "adamw(lr=2e-4, weight_decay=0.1)"
  config.evaluate.update(lengths=(1, 2, 4), examples=256, batch_size=64)
  config.mesh.update(data=-1, fsdp=16)
  return config


def sweep() -> Plan:
  """Compares the encodings on one text."""
  return Plan(
    question="Does the order of the encodings hold for 1.3 billion parameters?",
    runs=Grid({"model.position": ENCODINGS}),
    baseline="none",
  )
