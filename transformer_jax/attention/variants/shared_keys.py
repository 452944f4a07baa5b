"""Variants whose keys and values an earlier layer makes, and one that makes them."""

import dataclasses

from transformer_jax.attention.projections import Projections
from transformer_jax.attention.variants.base import Variant
from transformer_jax.attention.variants.variant_sum import Sum
from transformer_jax.forwarding import computed, forward, of_field
from transformer_jax.spec import SpecError

SLOT = "kv"  # name in the carry, unless there are several


@dataclasses.dataclass(frozen=True)
class QueryOnly(Projections):
  """Projections without keys and values: those of another layer are read.

  inner   projections with them

  >>> import transformer_jax as tj
  >>> dims = tj.Dims(V=2, D=64, H=8, F=64, L=8)
  >>> list(QueryOnly(tj.attentions.build("gqa(2)").projections()).weights(dims))
  ['query_DHK', 'out_HKD']
  """

  inner: Projections

  def weights(self, dims):
    own = self.inner.weights(dims).items()
    return {n: shape for n, shape in own if not n.startswith(("key_", "value_"))}

  def fit(self, dims):
    return dataclasses.replace(self, inner=self.inner.fit(dims))

  def memory(self, w, x_BMD):
    return {}

  def kept_shapes(self, dims, x_BMD):
    return {}

  weight_shapes = Projections.weight_shapes


forward(QueryOnly, Projections, hook=of_field("inner"), value=of_field("inner"))


@dataclasses.dataclass(frozen=True)
class _SharesKeys(Variant):
  """Base class of variants that share keys and values with other layers.

  inner   the attention
  slot    name in the carry
  """

  inner: Variant
  slot: str = SLOT

  @property
  def name(self):
    return self.inner.name

  def overrides(self, hook):
    return self.inner.overrides(hook)

  def bidirectional(self):
    return dataclasses.replace(self, inner=self.inner.bidirectional())

  def cross(self):
    return self.inner.cross()

  def layer(self, n):
    return dataclasses.replace(self, inner=self.inner.layer(n))


forward(_SharesKeys, Variant, hook=of_field("inner"), value=of_field("inner"))


@dataclasses.dataclass(frozen=True)
class WritesKeys(_SharesKeys):
  """Attention whose keys and values later layers may read.

  inner   the attention
  slot    name under which they are found

  >>> WritesKeys(Variant(), "global").kv_as
  'global'
  """

  @computed
  def kv_as(self) -> str:
    return self.slot


@dataclasses.dataclass(frozen=True)
class ReadsKeys(_SharesKeys):
  """Attention to the keys and values of an earlier layer: it caches none of its own.

  inner   the attention
  slot    name under which they were written

  >>> ReadsKeys(Variant(), "global").kv_from
  'global'
  """

  def __post_init__(self):
    if self.inner.mixer or not self.inner.projections().keeps_keys:
      raise SpecError(
        f"{self.inner.name} keeps no keys and values that another layer could read; use"
        " heads, as in multihead or gqa(2)"
      )
    object.__setattr__(self, "inner", _without_own_keys(self.inner))
    _check_reader(self.inner)

  @computed
  def kv_from(self) -> str:
    return self.slot

  def projections(self):
    return QueryOnly(self.inner.projections())

  def overrides(self, hook):
    return hook == "projections" or self.inner.overrides(hook)

  def refusal(self, encoding):
    if encoding.overrides("token_data"):
      return (
        f"{encoding.name} reads features of tokens in each layer, and {self.name} reads"
        " the keys of an earlier one; use an encoding of positions"
      )
    return self.inner.refusal(encoding)


def _check_reader(variant: Variant) -> None:
  """Raises SpecError for a variant that reads tokens in each layer."""
  if variant.overrides("taps"):
    raise SpecError(
      f"{variant.name} mixes queries and keys along the text, and layers that read"
      " another one's keys have no cache for that; use attention without short_conv"
    )
  if variant.overrides("token_data"):
    raise SpecError(
      f"{variant.name} reads tokens in each layer, and layers that read another one's"
      " keys have none of their own; use another attention for all of them"
    )


def _without_own_keys(variant: Variant) -> Variant:
  """Returns a variant without the parts that change keys and values of its own."""
  parts = variant.parts if isinstance(variant, Sum) else (variant,)
  left = tuple(part for part in parts if not part.overrides("share"))
  if left == parts:
    return variant
  return Sum(left) if len(left) > 1 else next(iter(left), Variant())
