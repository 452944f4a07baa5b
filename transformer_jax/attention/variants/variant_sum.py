"""Sums of attention variants: the hooks of all parts, or of the one that decides."""

import dataclasses
import functools
import itertools
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

from transformer_jax.attention.projections import Arrays, Projections
from transformer_jax.attention.variants.base import Variant
from transformer_jax.forwarding import Combined, forward
from transformer_jax.positions import Coords
from transformer_jax.spec import SpecError

ONE_OF = {  # hooks that only one part of a sum may override
  "how queries and keys are made": ("projections",),
  "what is convolved": ("taps", "convolved"),
  "the scale": ("scale",),
  "how a query meets a key": ("dot", "features", "temperature"),
  "which keys a query selects": ("select",),
  "how scores become weights": ("sink_logit", "pointwise", "weigh", "weigh_at"),
  "what is mixed": ("values", "mixed"),
}
SIGNS = "signed", "positive"


@dataclasses.dataclass(frozen=True)
class Sum(Variant):
  """Sum of variants, with the hooks of all parts.

  >>> import transformer_jax as tj
  >>> both = tj.attentions.build("softcap(30) + window(4)")
  >>> [part.name for part in both.parts]
  ['softcap', 'window']
  >>> both.overrides("logits"), both.overrides("mask"), both.overrides("weigh")
  (True, True, False)
  """

  parts: tuple[Variant, ...]

  def __post_init__(self):
    if mixers := [part.name for part in self.parts if part.mixer]:
      raise SpecError(
        f"{mixers[0]} is a mixer, without scores, and nothing can be added to it;"
        f" give it layers of its own, as in alternate({mixers[0]}, multihead, 4)"
      )
    for what, hooks in ONE_OF.items():
      deciding = [p.name for p in self.parts if any(p.overrides(h) for h in hooks)]
      if len(deciding) > 1:
        raise SpecError(
          f"{' and '.join(deciding)} both decide {what}; keep one of them"
        )
    if self.signed and self.positive:
      names = {of: next(p.name for p in self.parts if getattr(p, of)) for of in SIGNS}
      raise SpecError(
        f"{names['signed']} may give negative weights, and {names['positive']} needs"
        " mixtures above zero; keep one of them"
      )
    self._check_widths()
    self._check_convolutions()
    self._check_readers()
    self._check_values()

  def _check_values(self) -> None:
    """Raises SpecError for parts that change values, where no cache keeps them."""
    changes = [p.name for p in self.parts if p.overrides("share")]
    latent = [p.name for p in self.parts if not p.projections().keeps_keys]
    if changes and latent:
      raise SpecError(
        f"{changes[0]} changes the values that a cache keeps, and {latent[0]} keeps"
        " none; use heads, as in multihead or gqa(2)"
      )

  def _check_readers(self) -> None:
    """Raises SpecError for parts that read tokens beside keys of another layer."""
    reads = [p.name for p in self.parts if p.kv_from]
    for part in self.parts if reads else ():
      if any(part.overrides(hook) for hook in ("token_data", "taps", "share")):
        raise SpecError(
          f"{part.name} reads tokens in each layer, and {reads[0]} reads the keys of an"
          " earlier one; write it inside, cross_layer(multihead + value_residual),"
          " or leave it out"
        )

  def _check_widths(self) -> None:
    """Raises SpecError where a head's output is not as wide as the token's value."""
    joins = [p.name for p in self.parts if type(p.projections()).found is not _FOUND]
    reads = [p.name for p in self.parts if p.overrides("own_value")]
    if joins and reads:
      raise SpecError(
        f"{reads[0]} compares the output of a head with the token's value, and"
        f" {joins[0]} makes one output of several heads; keep one of them"
      )

  def _check_convolutions(self) -> None:
    """Raises SpecError where keys or values are convolved that no cache holds."""
    if {*self.convolves} <= {"query"} or self.projections().keeps_keys:
      return
    convolves = next(part.name for part in self.parts if part.convolves)
    makes = next(part.name for part in self.parts if part.overrides("projections"))
    raise SpecError(
      f"{makes} caches no keys and values of heads that {convolves} could convolve;"
      f" write {convolves}(of='q'), or gqa(2) in place of {makes}"
    )

  signed = Combined(any)
  positive = Combined(any)
  rereads = Combined(any)
  convolves = Combined(lambda names: tuple(itertools.chain(*names)))
  untrained = Combined(lambda names: tuple(itertools.chain(*names)))
  mixer = Variant.mixer
  reads_tokens = Combined(any)
  kv_from = Combined("".join)
  kv_as = Combined("".join)
  name = Combined(" + ".join)
  tile_local = Variant.tile_local
  reads_keys = Variant.reads_keys

  def overrides(self, hook: str) -> bool:
    return any(part.overrides(hook) for part in self.parts)

  def decided(self, hook: str, *args: Any) -> Any:
    """Returns the result of the part that overrides the hook, or of plain attention."""
    parts = enumerate(self.parts)
    n, part = next(((n, p) for n, p in parts if p.overrides(hook)), (0, Variant()))
    return getattr(part, hook)(*(_of_part(n, arg) for arg in args))

  def borrow(self, params, weights, projections):
    for part in self.parts:
      params = part.borrow(params, weights, projections)
    return params

  def token_data(self, params, x_BLD, q_BLHK):
    each = (part.token_data(params, x_BLD, q_BLHK) for part in self.parts)
    return _of_sum(each)

  def accumulate(self, params, data, at):
    each = (
      part.accumulate(params, _part_data(n, data), _of_part(n, at))
      for n, part in enumerate(self.parts)
    )
    return _of_sum(each)

  def score(self, params, s_LM, tile):
    for n, part in enumerate(self.parts):
      q_data, k_data = _part_data(n, tile.q_data), _part_data(n, tile.k_data)
      own_tile = dataclasses.replace(tile, q_data=q_data, k_data=k_data)
      s_LM = part.score(params, s_LM, own_tile)
    return s_LM

  def condition(self, params, q_BLHK, k_BMGK):
    for part in self.parts:
      q_BLHK, k_BMGK = part.condition(params, q_BLHK, k_BMGK)
    return q_BLHK, k_BMGK

  def rotated(self, params, q_BLHK, k_BMGK):
    for part in self.parts:
      q_BLHK, k_BMGK = part.rotated(params, q_BLHK, k_BMGK)
    return q_BLHK, k_BMGK

  def reserved(self, kept):
    return {k: v for part in self.parts for k, v in part.reserved(kept).items()}

  def share(self, params, x_BLD, kept, carry):
    for part in self.parts:
      kept, carry = part.share(params, x_BLD, kept, carry)
    return kept, carry

  def logits(self, params, s_LM):
    for part in self.parts:
      s_LM = part.logits(params, s_LM)
    return s_LM

  def output(self, params, x_BLD, o_BLHE):
    for part in self.parts:
      o_BLHE = part.output(params, x_BLD, o_BLHE)
    return o_BLHE

  def own_value(self, params, x_BLD, o_BLHE, v_BLHE):
    for part in self.parts:
      o_BLHE = part.own_value(params, x_BLD, o_BLHE, v_BLHE)
    return o_BLHE

  def mask(self, q_at, k_at):
    masks = (
      part.mask(_of_part(n, q_at), _of_part(n, k_at))
      for n, part in enumerate(self.parts)
    )
    return functools.reduce(jnp.logical_and, masks)

  def weights(self, dims):
    return {k: v for part in self.parts for k, v in part.weights(dims).items()}

  def init(self, key, dims):
    made: list[Arrays] = []
    for part in self.parts:  # each with another key than earlier parts with parameters
      made.append(part.init(jax.random.fold_in(key, len(made)) if made else key, dims))
      made = [arrays for arrays in made if arrays]
    return {name: x for arrays in made for name, x in arrays.items()}

  def refusal(self, encoding):
    reasons = (part.refusal(encoding) for part in self.parts)
    return next((reason for reason in reasons if reason), None)

  def bidirectional(self):
    return Sum(tuple(part.bidirectional() for part in self.parts))

  def cross(self):
    return Sum(tuple(part.cross() for part in self.parts))

  def layer(self, n):
    return Sum(tuple(part.layer(n) for part in self.parts))


_FOUND = Projections.found


def _of_sum(each: Iterable[Arrays]) -> Arrays:
  """Returns the token data of all parts; names start with the number of the part."""
  return {f"{n}.{name}": x for n, data in enumerate(each) for name, x in data.items()}


def _part_data(n: int, data: Arrays) -> Arrays:
  """Returns the token data of part n of a sum, under the names that it gave."""
  start = f"{n}."
  return {k.removeprefix(start): x for k, x in data.items() if k.startswith(start)}


def _of_part(n: int, thing: Any) -> Any:
  """Returns coordinates with the token data of part n of a sum; others as they are."""
  if not isinstance(thing, Coords):
    return thing
  return thing.replace(data=_part_data(n, thing.data))


def _decided(hook: str) -> Any:
  """Returns a hook for which one part decides; None if all parts act."""
  if hook not in {hook for hooks in ONE_OF.values() for hook in hooks}:
    return None
  return lambda self, *args: self.decided(hook, *args)


forward(Sum, Variant, hook=_decided)
