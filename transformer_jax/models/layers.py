"""What a block has besides attention: norms, activations, where norms stand."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from transformer_jax.spec import Registry

norms = Registry("norm")
activations = Registry("activation")
placements = Registry("norm placement")


@norms.register("rmsnorm")
@dataclasses.dataclass(frozen=True)
class RMSNorm:
  """Scales features to unit mean square. Zhang and Sennrich, 2019.

  https://arxiv.org/abs/1910.07467
  """

  epsilon: float = 1e-6

  def init(self, D: int) -> dict[str, jax.Array]:
    return {"gain_D": jnp.ones(D)}

  def __call__(self, params: dict[str, jax.Array], x_BLD: jax.Array) -> jax.Array:
    x = x_BLD.astype(jnp.float32)
    square = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
    return (x * jax.lax.rsqrt(square + self.epsilon) * params["gain_D"]).astype(
      x_BLD.dtype
    )


@norms.register("layernorm")
@dataclasses.dataclass(frozen=True)
class LayerNorm:
  """Centers and scales features. Ba et al., 2016. https://arxiv.org/abs/1607.06450"""

  epsilon: float = 1e-5

  def init(self, D: int) -> dict[str, jax.Array]:
    return {"gain_D": jnp.ones(D), "shift_D": jnp.zeros(D)}

  def __call__(self, params: dict[str, jax.Array], x_BLD: jax.Array) -> jax.Array:
    x = x_BLD.astype(jnp.float32)
    x -= jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
    x *= jax.lax.rsqrt(variance + self.epsilon)
    return (x * params["gain_D"] + params["shift_D"]).astype(x_BLD.dtype)


@activations.register("relu")
@dataclasses.dataclass(frozen=True)
class Relu:
  """max(x, 0), as in Vaswani et al., 2017. https://arxiv.org/abs/1706.03762"""

  gated: ClassVar[bool] = False

  def __call__(self, h_BLF: jax.Array) -> jax.Array:
    return jax.nn.relu(h_BLF)


@activations.register("gelu")
@dataclasses.dataclass(frozen=True)
class Gelu:
  """x times the normal distribution function. https://arxiv.org/abs/1606.08415

  approximate   by tanh, as in GPT-2; False: exact, as in BERT
  """

  approximate: bool = True
  gated: ClassVar[bool] = False

  def __call__(self, h_BLF: jax.Array) -> jax.Array:
    return jax.nn.gelu(h_BLF, approximate=self.approximate)


@activations.register("swiglu")
@dataclasses.dataclass(frozen=True)
class SwiGLU:
  """A second projection, gated. Shazeer, 2020. https://arxiv.org/abs/2002.05202"""

  gated: ClassVar[bool] = True

  def __call__(self, h_BLF: jax.Array, gate_BLF: jax.Array) -> jax.Array:
    return jax.nn.silu(gate_BLF) * h_BLF


@placements.register("pre")
@dataclasses.dataclass(frozen=True)
class PreNorm:
  """x + f(norm(x)), and a norm at the end. Xiong et al., 2020.

  https://arxiv.org/abs/2002.04745
  """

  final_norm: ClassVar[bool] = True

  def before(self, norm, x_BLD):
    return norm(x_BLD)

  def after(self, norm, x_BLD, update_BLD):
    return x_BLD + update_BLD


@placements.register("post")
@dataclasses.dataclass(frozen=True)
class PostNorm:
  """norm(x + f(x)), as in Vaswani et al., 2017. https://arxiv.org/abs/1706.03762"""

  final_norm: ClassVar[bool] = False

  def before(self, norm, x_BLD):
    return x_BLD

  def after(self, norm, x_BLD, update_BLD):
    return norm(x_BLD + update_BLD)
