"""How far back does the gradient reach in an RNN, an LSTM, a GRU and a Transformer?

Bengio et al., 1994, https://doi.org/10.1109/72.279181 (why it vanishes);
Hochreiter and Schmidhuber, 1997, https://doi.org/10.1162/neco.1997.9.8.1735;
Cho et al., 2014, https://arxiv.org/abs/1406.1078;
Vaswani et al., 2017, https://arxiv.org/abs/1706.03762, section 4, table 1.

  python -m transformer_jax.data.prepare libreoffice_help/de-en
  python -m experiments.sweep --config=experiments/configs/recurrence.py --groups=text
  python -m experiments.gradients --workdir=runs/recurrence --by=distance --groups=text
  python -m experiments.sweep --config=experiments/configs/recurrence.py \\
    --groups=translation --config.seeds='(0, 1)'

Four language models of bytes with about 100,000 weights in their two layers read
Python's standard library, 128 bytes at a time, and are scored on longer texts too.
Three translators, those of `translation.py` with less training, are scored by the
length of their sources: a vector of fixed size, attention of a GRU, a Transformer.
Bahdanau et al., 2015, figure 2, https://arxiv.org/abs/1409.0473.
Cost: text took 6 minutes on 2 cores of an AMD EPYC with other work beside it, at commit
8555d48498; translation 50.
Expect: after 64 bytes the gradient is 1e-12 in an RNN, 1e-4 in an LSTM and a GRU, 0.01
in a Transformer; with one vector translations are half as good at every length. See
docs/results/recurrence.md.
"""

from ml_collections import ConfigDict

from experiments.configs import base, translation
from experiments.setup.plan import Chain, Change, Group, Plan

WIDTHS = {"elman": 160, "lstm": 80, "gru": 92}  # of as many weights as the Transformer
NAMES = {"elman": "RNN", "lstm": "LSTM", "gru": "GRU"}

TRANSFORMER = "Transformer"
TRANSLATION = {
  "task": translation.TASK,
  "model.kind": "encoder_decoder",
  "model.width": 160,
  "model.dropout": 0.1,
  "train.length": 64,
  "train.batch_size": 32,
  "train.steps": 450,
  "train.steps_per_dispatch": 50,
  "train.checkpoint_every": 450,
  "train.label_smoothing": 0.1,
  "train.schedule": "cosine(warmup=100)",
  "train.optimizer": "adamw(lr=2e-3, weight_decay=0.01)",
  "evaluate.lengths": (1,),
  "evaluate.examples": 896,
  "evaluate.batch_size": 128,
}
TRANSLATOR = {
  "model.position": "rope",
  "model.feedforward": 640,
  "model.activation": "relu",
  "model.norm": "layernorm",
}


def get_config() -> ConfigDict:
  """Returns a small Transformer of bytes."""
  config = base.get_config()
  config.train.update(length=128, batch_size=16, steps=300, steps_per_dispatch=20)
  config.train.update(checkpoint_every=300, optimizer="adamw(lr=4e-3)")
  config.evaluate.update(lengths=(1, 2, 4), examples=256, batch_size=32)
  return config


def recurrent(cell: str) -> Change:
  """Returns a recurrent language model of matched size."""
  overrides = {
    "model.family": f"recurrent(cell={cell!r})",
    "model.position": "none",
    "model.width": WIDTHS[cell],
  }
  return Change(overrides, name=NAMES[cell])


def sweep() -> Plan:
  """Compares recurrent models with a Transformer."""
  transformer = Change({"model.position": "rope"}, name=TRANSFORMER)
  before = translation.RECURRENT
  translators = [
    Change(before["LSTM"], name="LSTM, one vector"),
    Change(before["GRU + Bahdanau"], name="GRU + Bahdanau"),
    Change(TRANSLATOR, name=TRANSFORMER),
  ]
  return Plan(
    question="How far back does the gradient reach?",
    runs=Chain(
      Group("text", [*map(recurrent, WIDTHS), transformer]),
      Group("translation", translators, TRANSLATION),
    ),
    baseline=TRANSFORMER,
  )
