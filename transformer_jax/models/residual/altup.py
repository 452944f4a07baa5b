"""Alternating updates: several residual streams, of which a layer computes one.

Baykal et al., 2023, https://arxiv.org/abs/2301.13310; as in Gemma 3n, 2025,
https://ai.google.dev/gemma/docs/gemma-3n.
"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.axes import whole
from transformer_jax.forwarding import computed
from transformer_jax.matmul import project_by
from transformer_jax.models.residual.base import EMBEDDING, Placement, placements
from transformer_jax.models.residual.norm_placements import PreNorm
from transformer_jax.spec import SpecError

LEAST = 1e-5  # smallest mean square that a stream is divided by
TINY = 1e-30  # the root of 0 has no gradient


@placements.register("altup")
@dataclasses.dataclass(frozen=True)
class AltUp(Placement):
  """Predicts all streams, computes one of them, and corrects all by the difference.

      x'_n = x_n + sum over s of p_ns x_s
      y = layer(x'_active)
      x_n = x'_n + (1 + c_n) (y - x'_active)

  p and c are linear in tanh(router norm(x) / D), of the active stream and of y. The
  first stream begins as the embedding and the others as projections of it, as large;
  after the last layer all are projected back and averaged. What the embeddings of
  layers add, from the active stream times a learned vector, is added to all streams
  but the first.

  inner     placement inside of the layer
  streams   N
  active    stream that the layer computes, from 0
  clip      largest absolute weight of p and c; 0: any
  scaled    False: embeddings of layers read the active stream itself

  >>> residual = placements.build("altup(pre, streams=2)")
  >>> eye_DD = jnp.eye(2)
  >>> x_BLND = residual.open({"into_1_DD": 3 * eye_DD}, jnp.array([[[3.0, 4.0]]]))
  >>> [[round(x, 4) for x in x_D] for x_D in x_BLND[0, 0].tolist()]
  [[3.0, 4.0], [3.0, 4.0]]
  """

  inner: Placement = PreNorm()
  streams: int = 4
  active: int = 0
  clip: float = 0.0
  scaled: bool = True

  def __post_init__(self):
    object.__setattr__(self, "inner", placements.build(self.inner))
    if not whole(self.streams, 2):
      raise SpecError(
        f"altup: streams is {self.streams!r}; write 2 or more, as streams=4"
      )
    if not whole(self.active, 0) or self.active >= self.streams:
      raise SpecError(
        f"altup: active is {self.active!r}; write a stream, from 0 to"
        f" {self.streams - 1}"
      )
    if isinstance(self.clip, bool) or not self.clip >= 0:
      raise SpecError(f"altup: clip is {self.clip!r}; write a number from 0")
    if not isinstance(self.scaled, bool):
      raise SpecError(f"altup: scaled is {self.scaled!r}; write True or False")
    if type(self.inner).open is not Placement.open:
      raise SpecError(
        f"altup: {placements.name_of(self.inner)} has a residual stream of its own"
        " kind, and altup has several; write altup(pre), or it alone"
      )

  @computed
  def final_norm(self) -> bool:
    return self.inner.final_norm

  def layer(self, n):
    return dataclasses.replace(self, inner=self.inner.layer(n))

  def init(self, key, dims, sublayer):
    inner = self.inner.init(key, dims, sublayer)
    if sublayer:
      return inner
    N, D = self.streams, dims.D
    return inner | {
      "router_DR": jax.random.normal(key, (D, N)) * D**-0.5,
      "predict_RSN": jnp.zeros((N, N, N)),
      "correct_RN": jnp.zeros((N, N)),
      **({"scale_D": jnp.ones(D)} if self.scaled else {}),
    }

  def open_init(self, key, dims):
    return self.projections("into", key, dims)

  def close_init(self, key, dims):
    return self.projections("out_of", key, dims)

  def projections(self, name, key, dims):
    """Returns matrices of all streams but the first."""
    keys, D = jax.random.split(key, self.streams), dims.D
    return {
      f"{name}_{n}_DD": jax.random.normal(keys[n], (D, D)) * D**-0.5
      for n in range(1, self.streams)
    }

  def open(self, params, x_BLD):
    others = [
      like(project_by(x_BLD, params, f"into_{n}_DD"), x_BLD)
      for n in range(1, self.streams)
    ]
    return jnp.stack([x_BLD, *others], axis=2)

  def close(self, params, x_BLND):
    first_BLD = x_BLND[:, :, 0]
    others = [
      like(project_by(x_BLND[:, :, n], params, f"out_of_{n}_DD"), first_BLD)
      for n in range(1, self.streams)
    ]
    return sum(others, first_BLD) / self.streams

  def __call__(self, norm, x_BLND, parts):
    params, router_norm = norm.connection(next(iter(parts))), norm("router")

    def route(x_BLD):
      read_BLD = router_norm(x_BLD) / x_BLD.shape[-1]
      return jnp.tanh(project_by(read_BLD, params, "router_DR").astype(jnp.float32))

    dtype, wide_BLND = x_BLND.dtype, x_BLND.astype(jnp.float32)
    predict_BLSN = self.weigh(route(x_BLND[:, :, self.active]), params["predict_RSN"])
    wide_BLND += jnp.einsum("BLSN,BLSD->BLND", predict_BLSN, wide_BLND)
    active_BLD = wide_BLND[:, :, self.active]
    inside = {name: part for name, part in parts.items() if name != EMBEDDING}
    y_BLD = self.inner(norm, active_BLD.astype(dtype), inside)
    correct_BLN = 1 + self.weigh(route(y_BLD), params["correct_RN"])
    change_BLD = y_BLD.astype(jnp.float32) - active_BLD
    wide_BLND += correct_BLN[..., None] * change_BLD[:, :, None]
    x_BLND = wide_BLND.astype(dtype)
    if EMBEDDING not in parts:
      return x_BLND
    read_BLD = x_BLND[:, :, self.active]
    if self.scaled:
      read_BLD = read_BLD * params["scale_D"].astype(dtype)
    update_BLD = norm(f"{EMBEDDING}_update")(parts[EMBEDDING](read_BLD))
    return x_BLND.at[:, :, 1:].add(update_BLD[:, :, None])

  def weigh(self, routed_BLR, w):
    """Returns the weights of streams, linear in what the router gives."""
    w = jnp.clip(w, -self.clip, self.clip) if self.clip else w
    return jnp.tensordot(routed_BLR, w, axes=1)


def like(x_BLD: jax.Array, other_BLD: jax.Array) -> jax.Array:
  """Returns x_BLD with the mean square of another one."""
  x = x_BLD.astype(jnp.float32)
  square = lambda x: jnp.mean(jnp.square(x), axis=-1, keepdims=True)
  size_BL1 = jnp.sqrt(jnp.maximum(square(other_BLD.astype(jnp.float32)), TINY))
  scaled_BLD = x * size_BL1 / jnp.sqrt(jnp.maximum(square(x), LEAST))
  return scaled_BLD.astype(x_BLD.dtype)
