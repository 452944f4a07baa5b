"""Residual connections that scale or gate what a sublayer adds."""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.matmul import project_by
from transformer_jax.models.residual.base import Placement, placements
from transformer_jax.spec import SpecError

LEARNED = ("", "scalar", "feature")


@placements.register("scaled")
@dataclasses.dataclass(frozen=True)
class ScaledResidual(Placement):
  """x + a f(norm(x)), with a fixed or learned factor, and a norm at the end.

  A learned scalar that starts at 0 is that of ReZero, Bachlechner et al., 2020,
  https://arxiv.org/abs/2003.04887, which has no norms; one of each feature, from a
  small number, is LayerScale, Touvron et al., 2021, https://arxiv.org/abs/2103.17239. A
  fixed one is Granite's residual multiplier.

  factor   a, or its first value
  learned  "", scalar, or feature: a factor of each feature
  stream   factor on x; DeepNet's, with a norm after the sum, is another placement

  >>> def halved(name):
  ...   return lambda x: x / 2
  >>> placements.build("scaled(0.5)")(halved, 4.0, {"feedforward": lambda x: 3 * x})
  7.0
  """

  factor: float = 1.0
  learned: str = ""
  stream: float = 1.0

  def __post_init__(self):
    if self.learned not in LEARNED:
      raise SpecError(
        f"scaled: learned is {self.learned!r}; write 'scalar', 'feature' or ''"
      )

  def init(self, key, dims, sublayer):
    if not self.learned:
      return {}
    if self.learned == "scalar":
      return {"gain": jnp.asarray(float(self.factor))}
    return {"gain_D": jnp.full(dims.D, float(self.factor))}

  def __call__(self, norm, x_BLD, parts):
    for name, part in parts.items():
      factor = self.factor
      if self.learned:
        (factor,) = norm.connection(name).values()
        factor = factor.astype(x_BLD.dtype)
      kept_BLD = x_BLD if self.stream == 1 else self.stream * x_BLD
      x_BLD = kept_BLD + factor * part(norm(name)(x_BLD))
    return x_BLD


@placements.register("highway")
@dataclasses.dataclass(frozen=True)
class Highway(Placement):
  """(1 - g) x + g f(norm(x)), g = sigmoid(W x + b), and a norm at the end.

  Srivastava et al., 2015. https://arxiv.org/abs/1505.00387

  start   first value of b: below 0, layers begin by passing x on

  >>> from transformer_jax.axes import Dims
  >>> dims = Dims(V=2, D=4, H=1, F=2, L=2)
  >>> gate = placements.build("highway").init(jax.random.key(0), dims, 0)
  >>> gate["gate_shift_D"].tolist()
  [-2.0, -2.0, -2.0, -2.0]
  """

  start: float = -2.0

  def init(self, key, dims, sublayer):
    gate_DD = jax.random.normal(key, (dims.D, dims.D)) * dims.D**-0.5
    return {"gate_DD": gate_DD, "gate_shift_D": jnp.full(dims.D, float(self.start))}

  def __call__(self, norm, x_BLD, parts):
    for name, part in parts.items():
      gate = norm.connection(name)
      score_BLD = project_by(x_BLD, gate, "gate_DD").astype(jnp.float32)
      gate_BLD = jax.nn.sigmoid(score_BLD + gate["gate_shift_D"]).astype(x_BLD.dtype)
      x_BLD = (1 - gate_BLD) * x_BLD + gate_BLD * part(norm(name)(x_BLD))
    return x_BLD
