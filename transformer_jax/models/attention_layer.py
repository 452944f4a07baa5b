"""Attention of a layer: its projections and parameters, and the call of the core."""

import flax.linen as nn

from transformer_jax import attention
from transformer_jax.attention import BoundVariant, Variant
from transformer_jax.attention.carry import Carry
from transformer_jax.models.architecture import Architecture
from transformer_jax.models.bound_attention import BoundAttention
from transformer_jax.models.parameters import Position, own, weights
from transformer_jax.positions import PositionalEncoding

NOTHING = Carry()


class Attention(nn.Module):
  """Multi-head attention with its projections, of one text or between two.

  >>> import jax
  >>> from transformer_jax.axes import Dims
  >>> from transformer_jax.positions import coords
  >>> dims = Dims(V=5, D=8, H=4, F=16, L=8)
  >>> arch = Architecture(dims, "rope", attention="gqa(2)", decoders=1)
  >>> layer = Attention(arch, arch.position, arch.attention)
  >>> args = jax.numpy.ones((1, 3, 8)), coords.consecutive(1, 3)
  >>> shapes = jax.eval_shape(layer.init, jax.random.key(0), *args)["params"]
  >>> shapes["query_DHK"].shape, shapes["key_DGK"].shape
  ((8, 4, 2), (8, 2, 2))
  """

  arch: Architecture
  position: PositionalEncoding
  variant: Variant

  @nn.compact
  def __call__(self, x_BLD, at, shared=None, memory=None, cache=None, carry=NOTHING):
    """Returns (update_BLD, cache, carry): attention to the text itself, or to a memory.

    x_BLD    normalized input
    at       coordinates of its tokens
    shared   the encoding with the parameters that all layers share, or None
    memory   (x_BMD, coordinates) of an encoder's output, or None: self-attention
    cache    of this layer while decoding, or None
    carry    what earlier layers handed on
    """
    self._check(cache)
    bound = self._bound(shared)
    q_BLHK = bound.query(x_BLD)
    scale = self.variant.scale(bound.variant.params, q_BLHK.shape[-1])
    if memory is not None:
      q_BLHK, read = bound.of_memory(q_BLHK, x_BLD, at, memory)
    elif self.variant.kv_from:
      q_BLHK, read = bound.of_earlier_layer(q_BLHK, carry)
    else:
      q_BLHK, read, cache, carry = bound.of_text(q_BLHK, x_BLD, at, cache, carry)

    out_BLHE = self.arch.core(
      bound.variant.temper(q_BLHK, read.q_at), read.kv["key"], read.kv["value"],
      read.q_at, read.k_at, bound.position, scale, bound.variant, self._dropout(),
    )  # fmt: skip
    return bound.output(out_BLHE, x_BLD, read), cache, carry

  def _bound(self, shared):
    """Returns attention with the parameters of this layer."""
    projections = self.variant.projections().fit(self.arch.dims)
    w = self._projection_weights(projections)
    variant = self._bound_variant(projections).borrow(w, projections)
    position = self._bound_position(projections, shared).borrow(w)
    return BoundAttention(projections, w, variant, position, self.arch.dims.H)

  def _check(self, cache):
    """Raises ValueError where a variant reads earlier queries, which are not cached."""
    if cache is not None and self.variant.rereads:
      raise ValueError(
        f"{self.variant.name} reads earlier queries, which no cache keeps; decode with"
        " empty_cache(model.arch, ...), which reads the text again with each token"
      )

  def _projection_weights(self, projections):
    """Returns the weights of queries, keys, values and the output."""
    dims = self.arch.dims
    w = weights(self, projections.weights(dims))
    return w | own(self, projections.init, dims)

  def _bound_variant(self, projections):
    """Returns the variant with its parameters."""
    dims = projections.sizes(self.arch.dims)
    params = weights(self, self.variant.weights(dims))
    return BoundVariant(self.variant, params | own(self, self.variant.init, dims))

  def _bound_position(self, projections, shared):
    """Returns the encoding with its parameters, shared ones included."""
    dims = projections.encoding_dims(self.arch.dims, self.position)
    owns = self.position.in_layer if shared else _every_parameter
    return Position(self.position, dims, owns, name="position")(shared)

  def _dropout(self):
    """Returns the dropout of attention weights in training, or None."""
    rate = self.arch.attention_dropout
    if not rate or not self.has_rng("dropout"):
      return None
    return attention.KeyedDropout(self.make_rng("dropout"), rate, self.arch.part)


def _every_parameter(name: str) -> bool:
  return True
