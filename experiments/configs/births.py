"""Do positions help to forecast a series, and does a model beat a linear regression?

Zeng et al., 2022, https://arxiv.org/abs/2205.13504, ask the second question.

  python -m transformer_jax.data.prepare us_births
  python -m experiments.sweep --config=experiments/configs/births.py

Births in the United States by day, of which a causal decoder reads 56 days and predicts
the 7 that follow, three seeds; scored on the last two years, also with a window twice
as long. `--plan=objectives` compares squared error, Gaussian likelihood and quantiles.
Cost: 100 seconds on 2 cores of an AMD EPYC, `--plan=objectives` as long.
Expect: a mean absolute error of 0.32 to 0.33 standard deviations, no encoding resolved
from none; the last week has 0.30, and a linear regression on 64 days 0.27. Quantiles
are better than squared error by 0.02. See docs/results/other_inputs.md.
"""

from ml_collections import ConfigDict

from experiments.configs import base
from experiments.setup.plan import Change, Grid, Group, Plan

TASK = "time_series('us_births', columns=('births',), horizon=7, season=7"
OBJECTIVES = "squared_error", "gaussian", "quantiles((0.1, 0.5, 0.9))"


def get_config() -> ConfigDict:
  """Returns a small decoder of numbers."""
  config = base.get_config()
  config.task = f"{TASK})"
  config.model.update(embedding="numbers(features=1)", tied=False, width=32, layers=2)
  config.model.update(heads=4, feedforward=128, head="linear(bias=True)")
  config.train.update(length=56, batch_size=32, steps=400, steps_per_dispatch=50)
  config.train.update(checkpoint_every=200, schedule="cosine(warmup=50)")
  config.train.optimizer = "adamw(lr=2e-3, weight_decay=0.05)"
  config.evaluate.update(lengths=(1, 2), examples=1000, batch_size=100)
  return config


def sweep() -> Plan:
  """Compares encodings."""
  return Plan(
    question="Do positions help to forecast a series?",
    runs=Group(
      "births",
      Grid({"model.position": ("none", "learned", "rope", "alibi")}),
    ),
    baseline="none",
  )


def objectives() -> Plan:
  """Compares objectives, with rotary positions."""

  def change(name: str) -> Change:
    task = f'{TASK}, objective="{name}")'
    overrides = {"task": task, "model.position": "rope"}
    return Change(overrides, name=name, group="births")

  return Plan(
    question="Does it matter which objective forecasts are trained by?",
    runs=[*map(change, OBJECTIVES)],
    baseline=OBJECTIVES[0],
  )
