"""Does a Decision Transformer need positions, and does it earn the return asked for?

Chen et al., 2021, https://arxiv.org/abs/2106.01345.

  pip install 'gymnasium>=1.1'
  python -m experiments.sweep --config=experiments/configs/decision.py
  python -m experiments.rollouts --run=runs/decision/runs/ID

A small decoder learns from 200 episodes of scripted policies, three seeds each, and
plays: 16 episodes for each of five target returns. With all observations, and without
speeds, which earlier steps must tell.
Cost: 10 minutes on 2 cores of an AMD EPYC with other work beside it, one run on each
core, measured at commit d227b43cac.
Expect: CartPole is held for 500 steps by all; on Acrobot without speeds learned
positions, sinusoids and RoPE have a return of -85 to -92 and no encoding -143, not
resolved with three seeds; the data have -260. See docs/results/decision.md.
"""

from ml_collections import ConfigDict

from experiments.configs import base
from experiments.setup.plan import Chain, Grid, Group, Plan

ENCODINGS = ("none", "learned", "sinusoidal", "rope", "alibi", "timestep")


def problem(environment: str, state: int, actions: int, observed: str = "()") -> dict:
  """Returns the overrides of a control problem.

  state, actions   numbers that the model reads of an observation, and actions
  observed         indices of these numbers; (): all
  """
  return {
    "task": f"decision('{environment}', observed={observed})",
    "model.embedding": f"trajectory(state={state}, actions={actions})",
  }


CART = problem("CartPole-v1", 4, 2)
STILL_CART = problem("CartPole-v1", 2, 2, "(0, 2)")
STILL_ACROBOT = problem("Acrobot-v1", 4, 3, "(0, 1, 2, 3)")


def get_config() -> ConfigDict:
  """Returns a small decoder of 10 steps, 30 tokens."""
  config = base.get_config()
  config.update_from_flattened_dict(STILL_CART)
  config.model.update(width=32, heads=2, layers=2, feedforward=64)
  config.train.update(length=10, batch_size=64, steps=400, steps_per_dispatch=50)
  config.train.update(checkpoint_every=200, schedule="cosine(warmup=30)")
  config.evaluate.update(lengths=(1,), examples=1024, batch_size=64)
  return config


def sweep() -> Plan:
  """Compares the encodings where speeds are observed, and where they are not."""
  encodings = Grid({"model.position": ENCODINGS})
  return Plan(
    question="Does a Decision Transformer need positions?",
    runs=Chain(
      Group("CartPole", encodings, CART),
      Group("CartPole without speeds", encodings, STILL_CART),
      Group("Acrobot without speeds", encodings, STILL_ACROBOT),
    ),
    baseline="none",
  )
