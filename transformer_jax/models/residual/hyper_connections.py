"""Hyper-connections: several residual streams, mixed before and after each sublayer.

Zhu et al., 2024, https://arxiv.org/abs/2409.19606; on the manifold of doubly stochastic
matrices: Xie et al., 2025, https://arxiv.org/abs/2512.24880.
"""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp

from transformer_jax.axes import axes_of, whole
from transformer_jax.matmul import einsum, whole_along_width
from transformer_jax.models.residual.base import Placement, placements
from transformer_jax.normalization import rms_norm
from transformer_jax.spec import SpecError


class Streams(Placement):
  """Base class of placements with N residual streams, x_BLND.

  A subclass computes from the streams what a sublayer reads, the weights of its result
  in each stream, and the streams mixed with one another.

  >>> placements.build("hyper_connections").open({}, jnp.ones((1, 2, 4))).shape
  (1, 2, 4, 4)
  """

  streams: int

  def __post_init__(self):
    if not whole(self.streams, 1):
      raise SpecError(
        f"streams is {self.streams!r}; write a number of residual streams, as streams=4"
      )

  def open(self, params, x_BLD):
    x_BL1D = x_BLD[:, :, None]
    B, L, _, D = x_BL1D.shape
    return jnp.broadcast_to(x_BL1D, (B, L, self.streams, D))

  def weights(self, params, x_BLND):
    """Returns (read_BLN, write_BLN, mix_BLNS), float32; mix is from stream N to S."""
    raise NotImplementedError

  def __call__(self, norm, x_BLND, parts):
    dtype = x_BLND.dtype
    for name, part in parts.items():
      params = norm.connection(name)
      wide_BLND = x_BLND.astype(jnp.float32)
      read_BLN, write_BLN, mix_BLNS = self.weights(params, wide_BLND)
      read_BLD = jnp.einsum("BLN,BLND->BLD", read_BLN, wide_BLND).astype(dtype)
      update_BLD = part(norm(name)(read_BLD)).astype(jnp.float32)
      kept_BLSD = jnp.einsum("BLNS,BLND->BLSD", mix_BLNS, wide_BLND)
      x_BLND = kept_BLSD + write_BLN[..., None] * update_BLD[:, :, None]
      x_BLND = x_BLND.astype(dtype)
    return x_BLND


@placements.register("hyper_connections")
@dataclasses.dataclass(frozen=True)
class HyperConnections(Streams):
  """Streams read, written and mixed by weights that depend on the token.

      read_n = a_n + s tanh(u x_n),   mix_ns = A_ns + s tanh(U_s x_n),
      write_n = b_n + s' tanh(v x_n),   x_n normalized

  Each sublayer begins by reading one stream, writing to all and mixing none. The
  streams are summed after the last layer.

  streams   N
  dynamic   weights depend on the token
  tanh      as in the equations; False: without it
  first     number of the layer

  >>> from transformer_jax.axes import Dims
  >>> start = placements.build("hyper_connections").layer(1).init
  >>> start(jax.random.key(0), Dims(V=2, D=4, H=1, F=2, L=2), 0)["read_N"].tolist()
  [0.0, 0.0, 1.0, 0.0]
  """

  streams: int = 4
  dynamic: bool = True
  tanh: bool = True
  first: int = 0
  sublayers: ClassVar[int] = 2  # of a layer, in the count of streams that are read

  def layer(self, n):
    return dataclasses.replace(self, first=n)

  def init(self, key, dims, sublayer):
    N, D = self.streams, dims.D
    read = (self.sublayers * self.first + sublayer) % N
    start = {
      "read_N": jnp.zeros(N).at[read].set(1.0),
      "mix_NN": jnp.eye(N),
      "write_N": jnp.ones(N),
    }
    if not self.dynamic:
      return start
    return start | {
      "norm_gain_D": jnp.ones(D),
      "token_read_D": jnp.zeros(D),
      "token_mix_DN": jnp.zeros((D, N)),
      "token_write_D": jnp.zeros(D),
      "read_scale": jnp.asarray(0.01),
      "write_scale": jnp.asarray(0.01),
    }

  def weights(self, params, x_BLND):
    read_N, write_N, mix_NN = (params[n] for n in ("read_N", "write_N", "mix_NN"))
    of_token = {"read": 0.0, "write": 0.0, "mix": 0.0}
    if self.dynamic:
      of_token = self._of_token(params, x_BLND)
    zero_BL1 = jnp.zeros((*x_BLND.shape[:2], 1))
    read_BLN = zero_BL1 + read_N + of_token["read"]
    write_BLN = zero_BL1 + write_N + of_token["write"]
    return read_BLN, write_BLN, zero_BL1[..., None] + mix_NN + of_token["mix"]

  def _of_token(self, params, x_BLND):
    """Returns what a token adds to each kind of weights."""
    x_BLND = rms_norm(x_BLND, params["norm_gain_D"], 1e-12)
    wide_BLND = x_BLND.astype(jnp.float32)
    scores = {
      "read": jnp.einsum("BLND,D->BLN", x_BLND, params["token_read_D"]),
      "write": jnp.einsum("BLND,D->BLN", x_BLND, params["token_write_D"]),
      "mix": einsum("BLND,DS->BLNS", wide_BLND, params["token_mix_DN"]),
    }
    scales = {"write": params["write_scale"]}
    bounded = {name: jnp.tanh(x) if self.tanh else x for name, x in scores.items()}
    return {n: scales.get(n, params["read_scale"]) * x for n, x in bounded.items()}

  def close(self, params, x_BLND):
    return jnp.sum(x_BLND, axis=2)


@placements.register("mhc")
@dataclasses.dataclass(frozen=True)
class ManifoldHyperConnections(Streams):
  """Streams mixed by doubly stochastic matrices, which keep their sum.

      z = x / rms(x), of all streams together
      read = sigmoid(s_0 F z + c) + eps,   write = 2 sigmoid(s_1 G z + d)
      mix = Sinkhorn(softmax(s_2 H z + e) + eps)

  As in DeepSeek-V4: a last read, with its own weights, joins the streams at the end.

  streams      N
  iterations   of Sinkhorn's normalization of columns and rows
  epsilon      eps

  >>> from transformer_jax.axes import Dims
  >>> start = placements.build("mhc").init
  >>> start(jax.random.key(0), Dims(V=2, D=4, H=1, F=2, L=2), 0)["read_NDN"].shape
  (4, 4, 4)
  """

  streams: int = 4
  iterations: int = 20
  epsilon: float = 1e-6

  def __post_init__(self):
    super().__post_init__()
    if not whole(self.iterations, 1):
      raise SpecError(
        f"mhc: iterations is {self.iterations!r}; write a number from 1, as"
        " iterations=20"
      )

  def init(self, key, dims, sublayer):
    N, keys = self.streams, jax.random.split(key, 3)
    return {
      "read_NDN": _projection(keys[0], N, dims.D, N),
      "write_NDN": _projection(keys[1], N, dims.D, N),
      "mix_NDNN": _projection(keys[2], N, dims.D, N, N),
      "read_shift_N": jnp.full(N, _logit(1 / N)),
      "write_shift_N": jnp.zeros(N),
      "mix_shift_NN": 4.0 * jnp.eye(N),
      **{f"{name}_scale": jnp.asarray(0.01) for name in ("read", "write", "mix")},
    }

  def weights(self, params, x_BLND):
    z_BLND = _normalized(x_BLND)
    read_BLN = self._read(params, z_BLND)
    score_BLN = _scores(params, "write", z_BLND)
    score_BLNS = _scores(params, "mix", z_BLND)
    return read_BLN, 2 * jax.nn.sigmoid(score_BLN), self._sinkhorn(score_BLNS)

  def _read(self, params, z_BLND):
    return jax.nn.sigmoid(_scores(params, "read", z_BLND)) + self.epsilon

  def _sinkhorn(self, score_BLNS):
    """Returns matrices whose rows and columns have a sum of 1."""
    mix_BLNS = jax.nn.softmax(score_BLNS, axis=-1) + self.epsilon
    for n in range(2 * self.iterations - 1):
      total = jnp.sum(mix_BLNS, axis=-1 if n % 2 else -2, keepdims=True)
      mix_BLNS = mix_BLNS / (total + self.epsilon)
    return mix_BLNS

  def close_init(self, key, dims):
    N = self.streams
    return {
      "read_NDN": _projection(key, N, dims.D, N),
      "read_shift_N": jnp.full(N, _logit(1 / N)),
      "read_scale": jnp.asarray(0.01),
    }

  def close(self, params, x_BLND):
    wide_BLND = x_BLND.astype(jnp.float32)
    read_BLN = self._read(params, _normalized(wide_BLND))
    return jnp.einsum("BLN,BLND->BLD", read_BLN, wide_BLND).astype(x_BLND.dtype)


def _projection(key, N, D, *out):
  return jax.random.normal(key, (N, D, *out)) * (N * D) ** -0.5


def _logit(x):
  return math.log(x / (1 - x)) if x < 1 else 4.0


def _normalized(x_BLND):
  """Returns x / rms(x), of all streams of a token together."""
  mean = jnp.mean(jnp.square(x_BLND), axis=(2, 3), keepdims=True)
  return x_BLND * jax.lax.rsqrt(mean + 1e-6)


def _scores(params, name, z_BLND):
  """Returns scale W z + shift, of the weights of one name."""
  (matrix,) = (n for n in params if n.startswith(f"{name}_ND"))
  (shift,) = (x for n, x in params.items() if n.startswith(f"{name}_shift_"))
  weight = params[matrix]
  weight = whole_along_width(weight, axes_of(matrix), weight.dtype)
  w = jnp.einsum("BLND,NDE->BLE", z_BLND, weight.reshape(*weight.shape[:2], -1))
  return params[f"{name}_scale"] * w.reshape(*w.shape[:2], *shift.shape) + shift
