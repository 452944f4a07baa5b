"""Does the optimizer change the ranking of positional encodings?

Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/;
Liu et al., 2025, https://arxiv.org/abs/2502.16982.

  python -m experiments.sweep --config=experiments/configs/muon.py
  python -m experiments.sweep --config=experiments/configs/muon.py --plan=rates

The six encodings of the quickstart, each trained with AdamW and with Muon, five seeds
each, on the source of Python's standard library. `--plan=rates` is the bracket that the
learning rates come from, with one seed of two encodings.
Cost: 23 minutes on one core of an AMD EPYC with much other work beside it, at commit
73dcba8.
Expect: Muon is better by 0.08 to 0.21 bits per byte for every encoding, most for
sinusoids; RoPE and ALiBi lead with both. See docs/results/muon.md.
"""

from ml_collections import ConfigDict

from experiments.configs import quickstart
from experiments.setup.plan import Chain, Change, Group, Plan
from experiments.setup.primary import Comparisons

ADAMW, MUON = "adamw(lr={})", "muon(lr={}, adam_lr=0.008)"
RATES = {ADAMW: (0.004, 0.008, 0.016), MUON: (0.01, 0.02, 0.04, 0.08)}
OPTIMIZERS = {"AdamW": ADAMW.format(0.008), "Muon": MUON.format(0.04)}
QUESTION = "Does the optimizer change the ranking of positional encodings?"


def get_config() -> ConfigDict:
  """Returns the quickstart's model and training on text, with five seeds."""
  config = quickstart.get_config()
  config.seeds = (0, 1, 2, 3, 4)
  config.train.steps_per_dispatch = 40
  config.evaluate.update(lengths=(1, 4), examples=512)
  return config


def encodings(optimizer: str) -> list[Change]:
  """Returns the encodings with one optimizer."""
  return [
    Change(
      {"model.position": name, "train.optimizer": OPTIMIZERS[optimizer]},
      name=f"{name}, {optimizer}",
    )
    for name in quickstart.ENCODINGS
  ]


def sweep() -> Plan:
  """Compares encodings within each optimizer, and optimizers for each encoding."""
  pairs = [
    (f"{name}, {optimizer}", f"none, {optimizer}")
    for optimizer in OPTIMIZERS
    for name in quickstart.ENCODINGS[1:]
  ]
  pairs += [(f"{name}, Muon", f"{name}, AdamW") for name in quickstart.ENCODINGS]
  return Plan(
    question=QUESTION,
    runs=Group("text", Chain(*map(encodings, OPTIMIZERS))),
    baseline="none, AdamW",
    comparisons=Comparisons(contrasts=tuple(pairs)),
  )


def rates() -> Plan:
  """Tries some learning rates of each optimizer, with one seed."""
  tried = [
    Change(
      {"seeds": (0,), "model.position": name, "train.optimizer": spec.format(rate)},
      name=f"{name}, {spec.format(rate)}",
    )
    for name in ("none", "rope")
    for spec, few in RATES.items()
    for rate in few
  ]
  return Plan(
    question="Which learning rate does each optimizer need?",
    runs=tried,
    baseline=tried[0].label,
  )
