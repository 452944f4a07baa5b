"""Which parts of the Transformer matter? The published table of variants.

Vaswani et al., 2017, table 3. https://arxiv.org/abs/1706.03762

  python -m transformer_jax.data.prepare wmt14_translate/de-en
  python -m experiments.sweep --config=experiments/configs/table3.py --dry_run
  python -m experiments.sweep --config=experiments/configs/table3.py
  python -m experiments.sweep --config=experiments/configs/table3.py --plan=small \\
    --config.seeds='(0, 1, 2)'

English to German on newstest2013 (WMT14's validation split), without a mean of
checkpoints. Each row changes the base model, beside the published scores. On
a small corpus expect only the order: fewer layers, one head and narrow keys are worse;
sinusoids and learned positions are alike; label smoothing costs perplexity and gains
BLEU.
Cost: 20 runs of 12 hours and more on 8 P100 of 2017. Nobody has run it here.
Expect: the numbers in ROWS.

`--plan=small` has the same rows in the same proportions, with an eighth of the width
and half of the layers, on the help pages of LibreOffice (`prepare
libreoffice_help/de-en`): bits per piece and their order, no BLEU. All rows train for
300 steps, `big` too. Cost: 64 minutes of CPU (AMD EPYC). Expect: shallow models and
learned positions are better, since they start to translate sooner; the rest does not
resolve. See docs/results/table3_small.md.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from experiments.configs import transformer, wmt14
from experiments.setup.plan import Change, Group, Plan


@dataclasses.dataclass(frozen=True)
class PublishedVariant:
  """A row of the table: its changes and published scores.

  ppl          perplexity per piece on newstest2013
  bleu         on newstest2013
  parameters   in millions; None: as many as the base model

  >>> ROWS["A: 1 head"].bleu, dict(ROWS["A: 1 head"].changes)
  (24.9, {'model.heads': 1})
  """

  changes: Mapping[str, Any]
  ppl: float
  bleu: float
  parameters: int | None = None


def keys(width: int) -> dict[str, Any]:
  """Returns keys of this width and values as wide as in the base model."""
  return {"model.head_width": width, "model.attention": "multihead(value=64)"}


ROWS = {
  "base": PublishedVariant({}, 4.92, 25.8, 65),
  "A: 1 head": PublishedVariant({"model.heads": 1}, 5.29, 24.9),
  "A: 4 heads": PublishedVariant({"model.heads": 4}, 5.00, 25.5),
  "A: 16 heads": PublishedVariant({"model.heads": 16}, 4.91, 25.8),
  "A: 32 heads": PublishedVariant({"model.heads": 32}, 5.01, 25.4),
  "B: keys of 16": PublishedVariant(keys(16), 5.16, 25.1, 58),
  "B: keys of 32": PublishedVariant(keys(32), 5.01, 25.4, 60),
  "C: 2 layers": PublishedVariant({"model.layers": 2}, 6.11, 23.7, 36),
  "C: 4 layers": PublishedVariant({"model.layers": 4}, 5.19, 25.3, 50),
  "C: 8 layers": PublishedVariant({"model.layers": 8}, 4.88, 25.5, 80),
  "C: width 256": PublishedVariant({"model.width": 256}, 5.75, 24.5, 28),
  "C: width 1024": PublishedVariant({"model.width": 1024}, 4.66, 26.0, 168),
  "C: feed-forward 1024": PublishedVariant({"model.feedforward": 1024}, 5.12, 25.4, 53),
  "C: feed-forward 4096": PublishedVariant({"model.feedforward": 4096}, 4.75, 26.2, 90),
  "D: no dropout": PublishedVariant({"model.dropout": 0.0}, 5.77, 24.6),
  "D: dropout 0.2": PublishedVariant({"model.dropout": 0.2}, 4.95, 25.5),
  "D: no label smoothing": PublishedVariant({"train.label_smoothing": 0.0}, 4.67, 25.3),
  "D: label smoothing 0.2": PublishedVariant(
    {"train.label_smoothing": 0.2}, 5.47, 25.7
  ),
  "E: learned positions": PublishedVariant({"model.position": "learned"}, 4.92, 25.7),
  "big": PublishedVariant(
    transformer.size("big") | {"train.steps": 300_000}, 4.33, 26.4, 213
  ),
}


def get_config() -> ConfigDict:
  """Returns the base model, scored on newstest2013."""
  config = wmt14.get_config()
  config.task = wmt14.TASK.format("validation")
  config.train.keep_checkpoints = 1
  return config


def sweep() -> Plan:
  """Runs every row."""
  rows = [Change(row.changes, name=name) for name, row in ROWS.items()]
  return Plan(
    question="Which parts of the Transformer matter for translation?",
    runs=Group("newstest2013", rows),
    baseline="base",
  )


# One eighth of the width, half of the layers, and less of everything else.
SMALL: dict[str, Any] = {
  "task": "translation('tfds:libreoffice_help/de-en', max_length=63, packed=4,"
  " tokenizer='subword(size=1000)')",
  "model.width": 64,
  "model.layers": 3,
  "model.feedforward": 256,
  "model.scan": False,
  "model.dtype": "float32",
  "train.length": 64,
  "train.batch_size": 16,
  "train.steps": 300,
  "train.steps_per_dispatch": 20,
  "train.optimizer": "adam(lr=0.5, b1=0.9, b2=0.98, eps=1e-9)",
  "train.schedule": "noam(warmup=100)",
  "train.checkpoint_every": 300,
  "evaluate.examples": 896,
  "evaluate.batch_size": 64,
  "evaluate.measures": ("bits_per_byte", "accuracy"),  # bits of each piece
  "evaluate.texts": 0,
  "mesh.data": 1,
}
SHARE = {"width": 8, "layers": 2, "feedforward": 8, "head_width": 8, "steps": 1000}


def scaled(changes: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the changes of a row in the proportions of the small model.

  >>> scaled({"model.layers": 8, "model.heads": 1, "model.dropout": 0.0})
  {'model.layers': 4, 'model.heads': 1, 'model.dropout': 0.0}
  """
  share = {key: SHARE.get(key.rpartition(".")[2], 1) for key in changes}
  found = {key: x if share[key] == 1 else x // share[key] for key, x in changes.items()}
  if "model.head_width" in found:
    found["model.attention"] = "multihead(value=8)"
  return found


def small() -> Plan:
  """Runs every row in small."""
  rows = [Change(scaled(row.changes), name=name) for name, row in ROWS.items()]
  return Plan(
    question="Which parts of a small Transformer matter for translation?",
    runs=Group("LibreOffice help", rows, SMALL),
    baseline="base",
  )
