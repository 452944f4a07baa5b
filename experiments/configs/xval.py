"""Is a number better one token with a value, xVal, or its digits, inside and outside?

Golkar et al., 2023, https://arxiv.org/abs/2310.02989.

  python -m experiments.sweep --config=experiments/configs/xval.py

Sums of three signed numbers with two decimals, up to 4 in training, three seeds; scored
on numbers from 2 to 4, 4 to 8 and 8 to 16, the last two outside of the trained range.
What is read (one token or digits) and what is said (a number by squared error, or its
digits) are crossed.
Cost: a minute and a half on 2 cores of an AMD EPYC.
Expect: inside of the trained range a mean absolute error of 0.20 for xVal with a number
and of 0.81 for digits with digits; 4.5 is that of always saying 0. Four times outside
13.8 and 14.4, not resolved. See docs/results/other_inputs.md.
"""

from ml_collections import ConfigDict

from experiments.configs import base
from experiments.setup.plan import Change, Plan

READS = {"xval": "xval(tokens=4)", "digits": "tokens"}
SAYS = {"a number": "squared_error", "digits": "digits"}


def get_config() -> ConfigDict:
  """Returns a small decoder of numbers among tokens."""
  config = base.get_config()
  config.task = "real_sum(form='xval')"
  config.model.update(embedding=READS["xval"], position="learned", tied=False)
  config.model.update(width=32, layers=2, heads=4, feedforward=128)
  config.model.head = "linear(bias=True)"
  config.train.update(length=4, batch_size=64, steps=1000, steps_per_dispatch=50)
  config.train.update(checkpoint_every=500, schedule="cosine(warmup=50)")
  config.train.optimizer = "adamw(lr=2e-3, weight_decay=0.01)"
  config.evaluate.update(lengths=(1, 2, 4), examples=2000, batch_size=500)
  return config


def change(reads: str, says: str) -> Change:
  """Returns the run that reads and says numbers in these forms."""
  overrides = {
    "task": f"real_sum(form='{reads}', objective='{SAYS[says]}')",
    "model.embedding": READS[reads],
  }
  return Change(overrides, name=f"reads {reads}, says {says}", group="sums")


def sweep() -> Plan:
  """Crosses what is read with what is said."""
  runs = [change(reads, says) for reads in READS for says in SAYS]
  return Plan(
    question="Is a number better one token with a value, or its digits?",
    runs=runs,
    baseline="reads digits, says digits",
  )
