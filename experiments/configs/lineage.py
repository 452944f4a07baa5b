"""What did each step from recurrence to attention and pretraining change?

Sutskever et al., 2014, https://arxiv.org/abs/1409.3215;
Bahdanau et al., 2015, https://arxiv.org/abs/1409.0473;
Luong et al., 2015, https://arxiv.org/abs/1508.04025;
Vaswani et al., 2017, https://arxiv.org/abs/1706.03762;
Radford et al., 2018 and 2019, GPT and GPT-2;
Devlin et al., 2019, https://arxiv.org/abs/1810.04805;
Liu et al., 2019, https://arxiv.org/abs/1907.11692;
Raffel et al., 2020, https://arxiv.org/abs/1910.10683.

  python -m transformer_jax.data.prepare libreoffice_help/de-en
  python -m transformer_jax.data.prepare brown
  python -m experiments.sweep --config=experiments/configs/lineage.py
  python -m experiments.sweep --config=experiments/configs/lineage.py \\
    --groups=translation

Each chapter is a config. Translators compete on one corpus; `translation.py` is the
same question at matched sizes. Language models learn their published objective from the
Brown corpus, so only those of one group can be compared: next tokens (GPT, and the same
after a prefix), hidden tokens (BERT, RoBERTa), and gaps of a text (T5). All
parts of a model are as published, and only its size is small; images are in
`vision.py`. BERT learns besides whether the second text of a row follows the first;
RoBERTa does not, has larger batches and one kind of token. In both each batch hides
other tokens.
Cost: the language models took 20 minutes on 2 cores of an Intel Xeon with other work
beside them, at commit 8475e9de40 with --config.seeds='(0,)' --config.train.steps=1000;
the translators have not been run at these sizes.
Expect: after 1,000 steps the share of right tokens is 0.18 (GPT), 0.11 (prefix LM),
0.14 (BERT), 0.15 (RoBERTa) and 0.30 (T5, whose targets hold the marks of gaps).
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from experiments.configs import base
from experiments.setup.plan import Chain, Change, Group, Plan

TRANSLATION = "translation('tfds:libreoffice_help/de-en', max_length=63, packed=8,"
TRANSLATION += " tokenizer='subword(size=4000)')"
TEXT = "{}('tfds:brown', window=128, tokenizer='subword(size=4000, sentinels={})'{})"


def model(**values: Any) -> dict[str, Any]:
  """Returns overrides of the model's keys."""
  return {f"model.{key}": value for key, value in values.items()}


def recurrent(family: str, attention: str = "multihead") -> dict[str, Any]:
  """Returns a recurrent translator."""
  one = model(family=f"recurrent({family})", attention=attention, heads=1)
  return one | model(kind="encoder_decoder", position="none")


def text(task: str, sentinels: int = 0, more: str = "") -> dict[str, Any]:
  """Returns the overrides of a language-modelling task."""
  return {"task": TEXT.format(task, sentinels, more), "train.batch_size": 32}


RECURRENT = {
  "RNN, bottleneck": recurrent("cell='elman', reads='backward'"),
  "LSTM, bottleneck": recurrent("cell='lstm', reads='backward'"),
  "GRU, Bahdanau": recurrent("cell='gru', link='bahdanau', reads='both'", "additive"),
  "LSTM, Luong": recurrent("cell='lstm', link='luong'", "multiplicative"),
}
TRANSFORMER = model(
  kind="encoder_decoder", position="sinusoidal", norm_placement="post"
)
TRANSFORMER |= model(norm="layernorm", activation="relu", feedforward=512)
TRANSFORMER |= model(feedforward_bias=True, dropout=0.1)
TRANSFORMERS = {
  "Transformer": TRANSFORMER,
  "Transformer, final norm": TRANSFORMER
  | model(norm_placement="post(final_norm=True)"),
  "Transformer, pre-norm": TRANSFORMER | model(norm_placement="pre"),
}

BIASED = model(attention="multihead(bias=True)", feedforward=512, feedforward_bias=True)
BIASED |= model(position="learned", dropout=0.1, attention_dropout=0.1)
GPT = text("tokens") | BIASED | model(kind="decoder", norm="layernorm")
GPT |= model(activation="gelu", embedding="tokens(power=0)", norm_placement="pre")
KINDS = "tokens(power=0, types={}, norm='layernorm(epsilon=1e-12)')"
BERT = text("masked", more=", nsp=True")
BERT |= BIASED | model(kind="encoder", norm_placement="post")
BERT |= model(norm="layernorm(epsilon=1e-12)", activation="gelu(approximate=False)")
BERT |= model(head="transform", embedding=KINDS.format(2))
ROBERTA = BERT | text("masked") | model(embedding=KINDS.format(0))
ROBERTA |= {"train.batch_size": 64}
T5 = text("spans", sentinels=100) | model(kind="encoder_decoder", position="t5")
T5 |= model(norm="rmsnorm", activation="relu", norm_placement="pre", feedforward=512)
T5 |= model(attention="scale(0)", embedding="tokens(power=0)", dropout=0.1)
T5 |= model(head="linear(power=-0.5)")
PREFIX = T5 | text("prefix_tokens") | model(kind="prefix_decoder")

CHAPTERS: Mapping[str, Mapping[str, dict[str, Any]]] = {
  "translation": RECURRENT | TRANSFORMERS,
  "next token": {"GPT": GPT},
  "after a prefix": {"prefix LM": PREFIX},
  "hidden tokens": {"BERT": BERT, "RoBERTa": ROBERTA},
  "gaps": {"T5": T5},
}


def get_config() -> ConfigDict:
  """Returns the base of all chapters: sizes, steps and the optimizer."""
  config = base.get_config()
  config.task = TRANSLATION
  config.model.update(width=128, layers=2, heads=4)
  config.train.update(length=64, batch_size=64, steps=2000, steps_per_dispatch=50)
  config.train.update(checkpoint_every=500, schedule="cosine(warmup=200)")
  config.train.optimizer = "adamw(lr=2e-3, weight_decay=0.01)"
  config.evaluate.update(lengths=(1,), examples=512, batch_size=64)
  return config


def sweep() -> Plan:
  """Trains every chapter."""
  groups = (
    Group(name, [Change(changes, name=label) for label, changes in chapter.items()])
    for name, chapter in CHAPTERS.items()
  )
  return Plan(
    question="What did each step from recurrence to attention and pretraining change?",
    runs=Chain(*groups),
    baseline="Transformer",
  )
