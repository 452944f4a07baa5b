"""Base classes of auxiliary losses, and their registry."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from transformer_jax.spec import Registry
from transformer_jax.training.auxiliary.training_pass import TrainingPass, stack_of

LOG_Z, HIDDEN = "log_z", "hidden"  # places after the layers
Where = Literal["all", "encoder", "decoder", "cross"]


class AuxiliaryLoss:
  """Base class of losses that training adds to the cross-entropy, times `weight`.

  Subclasses are frozen dataclasses of numbers, texts and tuples. Evaluation knows
  nothing of them.

  places   arrays of the forward pass that the loss reads: those of `capture.run`, and
           `log_z`, at path `output`: log_z_BL, the log of the sum of the exponentials
           of each token's logits, in float32; and `hidden`, at path `output`: a
           `Hidden`, of which logits are made

  causal        it needs a decoder, whose tokens do not read later ones
  whole_batch   it is no sum over examples, and refused where a batch is computed in
                parts

  Scores, masks and weights of attention are those of the core `dense`.

  >>> z_loss = auxiliary_losses.build("z_loss(weight=0.001)")
  >>> z_loss.places, z_loss.weight
  (('log_z',), 0.001)
  """

  places: ClassVar[tuple[str, ...]] = ()
  whole_batch: ClassVar[bool] = False
  causal: ClassVar[bool] = False
  weight: float = 1.0

  def init(self, key: jax.Array, D: int) -> dict[str, jax.Array]:
    """Returns parameters of the loss by name, which only training has; {}: none.

    key   of their random numbers
    D     width of the model's last layer
    """
    return {}

  def loss(self, arrays: TrainingPass) -> jax.Array:
    """Returns the loss of a batch, a number, before it is multiplied by `weight`.

    It is a sum over the examples, divided by numbers of the whole batch, as
    `arrays.mean` is: where a batch is computed in parts, their losses are added.

    Raises ValueError where it is undefined for the model.
    """
    raise NotImplementedError


class AttentionLoss(AuxiliaryLoss):
  """Base class of losses that are a mean over attention layers.

  where   all attention layers, or those of the `encoder`, of the `decoder` to itself,
          or `cross` from decoder to encoder

  >>> class Longest(AttentionLoss):
  ...   where = "decoder"
  >>> layers = {"decoder/layer_0/attention": 1, "decoder/layer_0/cross": 2}
  >>> [*Longest().layers(layers)]
  [('decoder/layer_0/attention', 1)]
  """

  where: Where = "all"

  def layers(self, arrays: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yields (path, array) of the attention layers that the loss reads."""
    for path, x in arrays.items():
      if self.where in ("all", _part(path)):
        yield path, x

  def mean_of_layers(
    self, arrays: TrainingPass, place: str, function: Any, keys: bool = False
  ) -> jax.Array:
    """Returns the mean over layers and tokens of a function of a layer's array.

    place      of the array
    function   from the array to one number for each token, [B, L]
    keys       the tokens are keys, not queries

    Raises ValueError without a layer.
    """
    found = [*self.layers(arrays.captured[place])]
    if not found:
      there = {_part(path) for path in arrays.captured[place]}
      choose = " or ".join(f"where={part}" for part in sorted(there))
      raise ValueError(
        f"the model has no attention layer of where='{self.where}'; write {choose}"
        if there
        else "the model has no attention; leave the loss out"
      )
    means = [arrays.mean(function(x), stack_of(path, keys)) for path, x in found]
    return jnp.mean(jnp.stack(means))


def _part(path: str) -> str:
  """Returns the part of a model that an attention layer is of, as in `where`."""
  first, *_, last = path.split("/")
  return last if last == "cross" else first


auxiliary_losses = Registry("auxiliary loss", AuxiliaryLoss)
