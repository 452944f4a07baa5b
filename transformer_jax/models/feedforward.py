"""Feed-forward layers: dense ones, and experts."""

import functools
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from transformer_jax.axes import axes_of
from transformer_jax.matmul import einsum, project
from transformer_jax.models.architecture import Architecture
from transformer_jax.models.canon import UNITS, no_convolution
from transformer_jax.models.expert_load import record_load
from transformer_jax.models.feedforward_kinds import FeedForwardKind
from transformer_jax.models.parameters import parameter, weight

ROUTER, BIAS, SHARED = "router_DX", "router_bias_X", "shared_mix_D1"


class FeedForward(nn.Module):
  """Feed-forward layer: two projections with an activation, or three if it is gated.

  kind   dense, or experts with a router

  >>> from transformer_jax.axes import Dims
  >>> dims = Dims(V=5, D=8, H=2, F=16, L=8)
  >>> arch = Architecture(dims, "rope", activation="swiglu", decoders=1)
  >>> x_BLD = jnp.ones((1, 3, 8))
  >>> shapes = jax.eval_shape(FeedForward(arch).init, jax.random.key(0), x_BLD)
  >>> {name: x.shape for name, x in shapes["params"].items()}
  {'gate_DF': (8, 16), 'in_DF': (8, 16), 'out_FD': (16, 8)}
  """

  arch: Architecture
  kind: FeedForwardKind = FeedForwardKind()

  @nn.compact
  def __call__(self, x_BLD, along=no_convolution, at=None):
    """Returns the update of the residual stream.

    x_BLD   normalized input
    along   convolutions of the layer, for hidden units
    at      coordinates of the tokens; None: none is padding
    """
    if self.kind.experts:
      return self.of_experts(x_BLD, at)
    return self.dense("", self.arch.dims.F, x_BLD, along)

  def dense(self, prefix, F, x_BLD, along=no_convolution):
    """Returns the output of one feed-forward layer with F hidden units."""
    D, activation = self.arch.dims.D, self.arch.activation
    inner_BLF = self.project(f"{prefix}in", "DF", (D, F), x_BLD)
    inner_BLF = along(UNITS, "in", inner_BLF)
    if activation.gated:
      gate_BLF = self.project(f"{prefix}gate", "DF", (D, F), x_BLD)
      gate_BLF = along(UNITS, "gate", gate_BLF)
      inner_BLF = activation(inner_BLF, self.kind.sparsify(gate_BLF))
    else:
      inner_BLF = activation(self.kind.sparsify(inner_BLF))
    return self.project(f"{prefix}out", "FD", (F, D), inner_BLF)

  def project(self, name, axes, shape, x):
    matrix = f"{name}_{axes}"
    y = project(x, weight(self, matrix, shape), 1, matrix)
    if not self.arch.feedforward_bias:
      return y
    return y + weight(self, f"{name}_shift_{axes[1]}", shape[1:], 0).astype(y.dtype)

  def of_experts(self, x_BLD, at):
    """Returns the weighted outputs of all experts, and that of the shared one."""
    weight_BLX, _ = self.route(x_BLD)
    record_load(self, BIAS, weight_BLX, at, self.kind.balance_rate)
    y_BLD = self.experts(weight_BLX.astype(x_BLD.dtype), x_BLD)
    if not self.kind.shared:
      return y_BLD
    shared_BLD = self.dense("shared_", self.kind.shared, x_BLD)
    if self.kind.shared_gate:
      mix_D1 = weight(self, SHARED, (x_BLD.shape[-1], 1))
      logit_BL1 = project(x_BLD, mix_D1, 1, SHARED)
      shared_BLD *= jax.nn.sigmoid(logit_BL1)
    return y_BLD + shared_BLD

  def route(self, x_BLD):
    """Returns (weight_BLX, share_BLX) of the experts of each token: see `Experts`."""
    D, X = self.arch.dims.D, self.kind.experts
    router_DX = weight(self, ROUTER, (D, X))
    logits_BLX = project(x_BLD.astype(jnp.float32), router_DX, 1, ROUTER)
    if self.arch.feedforward_bias:
      logits_BLX += weight(self, "router_shift_X", (X,), 0)
    bias_X = weight(self, BIAS, (X,), 0) if self.kind.bias else None
    return self.kind.route(logits_BLX, bias_X)

  def experts(self, weight_BLX, x_BLD):
    """Returns the sum of the experts' outputs, y_BLD.

    weight_BLX   of each expert; 0: its output does not count
    x_BLD        input of all of them
    """
    activation, weight_BLX1 = self.arch.activation, weight_BLX[..., None]
    names = ("in", "gate") if activation.gated else ("in",)
    read = weight_BLX1 if self.kind.scaled_input else None
    h_BLXF = activation(*(self.into_experts(name, read, x_BLD) for name in names))
    (X, F), D = h_BLXF.shape[-2:], x_BLD.shape[-1]
    count_BLX1 = weight_BLX1 if read is None else (weight_BLX1 > 0).astype(x_BLD.dtype)
    out_XFD = parameter(self, "out_XFD", _start((X, F, D)))
    y_BLD = einsum("BLXF,XFD->BLD", h_BLXF * count_BLX1, out_XFD)
    if self.arch.feedforward_bias:
      shift_XD = weight(self, "out_shift_XD", (X, D), 0)
      y_BLD += einsum("BLX,XD->BLD", count_BLX1[..., 0], shift_XD)
    return y_BLD

  def into_experts(self, name, read, x_BLD):
    """Returns a projection to the hidden units of all experts, h_BLXF.

    name    in or gate
    read    factor on each expert's input, or None
    x_BLD   input of all of them
    """
    D, X, F = x_BLD.shape[-1], self.kind.experts, self.kind.width or self.arch.dims.F
    in_XDF = parameter(self, f"{name}_XDF", _start((X, D, F)))
    h_BLXF = einsum("BLD,XDF->BLXF", x_BLD, in_XDF)
    h_BLXF = h_BLXF if read is None else h_BLXF * read
    if self.arch.feedforward_bias:
      h_BLXF += weight(self, f"{name}_shift_XF", (X, F), 0).astype(h_BLXF.dtype)
    return h_BLXF


@functools.lru_cache(maxsize=256)
def _start(shape: tuple[int, int, int]) -> Any:
  """Returns the initializer of all experts' matrices, each scaled by its input."""
  init = nn.initializers.lecun_normal(in_axis=1, out_axis=2, batch_axis=(0,))
  return jax.jit(lambda key: init(key, shape))


def active_parameters(arch: Architecture, params: Mapping[str, Any]) -> int:
  """Returns the number of parameters that one token is computed with.

  arch     of the model
  params   parameters or their shapes by path, without an axis of seeds

  >>> from transformer_jax.axes import Dims
  >>> dims = Dims(V=5, D=8, H=2, F=16, L=8)
  >>> arch = Architecture(dims, "rope", feedforward_kind="experts(4, 1)", decoders=1)
  >>> path = "decoder/layer_0/feedforward/"
  >>> shapes = {"router_DX": jnp.ones((8, 4)), "in_XDF": jnp.ones((4, 8, 16))}
  >>> active_parameters(arch, {path + name: x for name, x in shapes.items()})
  160
  """
  return sum(
    round(math.prod(x.shape) * _used(arch, path)) for path, x in params.items()
  )


def _used(arch: Architecture, path: str) -> float:
  """Returns the share of an array that one token reads."""
  *_, layer, part, name = ("", "", *path.split("/"))
  if (
    part != "feedforward" or not axes_of(name).startswith("X") or len(axes_of(name)) < 2
  ):
    return 1.0
  number = layer.removeprefix("layer_")
  kind = arch.feedforward_kind.layer(int(number) if number.isdecimal() else 0)
  return kind.active / kind.experts
