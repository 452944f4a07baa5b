"""Which of ten positional encodings, and of three with randomized positions, reads on?

Kazemnejad et al., 2023, https://arxiv.org/abs/2305.19466;
Ruoss et al., 2023, https://arxiv.org/abs/2305.16843.

  python -m experiments.sweep --config=experiments/configs/standard.py

Five seeds each, on the source of Python's standard library, copying, reversing and
associative recall; scored on the same targets with up to 16 times the context.
Cost: about an hour on 2 cores of an Intel Xeon, reckoned from four of its 52 runs: text
85 to 125 seconds each, strings 45 seconds.
Expect: from those runs, with 16 times the context of text: shaw 2.27 bits per byte and
rope 4.98, both near 2.25 at the trained length. The whole plan has not been run.
"""

from ml_collections import ConfigDict

from experiments.configs import quickstart
from experiments.setup.plan import Chain, Grid, Group, Plan

ENCODINGS = (
  *("none", "sinusoidal", "learned", "shaw", "t5", "alibi", "rope", "fire"),
  *("transformer_xl", "forgetting"),
  *("randomized(sinusoidal)", "randomized(shaw)", "randomized(rope)"),
)
TASKS = {"copy": "copy(scored=8)", "reverse": "reverse(scored=8)", "recall": "recall"}
STRINGS = {"train.length": 8, "train.batch_size": 32, "train.steps": 1200}


def get_config() -> ConfigDict:
  """Returns the quickstart's model with more seeds, more steps and longer texts."""
  config = quickstart.get_config()
  config.task = 'text(source="stdlib", window=1024)'
  config.seeds = (0, 1, 2, 3, 4)
  config.train.update(steps=800, steps_per_dispatch=40)
  config.evaluate.update(lengths=(1, 2, 4, 8, 16), examples=64, batch_size=2)
  return config


def sweep() -> Plan:
  """Compares the encodings on text and on each synthetic task."""
  encodings = Grid({"model.position": ENCODINGS})
  text = Group("text", encodings)
  strings = [
    Group(name, encodings, {"task": task, **STRINGS}) for name, task in TASKS.items()
  ]
  return Plan(
    question="Which positional encoding still works on longer texts?",
    runs=Chain(text, *strings),
    baseline="none",
  )
