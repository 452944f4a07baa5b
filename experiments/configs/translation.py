"""From recurrence to attention: which model translates better on one small corpus?

Sutskever et al., 2014, https://arxiv.org/abs/1409.3215;
Bahdanau et al., 2015, https://arxiv.org/abs/1409.0473;
Vaswani et al., 2017, https://arxiv.org/abs/1706.03762.

  python -m transformer_jax.data.prepare libreoffice_help/de-en
  python -m experiments.sweep --config=experiments/configs/translation.py
  python -m experiments.translate --run=runs/translation/runs/ID < text.en

English to German on the help pages of LibreOffice: 33,779 pairs of sentences to learn
from, and all 927 of pages that were held out to be judged by (BLEU, chrF). All models
have 1.5 to 2.1 million parameters and train on the same batches.
Cost: 51 minutes on 2 cores of an Intel Xeon with other work beside it, one seed,
measured at commit 3066f82c9b; --config.seeds='(0, 1, 2)' takes up to three times that.
Expect: RNN and LSTM stay below a nearest-neighbour baseline (17.1 BLEU); a
GRU with attention and a Transformer with sinusoids reach 25, with RoPE 29. See
docs/results/translation.md.
"""

from ml_collections import ConfigDict

from experiments.configs import base
from experiments.setup.plan import Change, Group, Plan

TASK = "translation('tfds:libreoffice_help/de-en', max_length=63, packed=8,"
TASK += " tokenizer='subword(size=4000)')"
ENCODINGS = ("sinusoidal", "learned", "t5", "alibi", "rope")


def recurrent(family: str, width: int, attention: str = "multihead") -> dict:
  """Returns the overrides of a recurrent model of matched parameter count."""
  # A recurrent model has none of the last three: they must have their defaults.
  return {
    "model.family": f"recurrent({family})",
    "model.attention": attention,
    "model.position": "none",
    "model.width": width,
    "mesh.data": 1,  # small steps, which two cores do faster together
    "model.feedforward": 256,
    "model.activation": "gelu",
    "model.norm": "rmsnorm",
  }


RECURRENT = {
  "RNN": recurrent("cell='elman'", 256),
  "LSTM": recurrent("cell='lstm', reads='backward'", 192),
  "GRU + Bahdanau": recurrent(
    "cell='gru', link='bahdanau', reads='both'", 160, "additive"
  ),
}


def get_config() -> ConfigDict:
  """Returns a small Transformer with an encoder and a decoder."""
  config = base.get_config()
  config.task = TASK
  config.model.update(kind="encoder_decoder", width=160, heads=4, layers=2)
  config.model.update(feedforward=640, activation="relu", norm="layernorm")
  config.model.update(dropout=0.1, position="sinusoidal")
  config.train.update(length=64, batch_size=32, steps=1500, steps_per_dispatch=50)
  config.train.update(checkpoint_every=250, keep_checkpoints=3, label_smoothing=0.1)
  config.train.update(schedule="cosine(warmup=200)")
  config.train.optimizer = "adamw(lr=2e-3, weight_decay=0.01)"
  config.evaluate.update(lengths=(1,), examples=896, batch_size=128)
  config.seeds = (0,)
  config.mesh.data = 2  # cores, each with half of a batch
  return config


def sweep() -> Plan:
  """Compares recurrent models and encodings of a Transformer."""
  before = [Change(overrides, name=name) for name, overrides in RECURRENT.items()]
  since = [
    Change({"model.position": name}, name=f"Transformer, {name}") for name in ENCODINGS
  ]
  return Plan(
    question="Which model translates best?",
    runs=Group("en-de", [*before, *since]),
    baseline="Transformer, sinusoidal",
  )
