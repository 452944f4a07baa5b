"""Activations of feed-forward layers."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from transformer_jax.spec import Registry


class Activation:
  """Base class of activations of a feed-forward layer.

  gated   False: called with h_BLF; True: with h_BLF and a second projection, gate_BLF

  >>> [name for name, kind in activations.items() if kind.gated]
  ['geglu', 'swiglu']
  """

  gated: ClassVar[bool] = False

  def __call__(self, *args: Any, **kwargs: Any) -> jax.Array:
    """Returns h_BLF, the activated hidden units."""
    raise NotImplementedError


activations = Registry("activation", Activation)


@activations.register("relu")
@dataclasses.dataclass(frozen=True)
class Relu(Activation):
  """max(x, 0), as in Vaswani et al., 2017. https://arxiv.org/abs/1706.03762

  >>> activations.build("relu")(jnp.array([-1.0, 0.0, 2.0])).tolist()
  [0.0, 0.0, 2.0]
  """

  def __call__(self, h_BLF: jax.Array) -> jax.Array:
    return jax.nn.relu(h_BLF)


@activations.register("relu_squared")
@dataclasses.dataclass(frozen=True)
class ReluSquared(Activation):
  """max(x, 0)^2: Primer. So et al., 2021. https://arxiv.org/abs/2109.08668

  >>> activations.build("relu_squared")(jnp.array([-1.0, 0.0, 2.0])).tolist()
  [0.0, 0.0, 4.0]
  """

  def __call__(self, h_BLF: jax.Array) -> jax.Array:
    return jnp.square(jax.nn.relu(h_BLF))


@activations.register("gelu")
@dataclasses.dataclass(frozen=True)
class Gelu(Activation):
  """x times the normal distribution function. https://arxiv.org/abs/1606.08415

  approximate   by tanh, as in GPT-2; False: exact, as in BERT

  >>> h_F = jnp.array([-1.0, 1.0])
  >>> [round(x, 4) for x in activations.build("gelu")(h_F).tolist()]
  [-0.1588, 0.8412]
  >>> [round(x, 4) for x in activations.build("gelu(approximate=False)")(h_F).tolist()]
  [-0.1587, 0.8413]
  """

  approximate: bool = True

  def __call__(self, h_BLF: jax.Array) -> jax.Array:
    return jax.nn.gelu(h_BLF, approximate=self.approximate)


@activations.register("quick_gelu")
@dataclasses.dataclass(frozen=True)
class QuickGelu(Activation):
  """x sigmoid(1.702 x). https://arxiv.org/abs/1606.08415

  >>> h_F = activations.build("quick_gelu")(jnp.array([-1.0, 1.0]))
  >>> [round(x, 4) for x in h_F.tolist()]
  [-0.1542, 0.8458]
  """

  def __call__(self, h_BLF: jax.Array) -> jax.Array:
    return h_BLF * jax.nn.sigmoid(1.702 * h_BLF)


@activations.register("tanh")
@dataclasses.dataclass(frozen=True)
class Tanh(Activation):
  """Between -1 and 1: the dense layer before BERT's classes. Devlin et al., 2019.

  https://arxiv.org/abs/1810.04805

  >>> h_F = activations.build("tanh")(jnp.array([-1.0, 9.0]))
  >>> [round(x, 4) for x in h_F.tolist()]
  [-0.7616, 1.0]
  """

  def __call__(self, h_BLF: jax.Array) -> jax.Array:
    return jnp.tanh(h_BLF)


@activations.register("silu")
@dataclasses.dataclass(frozen=True)
class Silu(Activation):
  """x sigmoid(x). https://arxiv.org/abs/1702.03118

  >>> h_F = activations.build("silu")(jnp.array([-1.0, 1.0]))
  >>> [round(x, 4) for x in h_F.tolist()]
  [-0.2689, 0.7311]
  """

  def __call__(self, h_BLF: jax.Array) -> jax.Array:
    return jax.nn.silu(h_BLF)


@activations.register("swiglu")
@dataclasses.dataclass(frozen=True)
class SwiGLU(Activation):
  """A second projection, gated. Shazeer, 2020. https://arxiv.org/abs/2002.05202

  >>> h_F, gate_F = jnp.array([2.0, 2.0]), jnp.array([-1.0, 1.0])
  >>> h_F = activations.build("swiglu")(h_F, gate_F)
  >>> [round(x, 4) for x in h_F.tolist()]
  [-0.5379, 1.4621]
  """

  gated: ClassVar[bool] = True

  def __call__(self, h_BLF: jax.Array, gate_BLF: jax.Array) -> jax.Array:
    return jax.nn.silu(gate_BLF) * h_BLF


@activations.register("geglu")
@dataclasses.dataclass(frozen=True)
class GeGLU(Activation):
  """Gated by a gelu. Shazeer, 2020. https://arxiv.org/abs/2002.05202

  approximate   by tanh, as in T5 v1.1 and Gemma

  >>> h_F, gate_F = jnp.array([2.0, 2.0]), jnp.array([-1.0, 1.0])
  >>> h_F = activations.build("geglu")(h_F, gate_F)
  >>> [round(x, 4) for x in h_F.tolist()]
  [-0.3176, 1.6824]
  """

  approximate: bool = True
  gated: ClassVar[bool] = True

  def __call__(self, h_BLF: jax.Array, gate_BLF: jax.Array) -> jax.Array:
    return jax.nn.gelu(gate_BLF, approximate=self.approximate) * h_BLF
