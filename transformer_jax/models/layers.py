"""Norms and activations."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from transformer_jax.argument_ranges import allowed
from transformer_jax.normalization import layer_norm, rms_norm
from transformer_jax.spec import Registry, SpecError


class Norm:
  """Scales the features of each token; parameters are named gain_D and shift_D.

  >>> list(norms), norms.build("rmsnorm(epsilon=1e-5)")
  (['layernorm', 'rmsnorm'], RMSNorm(epsilon=1e-05, offset=0.0))
  """

  def __post_init__(self):
    epsilon = getattr(self, "epsilon", 0.0)
    if words := allowed("epsilon", epsilon):  # of somebody's config.json, too
      raise SpecError(f"epsilon is {epsilon}; write {words}")

  def init(self, D: int) -> dict[str, jax.Array]:
    """Returns the parameters for D features."""
    raise NotImplementedError

  def __call__(self, params: dict[str, jax.Array], x_BLD: jax.Array) -> jax.Array:
    """Returns the normalized features x_BLD, in the dtype of x."""
    raise NotImplementedError


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


norms = Registry("norm", Norm)
activations = Registry("activation", Activation)


@norms.register("rmsnorm")
@dataclasses.dataclass(frozen=True)
class RMSNorm(Norm):
  """Scales features to unit mean square. Zhang and Sennrich, 2019.

  https://arxiv.org/abs/1910.07467

  offset   is added to the gains: 1 in Gemma, whose gains are stored near zero

  >>> x_BLD = RMSNorm()({"gain_D": jnp.array([1.0, 2.0])}, jnp.array([[[3.0, 4.0]]]))
  >>> [round(x, 3) for x in x_BLD.ravel().tolist()]  # 3 and 8, divided by sqrt(12.5)
  [0.849, 2.263]
  """

  epsilon: float = 1e-6
  offset: float = 0.0

  def init(self, D: int) -> dict[str, jax.Array]:
    return {"gain_D": jnp.ones(D) - self.offset}

  def __call__(self, params: dict[str, jax.Array], x_BLD: jax.Array) -> jax.Array:
    gain_D = params["gain_D"] + self.offset if self.offset else params["gain_D"]
    return rms_norm(x_BLD, gain_D, self.epsilon)


@norms.register("layernorm")
@dataclasses.dataclass(frozen=True)
class LayerNorm(Norm):
  """Centers and scales features. Ba et al., 2016. https://arxiv.org/abs/1607.06450

  shift   adds a learned vector; MPT does not
  gain    multiplies by a learned vector; OLMo does neither

  >>> norm = norms.build("layernorm(shift=False, gain=False)")
  >>> x_BLD = norm({}, jnp.array([[[1.0, 2.0, 3.0]]]))
  >>> [round(x, 3) for x in x_BLD.ravel().tolist()]
  [-1.225, 0.0, 1.225]
  """

  epsilon: float = 1e-5
  shift: bool = True
  gain: bool = True

  def init(self, D: int) -> dict[str, jax.Array]:
    gain = {"gain_D": jnp.ones(D)} if self.gain else {}
    return gain | ({"shift_D": jnp.zeros(D)} if self.shift else {})

  def __call__(self, params: dict[str, jax.Array], x_BLD: jax.Array) -> jax.Array:
    gain_D = params["gain_D"] if self.gain else None
    shift_D = params["shift_D"] if self.shift else None
    return layer_norm(x_BLD, gain_D, shift_D, self.epsilon)


@activations.register("relu")
@dataclasses.dataclass(frozen=True)
class Relu(Activation):
  """max(x, 0), as in Vaswani et al., 2017. https://arxiv.org/abs/1706.03762

  >>> activations.build("relu")(jnp.array([-1.0, 0.0, 2.0])).tolist()
  [0.0, 0.0, 2.0]
  """

  def __call__(self, h_BLF: jax.Array) -> jax.Array:
    return jax.nn.relu(h_BLF)


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
