"""What the compiled program of a core depends on: the key of its check."""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.attention.cores.base import Core
from transformer_jax.attention.cores.context import Context
from transformer_jax.attention.cores.per_device import heads_split
from transformer_jax.attention.variants.base import Variant
from transformer_jax.axes import Dims, axes_of
from transformer_jax.positions import PositionalEncoding

LONGEST = 512  # tokens in a check, besides the remainder: two tiles of most kernels
MASKED = 1024  # where the variant masks: a window of as many tokens hides something
# (name, shape, type) of arrays.
ParamShapes = tuple[tuple[str, tuple[int, ...], str], ...]


@dataclasses.dataclass(frozen=True)
class CallScheme:
  """A core with all that its compiled program depends on, but for long lengths.

  core, encoding, variant   what is computed
  dims                      heads of one device, and widths
  L, M                      queries and keys of the check: short, and with the real
                            lengths' remainder, which padding and tiles depend on
  dtypes                    types of queries, keys and values
  params, variant_params    arrays of the encoding and of the variant
  pos_dtype                 type of positions
  shared                    whether all texts share their coordinates
  scale                     of dot products; None: an array, one for each head

  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> from transformer_jax.attention.cores.context import Context
  >>> at, none = tj.positions.coords.consecutive(1, 2060), tj.positions.build("none")
  >>> context = Context(at, at, tj.positions.Bound(none), scale=0.5)
  >>> x_BLHK = np.zeros((4, 2060, 8, 4), np.float32)
  >>> core = tj.cores.build("pallas_tpu")
  >>> scheme = scheme_of(core, x_BLHK, x_BLHK, x_BLHK, context)
  >>> scheme.L, scheme.dims.H, scheme.dtypes[0], scheme.shared
  (524, 8, 'float32', True)
  """

  core: Core
  encoding: PositionalEncoding
  variant: Variant
  dims: Dims
  L: int
  M: int
  dtypes: tuple[str, ...]
  params: ParamShapes
  variant_params: ParamShapes
  pos_dtype: str
  shared: bool
  scale: float | None

  @property
  def subject(self) -> tuple[Core, PositionalEncoding, Variant]:
    """What a run's record names."""
    return self.core, self.encoding, self.variant


def scheme_of(
  core: Core,
  q_BLHK: jax.Array,
  k_BMGK: jax.Array,
  v_BMGE: jax.Array,
  context: Context,
) -> CallScheme:
  """Returns the scheme of a call; arguments are those of `Core.attend`, or tracers."""
  position, variant = context.position, context.variant
  longest = MASKED if variant.variant.overrides("mask") else LONGEST
  L, M = (shortened(x.shape[1], longest) for x in (q_BLHK, k_BMGK))
  heads = heads_split(q_BLHK.shape, k_BMGK.shape[2], v_BMGE.shape[2])
  (H, K), G = q_BLHK.shape[2:], k_BMGK.shape[2]
  dims = Dims(
    V=8,
    D=_width(position.params) or H * K,
    H=H // heads,
    F=0,
    L=M,
    K=K,
    E=v_BMGE.shape[3],
    G=max(1, G // heads),
  )
  one_number = isinstance(context.scale, int | float)
  return CallScheme(
    core=core,
    encoding=position.encoding,
    variant=variant.variant,
    dims=dims,
    L=L,
    M=M,
    dtypes=tuple(jnp.dtype(x.dtype).name for x in (q_BLHK, k_BMGK, v_BMGE)),
    params=_shapes(position.params, heads),
    variant_params=_shapes(variant.params, heads),
    pos_dtype=jnp.dtype(context.q_at.pos_BL.dtype).name,
    shared=max(at.order_BL.shape[0] for at in (context.q_at, context.k_at)) == 1,
    scale=float(context.scale) if one_number else None,
  )


def shortened(length: int, longest: int = LONGEST) -> int:
  """Returns a short length with the remainder of a long one.

  >>> [shortened(n) for n in (128, 1000, 1024, 2060)]
  [128, 1000, 1024, 524]
  """
  if length <= 2 * longest:
    return length
  return longest + (length % longest or longest)


def _shapes(params: dict[str, jax.Array], heads: int) -> ParamShapes:
  """Returns shapes of arrays on one of the devices that split their heads."""

  def on_one(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    axes = axes_of(name)
    if len(axes) != len(shape):
      return shape
    pairs = zip(axes, shape, strict=True)
    return tuple(n // heads if axis == "H" and n > 1 else n for axis, n in pairs)

  return tuple(
    (name, on_one(name, x.shape), jnp.dtype(x.dtype).name)
    for name, x in sorted(params.items())
  )


def _width(params: dict[str, jax.Array]) -> int | None:
  """Returns the width of the model, where a parameter has that axis."""
  for name, x in params.items():
    axes = axes_of(name)
    if "D" in axes and len(axes) == jnp.ndim(x):
      return int(x.shape[axes.index("D")])
  return None
