"""Output heads of a family's model classes: language models and classifiers."""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from transformer_jax.interop.hf_config import HFConfig
from transformer_jax.interop.table import Table
from transformer_jax.models.heads import LinearHead, TransformHead
from transformer_jax.models.layers import Tanh

Fields = Callable[[HFConfig], dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Output:
  """The output of one class of models.

  endings   of the class's name in `architectures`; the first one is written
  markers   tensors by which it is known where config.json names no class; () is never
  fields    of the architecture besides those of the family, from the words
  table     rows in place of those of the family
  """

  endings: tuple[str, ...]
  markers: tuple[str, ...] = ()
  fields: Fields = lambda config: {}
  table: Mapping[str, tuple[str, str]] = dataclasses.field(default_factory=dict)


def bare(*endings: str, **fields: Any) -> Output:
  """Returns the output of bare models, whose logits are products with embeddings.

  endings   as of `Output`; "Model" where there are none
  fields    of the architecture, which differ from those of models with an output
  """
  fields = {"tied": True, "head": LinearHead()} | fields
  return Output(endings or ("Model",), fields=lambda config: fields)


def marked(
  outputs: Iterable[Output], names: Collection[str], kind: str
) -> Output | None:
  """Returns the first output whose markers are among the names of tensors, or None.

  Raises ValueError where other outputs have the same markers.

  kind   what the classes are called, before their endings
  """
  found = [f for f in outputs if f.markers and all(m in names for m in f.markers)]
  alike = [output for output in found if output.markers == found[0].markers]
  if len(alike) > 1:
    classes = ", ".join(f"{kind}{output.endings[0]}" for output in alike)
    raise ValueError(
      f"config.json names no class with an output, and {classes} all have"
      f" {alike[0].markers[0]}; write the class that it is as architectures"
    )
  return next(iter(found), None)


def labels(config: HFConfig) -> int:
  """Returns how many classes a model tells apart: 2 where config.json is silent."""
  return config.whole("num_labels", len(config.part("id2label").config) or 2)


def of_tokens(
  ending: str,
  name: str,
  bias: bool = True,
  classes: int = 0,
  head: Callable[[HFConfig], LinearHead] | None = None,
) -> Output:
  """Returns the output of a classifier of each token's last state.

  name      of its projection, [classes, D]
  bias      whether that adds a learned vector
  classes   their number; 0: what config.json says
  head      the whole head, from the words; None: that projection alone
  """

  def fields(config: HFConfig) -> dict[str, Any]:
    own = head(config) if head else LinearHead(bias=bias)
    return dict(head=own, classes=classes or labels(config), tied=False)

  return Output((ending,), (f"{name}.weight",), fields, _projection(name))


def of_texts(dense: str, name: str, activation: Callable | None = None) -> Output:
  """Returns the output of a classifier of texts: a dense layer on the first token.

  activation   of the words; None: tanh
  """

  def fields(config: HFConfig) -> dict[str, Any]:
    between = activation(config) if activation else Tanh()
    head = TransformHead(activation=between, norm=None)
    return dict(head=head, classes=labels(config), tied=False)

  table = _projection(name) | {
    "head/dense_DD": (f"{dense}.weight", "d D"),
    "head/dense_shift_D": (f"{dense}.bias", "D"),
  }
  markers = f"{dense}.weight", f"{name}.weight"
  return Output(("ForSequenceClassification",), markers, fields, table)


def _projection(name: str) -> Table:
  return {
    "output_DV": (f"{name}.weight", "V D"),
    "head/shift_V": (f"{name}.bias", "V"),
  }


# Outputs that write: their tensors are rows of the family's own table.
WRITER = Output(("ForCausalLM", "LMHeadModel"))
SCORE = of_tokens("ForSequenceClassification", "score", bias=False)
SPANS = of_tokens("ForQuestionAnswering", "qa_outputs", classes=2)
