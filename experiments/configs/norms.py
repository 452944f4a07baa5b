"""Which norm, where, and what happens without residuals?

Ioffe and Szegedy, 2015, https://arxiv.org/abs/1502.03167 (batch norm);
Ba et al., 2016, https://arxiv.org/abs/1607.06450 (layer norm);
Zhang and Sennrich, 2019, https://arxiv.org/abs/1910.07467 (RMS norm);
Shen et al., 2020, https://arxiv.org/abs/2003.07845 (why not batch norm in text);
Xiong et al., 2020, https://arxiv.org/abs/2002.04745 (pre and post).

  python -m transformer_jax.data.prepare brown --data_dir=data
  python -m experiments.sweep --config=experiments/configs/norms.py
  python -m experiments.gradients --workdir=runs/norms --by=layer

Six layers of width 64, each norm at each placement. An encoder tags words of the Brown
corpus, where batch norm is defined, and a decoder reads Python's standard library,
where it is not.
Cost: 23 minutes on 2 cores of an AMD EPYC with much other work beside it, at commit
fa8c8c4aea.
Expect: tags 0.76 right with layer, RMS or batch norm before sublayers, 0.74 after them,
0.50 without norms, and 0.13 to 0.15 without residuals, whatever the norm; the most
common tag alone has 0.12. See docs/results/norms.md.
"""

from ml_collections import ConfigDict

from experiments.configs import base, brown_tagging
from experiments.setup.plan import Chain, Change, Group, Plan

NORMS = ("layernorm", "rmsnorm", "batchnorm", "none")
PLACEMENTS = ("pre", "post", "sandwich", "no_residual")
TAGGING = {
  "task": brown_tagging.TASK,
  "model.kind": "encoder",
  "model.head": "linear(bias=True)",
  "model.tied": False,
  "evaluate.examples": 1592,
  "evaluate.batch_size": 199,
}


def get_config() -> ConfigDict:
  """Returns a small deep decoder; six layers, since norms matter with depth."""
  config = base.get_config()
  config.model.update(width=64, layers=6, heads=4, feedforward=128)
  config.train.update(length=64, batch_size=16, steps=200, steps_per_dispatch=20)
  config.train.update(optimizer="adamw(lr=2e-3)", schedule="cosine(warmup=30)")
  config.train.update(checkpoint_every=200)
  config.evaluate.update(lengths=(1,), examples=512, batch_size=64)
  return config


def crossed(norms: tuple[str, ...]) -> list[Change]:
  """Returns each norm at each placement.

  Without norms three placements are one: x + f(x).
  """
  return [
    Change(
      {"model.norm": norm, "model.norm_placement": placement},
      name=f"{norm}, {placement}",
    )
    for placement in PLACEMENTS
    for norm in norms
    if norm != "none" or placement in ("pre", "no_residual")
  ]


def sweep() -> Plan:
  """Compares norms and placements, in an encoder and in a decoder."""
  causal = tuple(norm for norm in NORMS if norm != "batchnorm")
  return Plan(
    question="Which norm, where, and what happens without residuals?",
    runs=Chain(
      Group("tagging", crossed(NORMS), TAGGING),
      Group("text", crossed(causal)),
    ),
    baseline="layernorm, pre",
  )
