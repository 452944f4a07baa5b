"""Gates on the outputs of heads. Qiu et al., 2025. https://arxiv.org/abs/2505.06708"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from transformer_jax.attention.projections import Arrays, Weights
from transformer_jax.attention.variants.base import Variant, attentions
from transformer_jax.axes import whole
from transformer_jax.matmul import project
from transformer_jax.spec import SpecError

ACTIVATIONS = {"sigmoid": jax.nn.sigmoid, "silu": jax.nn.silu}
SOURCES: dict[str, tuple[str, ...]] = {
  "input": ("gate",),
  "output": ("output_gate",),
  "both": ("gate", "output_gate"),
}


@attentions.register("gated")
@dataclasses.dataclass(frozen=True)
class Gated(Variant):
  """Multiplies the outputs of heads by a sigmoid of a projection of the tokens.

      o_i' = o_i * sigmoid(W x_i), or W o_i, or their sum

  `gated(activation="silu")` is x-transformers' `swiglu_values`; `gated(source="both")`
  is hybrid gated attention, https://arxiv.org/abs/2608.11805.

  headwise     one gate for each head; else one for each of its features
  start        initial value of a learned bias of the gates; None: no bias
  activation   sigmoid, or silu: x sigmoid(x), which may be above one and negative
  source       what is projected: "input" of attention, "output" of all heads, or "both"
  rank         width between the two matrices of each gate, with a SiLU there; 0: one
               matrix

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
  source: str = "input"
  rank: int = 0

  def __post_init__(self):
    for name, known in (("activation", ACTIVATIONS), ("source", SOURCES)):
      if getattr(self, name) not in known:
        raise SpecError(
          f"gated: {name} is {getattr(self, name)!r}; write {' or '.join(known)}"
        )
    if not whole(self.rank, 0):
      raise SpecError(f"gated: rank is {self.rank!r}; write a whole number, or 0")
    if self.rank and self.headwise:
      raise SpecError(
        "gated: a gate of each head is one column, of rank one; write headwise=False or"
        " rank=0"
      )

  def weights(self, dims):
    E = dims.E or dims.K
    axes = {"gate": ("D", (dims.D,)), "output_gate": ("HE", (dims.H, E))}
    shapes: Weights = {}
    for name in SOURCES[self.source]:
      letters, sizes = axes[name]
      if self.rank:
        shapes[f"{name}_down_{letters}C"] = (*sizes, self.rank), len(sizes)
        letters, sizes = "C", (self.rank,)
      # N: gated heads. A mesh can split an array by the letter H only once.
      heads = "N" if "H" in letters else "H"
      to, width = (heads, (dims.H,)) if self.headwise else (f"{heads}E", (dims.H, E))
      shapes[f"{name}_{letters}{to}"] = (*sizes, *width), len(sizes)
    return shapes

  def init(self, key, dims):
    if self.start is None:
      return {}
    E = dims.E or dims.K
    shape = (dims.H,) if self.headwise else (dims.H, E)
    name = "gate_shift_H" if self.headwise else "gate_shift_HE"
    return {name: jnp.full(shape, float(self.start))}

  def output(self, params, x_BLD, o_BLHE):
    read = {"gate": (x_BLD, 1), "output_gate": (o_BLHE, 2)}
    each = [self.projected(params, n, *read[n]) for n in SOURCES[self.source]]
    gate = functools.reduce(jnp.add, each)
    if self.start is not None:
      gate += params["gate_shift_H" if self.headwise else "gate_shift_HE"]
    gate = ACTIVATIONS[self.activation](gate.astype(jnp.float32)).astype(o_BLHE.dtype)
    return o_BLHE * (gate[..., None] if self.headwise else gate)

  def projected(self, params: Arrays, name: str, x: jax.Array, axes: int) -> jax.Array:
    """Returns the logits of gates, BLH or BLHE.

    name   of their weights
    x      what is projected
    axes   of its features
    """
    own = {
      n.removeprefix(f"{name}_"): w for n, w in params.items() if n.startswith(name)
    }
    for letters, w in own.items():
      if letters.startswith("down_"):
        x, axes = jax.nn.silu(project(x, w, axes, letters)), 1
    (last,) = (letters for letters in own if letters.isupper())
    return project(x, own[last], axes, f"{name}_{last}")
