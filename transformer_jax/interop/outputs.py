"""Output heads of a family's model classes: language models and classifiers."""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from transformer_jax.interop.hf_config import HFConfig
from transformer_jax.interop.table import NameTable
from transformer_jax.models.heads import LinearHead, TransformHead
from transformer_jax.models.layers import Tanh

Fields = Callable[[HFConfig], dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Output:
  """Output head of one model class.

  endings   of the class's name in `architectures`; `save` writes the first one
  markers   tensors that identify it if config.json names no class; (): none
  fields    function from the config to fields of the architecture
  table     rows in place of those of the family

  >>> class_name = "BertForMaskedLM"
  >>> output = Output(("ForMaskedLM", "ForPreTraining"), markers=("cls.bias",))
  >>> class_name.endswith(output.endings)
  True
  """

  endings: tuple[str, ...]
  markers: tuple[str, ...] = ()
  fields: Fields = lambda config: {}
  table: Mapping[str, tuple[str, str]] = dataclasses.field(default_factory=dict)


def bare(*endings: str, **fields: Any) -> Output:
  """Returns the output of bare models, whose logits are products with embeddings.

  endings   as in `Output`; (): "Model"
  fields    of the architecture, where they differ from those of models with an output
  """
  fields = {"tied": True, "head": LinearHead()} | fields
  return Output(endings or ("Model",), fields=lambda config: fields)


def marked(
  outputs: Iterable[Output], names: Collection[str], kind: str
) -> Output | None:
  """Returns the first output whose markers are among the names of tensors, or None.

  Raises ValueError if other outputs have the same markers.

  kind   prefix of the class names, before their endings
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
  """Returns the number of a model's classes; 2 if config.json has none."""
  return config.whole("num_labels", len(config.part("id2label").config) or 2)


def of_tokens(
  ending: str,
  name: str,
  bias: bool = True,
  classes: int = 0,
  head: Callable[[HFConfig], LinearHead] | None = None,
) -> Output:
  """Returns the output of a classifier of each token's last state.

  ending    of the class's name
  name      of its projection, [classes, D]
  bias      whether the projection has a bias
  classes   number of classes; 0: that of config.json
  head      function from the config to the whole head; None: the projection alone
  """

  def fields(config: HFConfig) -> dict[str, Any]:
    own = head(config) if head else LinearHead(bias=bias)
    return dict(head=own, classes=classes or labels(config), tied=False)

  return Output((ending,), (f"{name}.weight",), fields, _projection(name))


def of_texts(dense: str, name: str, activation: Callable | None = None) -> Output:
  """Returns the output of a text classifier: a dense layer on the first token.

  dense        name of the dense layer
  name         of the projection, [classes, D]
  activation   function from the config; None: tanh
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


def _projection(name: str) -> NameTable:
  return {
    "output_DV": (f"{name}.weight", "V D"),
    "head/shift_V": (f"{name}.bias", "V"),
  }


# Language models: their tensors are rows of the family's table.
WRITER = Output(("ForCausalLM", "LMHeadModel"))
SCORE = of_tokens("ForSequenceClassification", "score", bias=False)
SPANS = of_tokens("ForQuestionAnswering", "qa_outputs", classes=2)
