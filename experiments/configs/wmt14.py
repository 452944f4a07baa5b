"""Does this Transformer translate WMT14 as well as the published one?

Vaswani et al., 2017, table 2. https://arxiv.org/abs/1706.03762

  python -m transformer_jax.data.prepare wmt14_translate/de-en
  python -m experiments.sweep --config=experiments/configs/wmt14.py --dry_run
  python -m experiments.sweep --config=experiments/configs/wmt14.py
  python -m experiments.run --config=experiments/configs/wmt14.py \\
    --config.task="translation('/data/wmt14', tokenizer='subword(size=37000)', ...)"

Published on newstest2014, English to German: 27.3 BLEU (base) and 28.4 (big), with the
mean of the last 5 and 20 checkpoints, a beam of 4 and a length penalty of 0.6.
Nobody has trained it here: the plan is compiled and dry-run, and claims no score. Where
the data is not prepared, the dry run names the command that prepares it; a folder with
train.en, train.de, test.en and test.de does as well. Published scores are of tokenized
text; those of sacreBLEU are lower.
Cost: the paper's 12 hours (base) and 3.5 days (big) on 8 P100. Compiled here for a CPU
with a vocabulary of 37,000 made-up words, a whole batch on one device: base has
63,045,632 parameters, 204 MFLOPs per token and wants 19 GiB, big 214,171,648 (the
paper's 213 million), 673 MFLOPs and 39 GiB.
Expect: unknown; the target is 27.3 and 28.4.
"""

from ml_collections import ConfigDict

from experiments.configs import base, transformer
from experiments.setup.plan import Change, Group, Plan

TASK = "translation('tfds:wmt14_translate/de-en', tokenizer='subword(size=37000)',"
TASK += " max_length=255, packed=12, split='{}')"
TARGETS = {"base": 27.3, "big": 28.4}  # BLEU on newstest2014, published
LONGER = {"train.steps": 300_000, "train.keep_checkpoints": 20}


def get_config() -> ConfigDict:
  """Returns the base model; a batch has about 25,000 tokens of each language."""
  config = base.get_config()
  config.task = TASK.format("test")  # newstest2014
  config.seeds = (0,)
  transformer.publish(config)
  config.model.update(transformer.SIZES["base"], scan=True, dtype="bfloat16")
  config.train.update(length=256, batch_size=104, steps=100_000, steps_per_dispatch=100)
  config.train.update(checkpoint_every=1500, keep_checkpoints=5)
  config.evaluate.update(lengths=(1,), examples=3000, batch_size=40)
  config.evaluate.update(texts=3003, beam=4, penalty="gnmt(0.6)")
  config.mesh.data = -1
  return config


def sweep() -> Plan:
  """Trains the two published sizes."""
  big = transformer.size("big") | LONGER
  return Plan(
    question="Are the published scores reached: 27.3 BLEU (base) and 28.4 (big)?",
    runs=Group("newstest2014", [Change(name="base"), Change(big, name="big")]),
    baseline="base",
  )
