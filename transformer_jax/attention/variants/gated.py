"""Gates on the outputs of heads. Qiu et al., 2025. https://arxiv.org/abs/2505.06708"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.attention.variants.base import Variant, attentions
from transformer_jax.matmul import project
from transformer_jax.spec import SpecError

ACTIVATIONS = {"sigmoid": jax.nn.sigmoid, "silu": jax.nn.silu}


@attentions.register("gated")
@dataclasses.dataclass(frozen=True)
class Gated(Variant):
  """Multiplies the outputs of heads by a sigmoid of a projection of the tokens.

      o_i' = o_i * sigmoid(W x_i)

  `gated(activation="silu")` is x-transformers' `swiglu_values`.

  headwise     one gate for each head; else one for each of its features
  start        initial value of a learned bias of the gates; None: no bias
  activation   sigmoid, or silu: x sigmoid(x), which may be above one and negative

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> params = {"gate_DH": np.array([[0.0, 5.0]])}
  >>> output = jax.jit(tj.attentions.build("gated(headwise=True)").output)
  >>> o_BLHE = output(params, np.ones((1, 1, 1)), np.ones((1, 1, 2, 3)))
  >>> print(np.asarray(o_BLHE)[0, 0].round(2))
  [[0.5  0.5  0.5 ]
   [0.99 0.99 0.99]]
  """

  headwise: bool = False
  start: float | None = None
  activation: str = "sigmoid"

  def __post_init__(self):
    if self.activation not in ACTIVATIONS:
      raise SpecError(
        f"gated: activation is {self.activation!r}; write {' or '.join(ACTIVATIONS)}"
      )

  def weights(self, dims):
    E = dims.E or dims.K
    shape = (dims.D, dims.H) if self.headwise else (dims.D, dims.H, E)
    return {"gate_DH" if self.headwise else "gate_DHE": (shape, 1)}

  def init(self, key, dims):
    if self.start is None:
      return {}
    E = dims.E or dims.K
    shape = (dims.H,) if self.headwise else (dims.H, E)
    name = "gate_shift_H" if self.headwise else "gate_shift_HE"
    return {name: jnp.full(shape, float(self.start))}

  def output(self, params, x_BLD, o_BLHE):
    gate = project(x_BLD, params["gate_DH" if self.headwise else "gate_DHE"], 1)
    if self.start is not None:
      gate += params["gate_shift_H" if self.headwise else "gate_shift_HE"]
    gate = ACTIVATIONS[self.activation](gate.astype(jnp.float32)).astype(o_BLHE.dtype)
    return o_BLHE * (gate[..., None] if self.headwise else gate)
