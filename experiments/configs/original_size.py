"""What does the Transformer learn at its own size in an hour on a laptop?

Vaswani et al., 2017. https://arxiv.org/abs/1706.03762

  python -m transformer_jax.data.prepare libreoffice_help/de-en
  python -m experiments.sweep --config=experiments/configs/original_size.py

English to German on the help pages of LibreOffice. The base model as published: 6 + 6
layers of width 512 with 8 heads, 2,048 hidden units, norms after each sublayer,
sinusoids, one table of embeddings, label smoothing, Adam with the warm-up of equation
3.
The warm-up is 250 steps long and the peak is halved: the published 4,000 steps are
more than a laptop takes in an hour. Two smaller sizes train on the same batches.
Cost: 55 minutes on 2 cores of an AMD EPYC.
Expect: a BLEU of 9 (tiny) and 12 (small); base stays at 0, on a plateau of the loss.
See docs/results/original_size.md.
"""

from ml_collections import ConfigDict

from experiments.configs import transformer
from experiments.setup.plan import Change, Group, Plan

SIZES = ("tiny", "small", "base")


def get_config() -> ConfigDict:
  """Returns the published recipe with a short warm-up."""
  config = transformer.get_config()
  config.train.update(batch_size=32, steps=500, steps_per_dispatch=10)
  config.train.update(checkpoint_every=50, keep_checkpoints=10)
  config.train.update(schedule="noam(warmup=250)")
  config.train.optimizer = "adam(lr=0.5, b1=0.9, b2=0.98, eps=1e-9)"
  config.evaluate.update(examples=896, batch_size=64, texts=256, beam=1)
  config.seeds = (0,)
  config.mesh.data = 2  # cores, each with half of a batch
  return config


def sweep() -> Plan:
  """Compares the published size and two smaller ones."""
  sizes = [
    Change(transformer.size(name), name=transformer.label(name)) for name in SIZES
  ]
  return Plan(
    question="How well does the Transformer of 2017 translate after the same batches?",
    runs=Group("en-de", sizes),
    baseline=transformer.label("base"),
  )
