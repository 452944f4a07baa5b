"""Does the answer of the quickstart hold for a larger model on a TPU slice?

Press et al., 2022, https://arxiv.org/abs/2108.12409;
Zhou et al., 2024, https://arxiv.org/abs/2402.09371.

  python -m transformer_jax.data.prepare lm1b
  python -m transformer_jax.data.prepare tfds:lm1b --corpus=data/lm1b
  python -m experiments.sweep --config=experiments/configs/pod.py --dry_run
  python -m experiments.sweep --config=experiments/configs/pod.py
  python -m experiments.sweep --config=experiments/configs/pod.py \\
    --config.task='text("data/books", window=8192)'

The corpus is streamed from each host; every device holds a part of each batch. Give
each seed devices of its own with --config.mesh.seed=3, and the heads of each layer to
several devices with --config.mesh.tensor=2.
Cost: unknown; compiled for v5e (docs/howto/estimate.md), and not run on a TPU. A toy of
it is trained by two processes from a streamed corpus in tests/runner/test_pod.py.
Expect: unknown, which is why it is worth running.
"""

from ml_collections import ConfigDict

from experiments.configs import base
from experiments.setup.plan import Grid, Plan

ENCODINGS = ("none", "learned", "t5", "alibi", "rope", "rope(base=5e5)", "fire")


def get_config() -> ConfigDict:
  """Returns a model of about 100 million parameters."""
  config = base.get_config()
  config.task = 'text("data/lm1b", window=8192, order="epochs")'
  config.model.update(core="auto", width=768, layers=12, heads=12, feedforward=3072)
  config.model.update(dtype="bfloat16", scan=True, remat="full")
  config.train.update(length=1024, batch_size=256, steps=20_000, steps_per_dispatch=100)
  config.train.update(schedule="cosine(warmup=1000)", checkpoint_every=1000)
  config.train.optimizer = "adamw(lr=6e-4, weight_decay=0.1)"
  config.evaluate.update(examples=256, batch_size=64)
  config.mesh.data = -1
  return config


def sweep() -> Plan:
  """Compares the encodings on one text."""
  return Plan(
    question="Does the order of the encodings hold for a larger model?",
    runs=Grid({"model.position": ENCODINGS}),
    baseline="none",
  )
