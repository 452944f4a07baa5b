"""Array layout of kernels: order of axes, and tokens padded to whole blocks."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl

from transformer_jax.axes import axes_of
from transformer_jax.numpy_interpreter import evaluate
from transformer_jax.positions import Coords

Tree = Any
FILL = 128  # blocks beyond it are halved while padding would be an eighth of the tokens


@dataclasses.dataclass(frozen=True)
class Layout:
  """Order of the axes of vectors in a kernel's arrays.

  order   BLHK, as attention has them, of which GPUs read a head by strides; or BHKL,
          which XLA's products on a TPU leave and read: nothing is copied, heads of 64
          features do not take the room of 128, and pairs of features are turned by
          whole rows. Numbers of queries then lie in rows, as those of keys always do

  >>> import jax.numpy as jnp
  >>> Layout("BHKL").vectors(jnp.zeros((1, 3, 2, 8)), 4).shape
  (1, 2, 8, 4)
  >>> Layout().vectors(jnp.zeros((1, 3, 2, 8)), 4).shape
  (1, 4, 2, 8)
  """

  order: str = "BLHK"

  @property
  def tokens_last(self) -> bool:
    return self.order.endswith("L")

  def vectors(self, x_BLHK: jax.Array, size: int) -> jax.Array:
    """Returns vectors of heads, padded to blocks of `size` tokens."""
    return _moved(_pad(x_BLHK, size), "BLHK", self.order)

  def shape(self, B: int, H: int, tokens: int, width: int) -> tuple[int, ...]:
    """Returns the shape of vectors of H heads."""
    sizes = {"B": B, "H": H, "L": tokens, "K": width}
    return tuple(sizes[axis] for axis in self.order)

  def tile(self, block: jax.Array) -> jax.Array:
    """Returns a head's block of vectors as [tokens, width], or such a tile as block."""
    return block.T if self.tokens_last else block

  def tokens_first(self, x: jax.Array) -> jax.Array:
    """Returns x_BLHK, the inverse of `vectors` but for padding."""
    return _moved(x, self.order, "BLHK")


AS_GIVEN, TOKENS_LAST = Layout(), Layout("BHKL")


def _moved(x: jax.Array, order: str, new: str) -> jax.Array:
  return x if order == new else jnp.transpose(x, [order.index(axis) for axis in new])


def block_of(n: int, block: int, least: int) -> int:
  """Returns the block size for n tokens: a power of two, at most `block`.

  It is the largest that pads n by no more than an eighth, and at least 128.
  """
  size = min(block, max(least, 2 ** math.ceil(math.log2(n))))
  while size > max(FILL, least) and -n % size > n / 8:
    size //= 2
  return size


def queries(q_BLHK, at: Coords, data: dict, size: int, form=AS_GIVEN) -> Tree:
  """Returns the arrays of queries, vectors as in `form`, others [B, H, tokens, width].

  Axes of batch and heads may be 1. Where tokens come last, an array with a few numbers
  per token is [.., numbers, tokens] instead.

  q_BLHK   queries
  at       coordinates
  data     token data that the encoding reads
  size     tokens in a block
  form     order of axes
  """
  arrays = {
    "ints": _ints(at, size)[:, None],
    "pos": _pad(at.pos_BL, size)[:, None, :, None],
    "data": {n: _heads_first(x, n, size) for n, x in data.items()},
  }
  if form.tokens_last:
    arrays = by_name(lambda x, n: _turned(x) if is_row(n) else x, arrays)
  return {"q": form.vectors(q_BLHK, size)} | arrays


def keys(k_BMGK, v_BMGE, at: Coords, data: dict, size: int, form=AS_GIVEN) -> Tree:
  """Returns the arrays of keys and values, as `queries` does where tokens come last.

  k_BMGK   keys
  v_BMGE   values
  at       coordinates of the keys
  data     token data that the encoding reads
  size     tokens in a block
  form     order of axes
  """
  data = {n: _heads_first(x, n, size) for n, x in data.items()}
  return {
    "k": form.vectors(k_BMGK, size),
    "v": form.vectors(v_BMGE, size),
    "ints": _turned(_ints(at, size))[:, None],
    "pos": _pad(at.pos_BL, size)[:, None, None, :],
    "data": {n: _turned(x) if narrow(n) else x for n, x in data.items()},
  }


_turned = functools.partial(jnp.swapaxes, axis1=-1, axis2=-2)


def narrow(name: str) -> bool:
  """Returns whether an array of this name has one number per token and head."""
  return not axes_of(name).replace("H", "").removeprefix("BL")


VECTORS = "q", "k", "v", "out", "d_out"


def is_row(name: str) -> bool:
  """Returns whether an array has a few numbers per token: those of keys are in rows."""
  return name not in VECTORS and (name in ("ints", "pos") or narrow(name))


def by_name(spec: Callable[[Any, str], Any], side: Tree) -> Tree:
  """Returns spec(array, name) of each array of queries or keys."""
  data = {n: spec(x, n) for n, x in side["data"].items()}
  return {n: spec(x, n) for n, x in side.items() if n != "data"} | {"data": data}


def cost(work, products: int, args: Tree, outs: Tree, again: tuple = ((), 0)) -> Any:
  """Returns the estimated cost, of the tiles that are visited.

  work       static description of the call
  products   matrix products in a tile
  args       inputs of the kernel
  outs       outputs of the kernel
  again      arrays that are read more than once, and how often
  """

  def size(tree):
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))

  pairs = int(work.B * work.H * work.L * work.M * work.visited)
  arrays, times = again
  times = max(times * work.visited - 1, 0)
  return pl.CostEstimate(
    flops=2 * pairs * products * work.tile.K,
    transcendentals=pairs,
    bytes_accessed=size((args, outs)) + int(size(arrays) * times),
  )


def visited(variant, L: int, M: int, size: Any) -> float:
  """Returns the share of tiles that a causal text of L tokens visits.

  Coordinates are data, so when traced no more is known than the variant, with windows
  and patterns, and whether queries and keys may be the same tokens. Four tokens stand
  for each block. Where L is not M all tiles are counted.

  variant   the bound variant
  L, M      queries and keys
  size      sizes of a tile
  """
  if L != M:
    return 1.0
  q_at, k_at = (_sample(L, n) for n in (size.L, size.M))
  mask_LM = evaluate(variant.mask, q_at, k_at)[0]
  rows, columns = (x.order_BL.shape[1] // SAMPLES for x in (q_at, k_at))
  tiles = mask_LM.reshape(rows, SAMPLES, columns, SAMPLES).any(axis=(1, 3))
  return max(float(tiles.mean()), 1 / tiles.size)


SAMPLES = 4


def _sample(L, size):
  """Returns coordinates of the first, the last and two more tokens of each block."""
  inside = np.linspace(0, size - 1, SAMPLES).astype(np.int32)
  starts = np.arange(0, L, size, dtype=np.int32)[:, None]
  order_BL: Any = (starts + inside).reshape(1, -1)
  return Coords(order_BL, order_BL, order_BL, np.ones_like(order_BL))


def coords_of(ints: Sequence[jax.Array], pos: jax.Array) -> Coords:
  """Returns the coordinates of a block, with a batch axis of one."""
  order_BL, horizon_BL, segment_BL = (x[None] for x in ints)
  return Coords(order_BL, pos[None], horizon_BL, segment_BL)


def padded(at: Coords, size: int) -> Coords:
  """Returns coordinates padded to whole blocks."""
  fill = {"order_BL": -1, "horizon_BL": -1, "pos_BL": 0, "segment_BL": 0}
  return Coords(**{n: _pad(getattr(at, n), size, fill[n]) for n in fill})


def visible_tiles(variant, q_at: Coords, k_at: Coords, L: int, M: int) -> jax.Array:
  """Returns the block mask of tiles of L x M, [B, tiles, tiles].

  Computed row by row: memory is linear in the length.

  variant      the bound variant
  q_at, k_at   padded coordinates
  L, M         queries and keys in a tile
  """
  B = max(q_at.order_BL.shape[0], k_at.order_BL.shape[0])
  blocks = jax.tree.map(lambda x: _stacked(x, L), q_at)

  def row(block):
    mask_BLM = jnp.broadcast_to(
      variant.mask(block, k_at), (B, L, k_at.order_BL.shape[1])
    )
    return jnp.any(mask_BLM.reshape(B, L, -1, M), axis=(1, 3))

  return jnp.moveaxis(jax.lax.map(row, blocks), 0, 1)


def to_fetch(mask_Bnn: jax.Array) -> jax.Array:
  """Returns the tile to fetch at each step of a row: the last one needed so far.

  A tile is needed where this equals its index, so other steps cost no transfer.
  """
  number_n = jnp.arange(mask_Bnn.shape[-1], dtype=jnp.int32)
  last_Bnn = jax.lax.cummax(jnp.where(mask_Bnn, number_n, -1), axis=2)
  first_Bn1 = jnp.argmax(mask_Bnn, axis=2, keepdims=True).astype(jnp.int32)
  return jnp.where(last_Bnn < 0, first_Bn1, last_Bnn)


def shift(q_at: Coords, k_at: Coords) -> jax.Array:
  """Returns distances of positions minus distances of indices, [B], int32.

  Computed from one pair of tokens; a kernel checks whether it holds in a tile.
  """
  B = max(q_at.order_BL.shape[0], k_at.order_BL.shape[0])
  q_at, k_at = (_rows(at, B) for at in (q_at, k_at))
  L = q_at.order_BL.shape[1]
  last_B1 = L - 1 - jnp.argmax(q_at.real_BL[:, ::-1], axis=1)[:, None]

  def take(x, n_B1):
    return jnp.take_along_axis(x, n_B1, axis=1)[:, 0]

  same_BM = k_at.segment_BL == take(q_at.segment_BL, last_B1)[:, None]
  first_B1 = jnp.argmax(same_BM & k_at.real_BL, axis=1)[:, None]
  own_B = take(q_at.pos_BL, last_B1) - last_B1[:, 0]
  return (own_B - take(k_at.pos_BL, first_B1) + first_B1[:, 0]).astype(jnp.int32)


def _rows(at, B):
  return jax.tree.map(lambda x: jnp.broadcast_to(x, (B, x.shape[1])), at)


def _stacked(x_BL, size):
  return jnp.moveaxis(x_BL.reshape(x_BL.shape[0], -1, size), 1, 0)


def _ints(at, size):
  names = ("order_BL", "horizon_BL", "segment_BL")
  at = padded(at, size)
  return jnp.stack([getattr(at, n).astype(jnp.int32) for n in names], axis=-1)


def _pad(x, size, fill=0):
  if x.shape[1] % size == 0:
    return x
  pads = [(0, -x.shape[1] % size) if axis == 1 else (0, 0) for axis in range(x.ndim)]
  return jnp.pad(x, pads, constant_values=fill)


def _heads_first(x, name, size):
  """Returns [B, H or 1, tokens, width or 1] of an array whose axes are in its name."""
  x = _pad(x, size)
  axes = axes_of(name) or name
  if "H" in axes:
    x = jnp.moveaxis(x, axes.index("H"), 1)
  else:
    x = x[:, None]
  return x.reshape(*x.shape[:3], -1)
