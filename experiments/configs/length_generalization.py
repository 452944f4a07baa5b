"""Which positional encoding solves longer problems than it was trained on?

Delétang et al., 2022, https://arxiv.org/abs/2207.02098;
Ruoss et al., 2023, https://arxiv.org/abs/2305.16843;
Kazemnejad et al., 2023, https://arxiv.org/abs/2305.19466;
McLeish et al., 2024, https://arxiv.org/abs/2405.17399;
Cho et al., 2024, https://arxiv.org/abs/2405.20671.

  python -m experiments.sweep --config=experiments/configs/length_generalization.py
  python -m experiments.sweep --config=experiments/configs/length_generalization.py \\
    --plan=paper --dry_run

The plan without a name is for a CPU: three tasks of the Chomsky hierarchy for encoders,
copying, repeating and a hidden key for decoders, trained on lengths of 1 to 10, scored
on 10, 20, 50 and 100; and addition of 1 to 3 digits, scored up to 30. `--plan=paper`
has every task with the published sizes, lengths and steps.
Cost: three seeds, 4.1 hours of the runs' own time on one core of an AMD EPYC with much
other work beside; about 2 hours of CPU.
Expect: on sorting, randomized positions keep 91 to 95% at ten times the length, better
than no encoding and than the same encodings without them, which have 19 to 46%. Most
else does not resolve with three seeds. See docs/results/length_generalization.md.
"""

from collections.abc import Iterable
from typing import Any

from ml_collections import ConfigDict

from experiments.configs import base
from experiments.setup.plan import Chain, Grid, Group, Plan
from experiments.setup.primary import Comparisons

Overrides = dict[str, Any]
QUESTION = "Which positional encoding solves longer problems than it was trained on?"

# Ruoss et al. compare these, each with and without randomized positions.
RANDOMIZABLE = ("sinusoidal", "transformer_xl", "alibi", "rope")
SPREAD = (
  "randomized({}, max_positions=512, spread=True)"  # the paper: 2048, drawn in tests
)
ENCODERS = (
  *("none", *RANDOMIZABLE, "kerple_log", "fire"),
  *(SPREAD.format(name) for name in RANDOMIZABLE),
)
# The five of Kazemnejad et al., and later ones.
DECODERS = (
  *("none", "sinusoidal", "alibi", "rope", "t5"),
  *("kerple_log", "fire", "forgetting", "cope", "path", "pope", SPREAD.format("rope")),
)
# Digits know their place in their number, or share it with the digits below them.
ADDERS = (
  *("none", "rope", "fire", "abacus(none, max_offset=30)"),
  *("abacus(fire, max_offset=30)", "coupled(learned, max_positions=40)"),
)
ADDITION = "addition(reversed=True, reversed_operands=True)"

# Additions of --plan=paper: all tasks of each paper, with its model, steps, lengths.
CHOMSKY = {
  name: f"{name}(symbols=2)" if name == "reverse" else name
  for name in (
    *("even_pairs", "modular_arithmetic", "parity", "cycle_navigation"),
    *("stack_manipulation", "reverse", "modular_arithmetic_brackets"),
    *("solve_equation", "duplicate", "missing_duplicate", "odds_first"),
    *("binary_addition", "binary_multiplication", "sqrt", "bucket_sort"),
  )
}
DELETANG: Overrides = {"model.width": 64, "model.layers": 5, "model.heads": 8}
DELETANG |= {"model.feedforward": 256, "model.activation": "relu", "model.dropout": 0.1}
DELETANG |= {"model.norm_placement": "post", "model.norm": "layernorm"}
DELETANG |= {"train.length": 40, "train.batch_size": 128, "train.steps": 1_000_000}
DELETANG |= {"train.steps_per_dispatch": 1000, "train.checkpoint_every": 50_000}
DELETANG |= {"train.schedule": "constant", "seeds": tuple(range(10))}
DELETANG |= {"evaluate.lengths": tuple(range(1, 13)), "evaluate.examples": 512}
RATES = (1e-4, 3e-4, 5e-4)  # the published score is the best of seeds and rates
PLAIN = (
  *("sinusoidal", "transformer_xl", "alibi(both_ways='offset')", "rope"),
  "learned(max_positions=2048)",
)
RUOSS = ("none", *PLAIN, *(f"randomized({name}, spread=True)" for name in PLAIN))

KAZEMNEJAD: Overrides = {"model.width": 768, "model.layers": 12, "model.heads": 12}
KAZEMNEJAD |= {"model.feedforward": 3072, "model.activation": "relu"}
KAZEMNEJAD |= {"model.dropout": 0.1, "train.length": 20, "train.batch_size": 64}
KAZEMNEJAD |= {"train.steps": 40_000, "train.schedule": "wsd(warmup=2400, decay=0.94)"}
KAZEMNEJAD |= {"train.optimizer": "adamw(lr=3e-5, weight_decay=0.05, b2=0.999)"}
KAZEMNEJAD |= {"train.checkpoint_every": 4000, "evaluate.lengths": (1, 2)}
WORDS = {
  name.partition("(")[0] if "(" not in name else name: name
  for name in (
    *("copy", "copy(times=2)", "repeat", "repeat(times=2)", "repeat(other=True)"),
    *("reverse", "reverse(times=2)", "reverse(copied=True)", "sort", "parity"),
    *("summation", "polynomial", "passkey", "mqar(keys=64)"),
  )
}
SHORT = {"addition": "addition", "lego": "lego"}  # trained up to 8

CHO: Overrides = {
  "model.width": 512,
  "model.layers": 1,
  "model.heads": 4,
  "model.head_width": 128,
}
CHO |= {"model.feedforward": 2048, "model.activation": "swiglu", "train.length": 40}
CHO |= {
  "train.batch_size": 1000,
  "train.steps": 50_000,
  "train.optimizer": "adam(lr=1e-4)",
}
CHO |= {"train.checkpoint_every": 5000, "evaluate.lengths": (1, 2, 3, 4, 5)}
CHO |= {"seeds": tuple(range(8))}
MCLEISH: Overrides = {"model.width": 1024, "model.layers": 16, "model.heads": 16}
MCLEISH |= {"model.feedforward": 2048, "train.length": 20, "train.batch_size": 512}
MCLEISH |= {"train.steps": 40_000, "train.optimizer": "adamw(lr=1e-4)"}
MCLEISH |= {"train.checkpoint_every": 4000, "evaluate.lengths": (1, 2, 3, 4, 5)}
THREE_DIGITS: Overrides = {
  "train.length": 3,
  "train.batch_size": 64,
  "train.steps": 2500,
}


def get_config() -> ConfigDict:
  """Returns a small model that learns strings of up to ten symbols in a minute."""
  config = base.get_config()
  config.train.update(length=10, batch_size=32, steps=1000, steps_per_dispatch=100)
  config.train.update(checkpoint_every=500)
  # The standard error of a share of 512 strings is 0.022 or less.
  config.evaluate.update(lengths=(1, 2, 5, 10), examples=512, batch_size=16)
  return config


def sweep() -> Plan:
  """Compares encodings in an afternoon on a CPU."""
  groups = [
    encoder("even_pairs", "even_pairs", ENCODERS),
    encoder("reverse", "reverse(symbols=2)", ENCODERS),
    encoder("bucket_sort", "bucket_sort", ENCODERS),
    Group("repeat", encodings(DECODERS), {"task": "repeat", "train.steps": 600}),
    Group("copy", encodings(DECODERS), {"task": "copy"}),
    Group("passkey", encodings(DECODERS), {"task": "passkey"}),
    Group("addition", encodings(ADDERS), {"task": ADDITION, **THREE_DIGITS}),
  ]
  return Plan(QUESTION, Chain(*groups), baseline="none", comparisons=comparisons())


def comparisons() -> Comparisons:
  """Returns the primary comparisons: with no encoding, and of randomized positions.

  At ten times the trained length alone; what is learned at that length is no question.
  """
  names = dict.fromkeys((*ENCODERS, *DECODERS, *ADDERS))
  randomized = ((SPREAD.format(name), name) for name in RANDOMIZABLE)
  pairs = ((name, "none") for name in names if name != "none")
  return Comparisons(lengths=("longest",), contrasts=(*pairs, *randomized))


def encodings(names: Iterable[str]) -> Grid:
  """Returns the grid over encodings."""
  return Grid({"model.position": tuple(names)})


def encoder(name: str, task: str, names: Iterable[str], **changes: object) -> Group:
  """Returns a group of encoders that predict all answer symbols at once, in blanks."""
  kind = {"task": f"blanks({task})", "model.kind": "encoder"}
  return Group(name, encodings(names), kind | changes)


def paper() -> Plan:
  """Compares encodings as published; for accelerators and weeks."""
  chomsky = [
    encoder(f"{name}, lr={rate}", task, RUOSS, **DELETANG, **_rate(rate))
    for name, task in CHOMSKY.items()
    for rate in RATES
  ]
  five = encodings(("none", "sinusoidal", "alibi", "partial_rope", "t5"))
  words = [Group(n, five, KAZEMNEJAD | {"task": task}) for n, task in WORDS.items()]
  short = KAZEMNEJAD | {"train.length": 8}
  words += [Group(n, five, short | {"task": task}) for n, task in SHORT.items()]
  adders = {"task": "addition(reversed=True)"}
  coupled = encodings(
    ("none", "learned(max_positions=600)", "coupled(learned, max_positions=202)")
  )
  abacus = encodings(("none", "fire", "abacus(none)", "abacus(fire)"))
  adding = [
    Group("addition, coupled", coupled, CHO | adders),
    Group("addition, abacus", abacus, MCLEISH | {"task": ADDITION}),
  ]
  return Plan(QUESTION, Chain(*chomsky, *words, *adding), baseline="none")


def _rate(rate: float) -> dict[str, str]:
  return {"train.optimizer": f"adam(lr={rate}, b2=0.999)"}
