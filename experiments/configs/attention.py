"""Which attention variant reads text best, and which still does with longer context?

The papers of all variants are in docs/attention.md.

  python -m experiments.sweep --config=experiments/configs/attention.py
  python -m experiments.run --config=experiments/configs/attention.py \\
    --config.model.attention='gqa(2) + window(32) + sinks'

Twenty variants, three seeds each, with ALiBi's bias where the variant takes one, on the
source of Python's standard library (bits per byte). Trained at one length and scored on
the same targets with 1, 2, 4 and 8 times the context.
Cost: with --until=resolved, stopped at five seeds, 2.8 hours of the runs' own time on
one core of an AMD EPYC with other work beside; a fifth of it is entmax's.
Expect: stick-breaking attention is best, talking heads are better than plain attention,
sigmoid, ReLU and linear weights worse; most others do not resolve. See
docs/results/attention.md.
"""

from ml_collections import ConfigDict

from experiments.configs import quickstart
from experiments.setup.plan import Chain, Group, Plan, Zipped

VARIANTS = (
  *("multihead", "gqa(2)", "mqa", "mla(latent=32, part=0)", "differential"),
  *("gated", "talking_heads", "qk_norm", "cosine", "softcap(20)", "additive"),
  *("softmax_one", "sinks", "sigmoid", "relu", "entmax", "window(32)"),
  *("multihead", "stick_breaking", "linear"),
)
BIASES = ("alibi",) * 17 + ("none",) * 3


def get_config() -> ConfigDict:
  """Returns the quickstart's model."""
  return quickstart.get_config()


def sweep() -> Plan:
  """Compares the variants on text."""
  variants = Zipped({"model.attention": VARIANTS, "model.position": BIASES})
  return Plan(
    question="Which attention variant reads text best?",
    runs=Chain(Group("text", variants)),
    baseline="multihead alibi",
  )
