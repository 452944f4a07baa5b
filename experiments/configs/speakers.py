"""Do positions help to tell who speaks, from a sound in patches?

Gong et al., 2021, https://arxiv.org/abs/2104.01778, read patches of sounds so.

  python -m transformer_jax.data.prepare japanese_vowels
  python -m experiments.sweep --config=experiments/configs/speakers.py

The vowels "ae", spoken by nine men: 12 coefficients of linear prediction of each of 7
to 29 moments, not the recorded sound. An encoder reads patches of 3 moments after a
class token, three seeds, and is scored on the original test split.
Cost: a minute on 2 cores of an AMD EPYC.
Expect: 0.98 with every encoding, none resolved from none; the nearest class by mean and
deviation over time has 0.946, and the most common one 0.084. See
docs/results/other_inputs.md.
"""

from ml_collections import ConfigDict

from experiments.configs import base
from experiments.setup.plan import Grid, Group, Plan


def get_config() -> ConfigDict:
  """Returns a small encoder of signals."""
  config = base.get_config()
  config.task = "signals('japanese_vowels', size=3, channels=12, classes=9)"
  config.model.update(kind="encoder", embedding="signal(size=3, channels=12)")
  config.model.update(tied=False, head="linear(bias=True)", width=32, layers=2)
  config.model.update(heads=4, feedforward=128, dropout=0.2)
  config.train.update(length=10, batch_size=64, steps=300, steps_per_dispatch=50)
  config.train.update(checkpoint_every=150, schedule="cosine(warmup=50)")
  config.train.optimizer = "adamw(lr=2e-3, weight_decay=0.05)"
  config.evaluate.update(lengths=(1,), examples=370, batch_size=74)
  return config


def sweep() -> Plan:
  """Compares encodings."""
  encodings = {"model.position": ("none", "learned", "rope", "alibi")}
  return Plan(
    question="Do positions help to tell who speaks?",
    runs=Group("speakers", Grid(encodings)),
    baseline="none",
  )
