"""One layer of a Transformer: attention and what stands around it."""

import flax.linen as nn

from transformer_jax import attention
from transformer_jax.attention import BoundVariant, Variant
from transformer_jax.attention.cache import newest, remember
from transformer_jax.matmul import project
from transformer_jax.models.architecture import Architecture
from transformer_jax.models.compatibility import form
from transformer_jax.models.parameters import Dropout, Norm, Position, own, weight
from transformer_jax.models.residual import Placement
from transformer_jax.positions import PositionalEncoding


class Attention(nn.Module):
  """Projects, turns, attends and projects back."""

  arch: Architecture
  position: PositionalEncoding
  variant: Variant

  @nn.compact
  def __call__(self, x_BLD, at, shared=None, memory=None, cache=None):
    """Attends to the text itself, or to a memory; returns the update and the cache.

    shared   the encoding with the parameters that all layers share
    """
    if cache is not None and self.variant.rereads:
      raise ValueError(
        f"{self.variant.name} reads earlier queries, which no cache keeps; decode with"
        " empty_cache(model.arch, ...), which reads the text again with each token"
      )
    dims = self.arch.dims
    projections = self.variant.projections().fit(dims)
    w = {
      name: weight(self, name, *shape)
      for name, shape in projections.weights(dims).items()
    } | own(self, projections.init, dims)
    sizes = projections.sizes(dims)
    more = self.variant.weights(sizes)
    params = {name: weight(self, name, *shape) for name, shape in more.items()}
    variant = BoundVariant(self.variant, params | own(self, self.variant.init, sizes))
    mine = self.position.in_layer if shared else _everything
    seen_by = projections.seen_by(dims, self.position)
    position = Position(self.position, seen_by, mine, name="position")(shared)
    position = position.borrow(w)

    q_BLHK = projections.query(w, x_BLD)
    scale = self.variant.scale(variant.params, q_BLHK.shape[-1])
    source_BMD, k_at = memory or (x_BLD, at)
    told = x_BLD, q_BLHK, at
    k_at = position.keep(k_at) if memory else projections.inform(position, *told)
    q_at = position.keep(at).bidirectional() if memory else k_at
    kept = projections.memory(w, source_BMD)

    def turned(q_BLHK, kept, q_at, k_at):
      k_BMGK, v_BMGE = projections.read(w, kept)
      q_BLHK, k_BMGK = self.variant.condition(variant.params, q_BLHK, k_BMGK)
      q_BLHK, k_BMGK = projections.transform_qk(position, q_BLHK, k_BMGK, q_at, k_at)
      v_BMGE = self.variant.values(variant.params, v_BMGE)
      return q_BLHK, {"key": k_BMGK, "value": v_BMGE}

    once = projections.keeps_keys and position.rotates_once(k_at)
    # Queries then wait, for they may be turned by what the cache knows of the text.
    frozen = cache is not None and cache.frozen and not once
    frozen &= projections.keeps_keys and position.rotates_early(k_at)
    if once:
      q_BLHK, kept = turned(q_BLHK, kept, q_at, k_at)
    elif frozen:
      kept = turned(q_BLHK, kept, q_at, k_at)[1]
    kept, k_at, cache = remember(cache, kept, k_at)
    k_at, L = position.accumulate(k_at), x_BLD.shape[1]
    q_at = q_at if memory else newest(k_at, cache, L)
    if frozen:
      q_BLHK = turned(q_BLHK, kept, q_at, k_at)[0]
    elif not once:
      q_BLHK, kept = turned(q_BLHK, kept, q_at, k_at)
    attended = q_BLHK, kept["key"], kept["value"], q_at, k_at, position, scale
    out_BLHE = self.arch.core(*attended, variant, self.drop())
    out_BLHE = projections.found(w, self.variant.mixed(variant.params, out_BLHE))
    out_BLHE = self.variant.output(variant.params, x_BLD, out_BLHE)
    return projections.out(w, out_BLHE, x_BLD), cache

  def drop(self):
    """Returns what drops weights in training, or None."""
    rate = self.arch.attention_dropout
    if not rate or not self.has_rng("dropout"):
      return None
    return attention.Dropout(self.make_rng("dropout"), rate, self.arch.axis)


class FeedForward(nn.Module):
  """Two projections with an activation between them, or three if it is gated."""

  arch: Architecture

  @nn.compact
  def __call__(self, x_BLD):
    D, F = self.arch.dims.D, self.arch.dims.F
    inner = [self.project("in", "DF", (D, F), x_BLD)]
    if self.arch.activation.gated:
      inner.append(self.project("gate", "DF", (D, F), x_BLD))
    return self.project("out", "FD", (F, D), self.arch.activation(*inner))

  def project(self, name, axes, shape, x):
    y = project(x, weight(self, f"{name}_{axes}", shape), 1)
    if not self.arch.feedforward_bias:
      return y
    return y + weight(self, f"{name}_shift_{axes[1]}", shape[1:], 0).astype(y.dtype)


class Block(nn.Module):
  """Attention to the text, attention to a memory if there is one, feed-forward."""

  arch: Architecture
  position: PositionalEncoding
  variant: Variant
  norm_placement: Placement

  @nn.compact
  def __call__(self, x_BLD, at, shared, memory, cache):
    kept = []
    drop = Dropout(self.arch.dropout, self.arch.axis)
    norm = lambda name: Norm(self.arch.norm, name=f"{name}_norm")

    def attend(x_BLD):
      own = Attention(self.arch, self.position, self.variant, name="attention")
      update_BLD, cache_after = own(x_BLD, at, shared, cache=cache)
      kept.append(cache_after)
      return drop(update_BLD)

    def cross(x_BLD):
      position, variant = (form(x, "cross") for x in (self.position, self.variant))
      own = Attention(self.arch, position, variant, name="cross")
      return drop(own(x_BLD, at, memory=memory)[0])

    think = lambda x_BLD: drop(FeedForward(self.arch, name="feedforward")(x_BLD))
    reads = {} if memory is None else {"cross": cross}
    parts = {"attention": attend} | reads | {"feedforward": think}
    return self.norm_placement(norm, x_BLD, parts), kept[0]


def _everything(name: str) -> bool:
  return True
