"""How much better does the Transformer of 2017 translate with more operations?

Vaswani et al., 2017. https://arxiv.org/abs/1706.03762

  python -m transformer_jax.data.prepare libreoffice_help/de-en
  python -m experiments.sweep --config=experiments/configs/transformer.py
  python -m experiments.sweep --config=experiments/configs/transformer.py --plan=norms

The recipe as published: norms after each sublayer, sinusoids, one table of embeddings
for both languages and the output, scaled by sqrt(d_model), dropout, label smoothing and
the learning rate of equation 3. The ladder has four sizes, each named by the operations
of training per token; base and big are the published sizes. `--plan=norms` moves the
norms. `wmt14.py` has the published data and `table3.py` the published variants.
Cost: unknown; tiny and small suit a CPU, base and big an accelerator.
Expect: unknown.
"""

from typing import Any

from ml_collections import ConfigDict

from experiments.configs import base
from experiments.setup.plan import Change, Group, Plan

TASK = "translation('tfds:libreoffice_help/de-en', max_length=63, packed=8)"
SIZES: dict[str, dict[str, Any]] = {
  "tiny": {"width": 64, "layers": 2, "heads": 2, "feedforward": 256},
  "small": {"width": 256, "layers": 3, "heads": 4, "feedforward": 1024},
  "base": {"width": 512, "layers": 6, "heads": 8, "feedforward": 2048},
  "big": {"width": 1024, "layers": 6, "heads": 16, "feedforward": 4096, "dropout": 0.3},
}
# XLA's operation counts of a training step, in millions per token of source and
# target, with this task's 8000 pieces and length: `flops_per_token` in
# experiments/runner/build.py.
MFLOPS = {"tiny": 2.5, "small": 24, "base": 149, "big": 562}
# After each sublayer as published; the same with a norm at the end; before each one.
NORMS = {
  "post-norm": "post",
  "post-norm, final norm": "post(final_norm=True)",
  "pre-norm": "pre",
}


def get_config() -> ConfigDict:
  """Returns the smallest size of the ladder."""
  config = base.get_config()
  config.task = TASK
  publish(config)
  config.model.update(SIZES["tiny"])
  config.train.update(length=64, batch_size=64, steps=4000, steps_per_dispatch=50)
  config.train.update(
    checkpoint_every=500, keep_checkpoints=5, schedule="noam(warmup=800)"
  )
  config.evaluate.update(lengths=(1,), examples=896, batch_size=128)
  return config


def publish(config: ConfigDict) -> None:
  """Sets the paper's recipe for model and training, without sizes and data."""
  config.model.update(
    kind="encoder_decoder", position="sinusoidal", norm_placement="post"
  )
  config.model.update(norm="layernorm", activation="relu", feedforward_bias=True)
  config.model.update(embedding="tokens", tied=True, dropout=0.1)
  config.train.update(label_smoothing=0.1, clip=0.0)
  config.train.optimizer = "adam(lr=1.0, b1=0.9, b2=0.98, eps=1e-9)"
  config.train.schedule = "noam(warmup=4000)"


def size(name: str) -> dict[str, object]:
  """Returns the overrides that make a model of this size."""
  return {f"model.{key}": value for key, value in SIZES[name].items()}


def sweep() -> Plan:
  """Compares the sizes of the ladder."""
  sizes = [Change(size(name), name=label(name)) for name in SIZES]
  return Plan(
    question="How much better does a larger Transformer translate?",
    runs=Group("en-de", sizes),
    baseline=label("tiny"),
  )


def label(name: str) -> str:
  """Returns `tiny, 2.5 MFLOPs`: a size and the operations of training per token."""
  return f"{name}, {MFLOPS[name]} MFLOPs"


def norms() -> Plan:
  """Compares the placements of norms."""
  places = [
    Change({"model.norm_placement": at}, name=name) for name, at in NORMS.items()
  ]
  return Plan(
    question="Where should the norms of a Transformer stand?",
    runs=Group("en-de", places),
    baseline="post-norm",
  )
