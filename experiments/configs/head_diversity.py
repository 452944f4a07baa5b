"""Do heads that are trained to differ translate better, or work on longer problems?

Li et al., 2018, https://arxiv.org/abs/1810.10183.

  python -m experiments.sweep --config=experiments/configs/head_diversity.py
  python -m transformer_jax.data.prepare libreoffice_help/de-en
  python -m experiments.sweep --config=experiments/configs/head_diversity.py \\
    --plan=translation --workdir=runs/head_diversity_translation

The disagreement of heads on their outputs, on the positions that they attend to and on
their subspaces of values is added to the loss, with a weight of 1. The plan
without a name is on length generalization: copying with a decoder and ALiBi, sorting
with an encoder and Transformer-XL's encoding, trained on 1 to 10 symbols; verdicts are
at twice that length, where both are between chance and perfect. `--plan=translation` is
English to German with RoPE, half of the training of configs/translation.py.
Cost: 4 minutes on 2 cores of an AMD EPYC, and 41 for translation with other work beside
it, at b21b332.
Expect: nothing resolved, in eight comparisons. See docs/results/head_diversity.md.
"""

from ml_collections import ConfigDict

from experiments.configs import length_generalization
from experiments.configs import translation as recurrence_to_attention
from experiments.setup.plan import Chain, Change, Group, Plan
from experiments.setup.primary import Comparisons
from experiments.setup.validate import flatten

KEY = "train.auxiliary"
LOSSES = {
  "none": (),
  "output": ("head_diversity(output)",),
  "positions": ("head_diversity(positions)",),
  "subspace": ("head_diversity(subspace)",),
}
COPY = {"task": "copy", "model.position": "alibi"}
SORT = {"task": "blanks(bucket_sort)", "model.kind": "encoder"}
SORT |= {"model.position": "transformer_xl"}


def get_config() -> ConfigDict:
  """Returns the model of the chapter on length generalization."""
  return length_generalization.get_config()


def sweep() -> Plan:
  """Compares the three disagreements on length generalization."""
  return Plan(
    question="Do heads that are trained to differ work on longer problems?",
    runs=Chain(
      Group("copy", variants(*LOSSES), COPY), Group("sort", variants(*LOSSES), SORT)
    ),
    baseline="none",
    comparisons=Comparisons(lengths=(2,)),
  )


def translation() -> Plan:
  """Compares two of them on translation."""
  return Plan(
    question="Do heads that are trained to differ translate better?",
    runs=Group("en-de", variants("none", "output", "positions"), bilingual()),
    baseline="none",
  )


def variants(*names: str) -> list[Change]:
  """Returns the runs with these losses."""
  return [Change({KEY: LOSSES[name]}, name=name) for name in names]


def bilingual() -> dict[str, object]:
  """Returns the overrides of a small Transformer that translates."""
  config = recurrence_to_attention.get_config()
  config.model.position = "rope"
  config.train.update(steps=800, checkpoint_every=400)
  config.evaluate.update(texts=400, examples=384)
  config.seeds = get_config().seeds
  here = flatten(get_config())
  return {key: x for key, x in flatten(config).items() if here[key] != x}
