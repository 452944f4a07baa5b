"""Projections of tokens to queries, keys and values, and of heads to the output."""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.axes import Dims
from transformer_jax.matmul import project
from transformer_jax.positions import Bound, Coords, PositionalEncoding

Arrays = dict[str, jax.Array]
ArrayShapes = dict[str, jax.ShapeDtypeStruct]
# name: (shape, number of leading input axes); 0 input axes: a shift, initialized to 0
Weights = dict[str, tuple[tuple[int, ...], int]]


@dataclasses.dataclass(frozen=True)
class Projections:
  """Base class of the projections before and after attention.

  A name in `weights` or `init` ends in its axes. Queries come in H heads, keys and
  values in G, which divides H: query head h reads key head h // (H / G).

  >>> import transformer_jax as tj
  >>> dims = tj.Dims(V=2, D=64, H=8, F=64, L=8)
  >>> for spec in "gqa(2)", "mla(latent=16, part=4)":
  ...   made = tj.attentions.build(spec).projections()
  ...   print(type(made).__name__, made.sizes(dims).K, made.keeps_keys)
  Heads 8 True
  Latent 12 False
  """

  def weights(self, dims: Dims) -> Weights:
    """Returns the shapes of all matrices and shifts."""
    raise NotImplementedError

  def init(self, key: jax.Array, dims: Dims) -> Arrays:
    """Returns initial parameters that are neither matrices nor shifts."""
    return {}

  def check(self, dims: Dims) -> None:
    """Raises ValueError if the sizes of a model do not fit these projections."""

  def fit(self, dims: Dims) -> "Projections":
    """Returns the projections for a model of these sizes, or raises ValueError."""
    self.check(dims)
    return self

  def sizes(self, dims: Dims) -> Dims:
    """Returns the widths of the heads: K of queries and keys, E of values."""
    return dataclasses.replace(dims, E=dims.K)

  def encoding_dims(self, dims: Dims, encoding: PositionalEncoding) -> Dims:
    """Returns the sizes for the positional encoding."""
    return dims

  def query(self, w: Arrays, x_BLD: jax.Array) -> jax.Array:
    """Returns the queries q_BLHK."""
    return self.into(w, "query", x_BLD)

  def inform(
    self, position: Bound, x_BLD: jax.Array, q_BLHK: jax.Array, at: Coords
  ) -> Coords:
    """Returns the coordinates with the encoding's data of the tokens."""
    return position.read(x_BLD, q_BLHK, at)

  def memory(self, w: Arrays, x_BMD: jax.Array) -> Arrays:
    """Returns the arrays of tokens that a cache stores."""
    return {name: self.into(w, name, x_BMD) for name in ("key", "value")}

  def kept_shapes(self, dims: Dims, x_BMD: jax.Array) -> ArrayShapes:
    """Returns the shapes of the arrays of tokens that a cache stores."""
    shapes: ArrayShapes = jax.eval_shape(self.memory, self.weight_shapes(dims), x_BMD)
    return shapes

  def weight_shapes(self, dims: Dims) -> ArrayShapes:
    """Returns the shapes of all weights, as arrays without numbers."""
    shapes: ArrayShapes = jax.eval_shape(lambda: self.init(jax.random.key(0), dims))
    for name, (shape, _) in self.weights(dims).items():
      shapes[name] = jax.ShapeDtypeStruct(shape, jnp.float32)
    return shapes

  def read(self, w: Arrays, kept: Arrays) -> tuple[jax.Array, jax.Array]:
    """Returns keys k_BMGK and values v_BMGE from the cached arrays."""
    return kept["key"], kept["value"]

  @property
  def keeps_keys(self) -> bool:
    """True when a cache stores keys and values, not a latent."""
    return type(self).read is Projections.read

  def transform_qk(
    self,
    position: Bound,
    q_BLHK: jax.Array,
    k_BMGK: jax.Array,
    q_at: Coords,
    k_at: Coords,
  ) -> tuple[jax.Array, jax.Array]:
    """Returns queries and keys as rotated by the encoding.

    position         the bound encoding
    q_BLHK, k_BMGK   queries and keys as projected
    q_at, k_at       their coordinates
    """
    return position.transform_qk(q_BLHK, k_BMGK, q_at, k_at)

  def found(self, w: Arrays, o_BLHE: jax.Array, x_BLD: jax.Array) -> jax.Array:
    """Returns the heads' outputs, from their mixtures of values; x_BLD is the input."""
    return o_BLHE

  def out(self, w: Arrays, o_BLHE: jax.Array, x_BLD: jax.Array) -> jax.Array:
    """Returns the update of the residual stream; x_BLD is the input of attention."""
    (name,) = (n for n in w if n.startswith("out_") and n != "out_shift_D")
    y_BLD = project(o_BLHE, w[name], 2, name)
    return y_BLD + w["out_shift_D"].astype(y_BLD.dtype) if "out_shift_D" in w else y_BLD

  def into(self, w: Arrays, name: str, x_BLD: jax.Array) -> jax.Array:
    """Returns tokens projected by the weights whose names start with `name`."""
    y: float | jax.Array = 0.0
    for found in w:
      if found.startswith(f"{name}_D"):
        y = y + project(x_BLD, w[found], 1, found)
      elif found.startswith(f"{name}_shift_"):
        y = y + w[found].astype(x_BLD.dtype)
    return jnp.asarray(y)


@dataclasses.dataclass(frozen=True)
class Heads(Projections):
  """Multi-head projections. Vaswani et al., 2017.

  https://arxiv.org/abs/1706.03762

  groups   heads of keys and values; 0: as many as query heads
  bias     adds a learned vector to queries, keys, values and the output; "in": not to
           the output, as in Qwen 2; "out": only to the output, as in GPT-Neo
  value    width of a head's values; 0: that of its keys
  clip     cuts queries, keys and values to -clip .. clip; 0: it does not

  >>> import transformer_jax as tj
  >>> from transformer_jax.attention.projections import Heads
  >>> dims = tj.Dims(V=2, D=64, H=8, F=64, L=8)
  >>> Heads(bias=True).weights(dims)["key_DHK"]
  ((64, 8, 8), 1)
  >>> Heads(groups=2).weights(dims)["key_DGK"]
  ((64, 2, 8), 1)
  """

  groups: int = 0
  bias: bool | str = False
  value: int = 0
  clip: float = 0.0

  def weights(self, dims):
    inward = (dims.D, dims.H, dims.K)
    G, heads = self.groups or dims.H, "G" if self.groups else "H"
    E, width = self.value or dims.K, "E" if self.value else "K"
    shapes: Weights = {
      "query_DHK": (inward, 1),
      f"out_H{width}D": ((dims.H, E, dims.D), 2),
    }
    kept = {"key": (f"{heads}K", (G, dims.K)), "value": (f"{heads}{width}", (G, E))}
    for name, (letters, shape) in kept.items():
      shapes[f"{name}_D{letters}"] = (dims.D, *shape), 1
    if self.bias in (True, "in"):
      shapes["query_shift_HK"] = inward[1:], 0
      for name, (letters, shape) in kept.items():
        shapes[f"{name}_shift_{letters}"] = shape, 0
    if self.bias in (True, "out"):
      shapes["out_shift_D"] = (dims.D,), 0
    return shapes

  def check(self, dims):
    if self.bias not in (False, True, "in", "out"):
      raise ValueError(f"bias is {self.bias!r}; write False, True, 'in' or 'out'")
    if self.groups and dims.H % self.groups:
      raise ValueError(
        f"{self.groups} groups of keys do not divide {dims.H} heads; change one of them"
      )
    if self.clip < 0:
      raise ValueError(f"clip is {self.clip}; write a number above 0, or 0 for none")

  def sizes(self, dims):
    return dataclasses.replace(dims, E=self.value or dims.K, G=self.groups)

  def into(self, w, name, x_BLD):
    y = super().into(w, name, x_BLD)
    return jnp.clip(y, -self.clip, self.clip) if self.clip else y
