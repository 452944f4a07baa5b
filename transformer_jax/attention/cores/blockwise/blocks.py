"""Cutting of arrays into groups of heads, sequences and blocks."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from transformer_jax.axes import axes_of
from transformer_jax.positions import Coords

TokenData = tuple[dict[str, jax.Array], dict[str, jax.Array]]


@dataclasses.dataclass(frozen=True)
class Blocks:
  """An axis of `length` places in blocks of `size`; the last may end in padding.

  >>> import numpy as np
  >>> from transformer_jax.attention.cores.blockwise.blocks import Blocks
  >>> blocks = Blocks(length=5, size=2)
  >>> blocks.count, blocks.pad(np.arange(5)[None]).tolist()
  (3, [[0, 1, 2, 3, 4, 0]])
  """

  length: int
  size: int

  @property
  def count(self) -> int:
    return -(-self.length // self.size)

  def pad(self, x: jax.Array, **how: Any) -> jax.Array:
    """Fills the last block of axis 1."""
    extra = self.count * self.size - self.length
    pads = [(0, extra if axis == 1 else 0) for axis in range(x.ndim)]
    return jnp.pad(x, pads, **how) if extra else x

  def pad_at(self, at: Coords) -> Coords:
    """Fills the last block with places that hold no token."""
    return Coords(
      self.pad(at.order_BL, constant_values=-1),
      self.pad(at.pos_BL, mode="edge"),
      self.pad(at.horizon_BL, constant_values=-1),
      self.pad(at.segment_BL),
      {name: self.pad(x) for name, x in at.data.items()},
      {name: self.pad(x) for name, x in at.variant_data.items()},
    )

  def cut(self, x: jax.Array) -> jax.Array:
    """[B, L, ...] -> [B, count, 1, size, ...]."""
    return x.reshape(x.shape[0], self.count, 1, self.size, *x.shape[2:])


@dataclasses.dataclass(frozen=True)
class Cut:
  """Blocks of queries and of keys, and `together` of G key heads in a tile.

  Arrays that are cut start with two axes, groups of heads and sequences. An axis has
  length one if all groups, or all sequences, share the array.

  queries    blocks of queries
  keys       blocks of keys
  H          query heads
  G          key heads
  together   key heads in a tile; divides G

  >>> from transformer_jax.attention.cores.blockwise.blocks import choose
  >>> cut = choose(L=1024, M=1024, H=8, G=4, block=0)
  >>> cut.queries, cut.keys, cut.together
  (Blocks(length=1024, size=128), Blocks(length=1024, size=128), 1)
  """

  queries: Blocks
  keys: Blocks
  H: int
  G: int
  together: int

  def vectors(self, x_BLHK: jax.Array, blocks: Blocks) -> jax.Array:
    """Returns x_SBquRK, where query heads that read one key head are rows, R."""
    x = blocks.pad(x_BLHK)
    B, _, heads, K = x.shape
    u, repeat = self.together, heads // self.G
    x = x.reshape(B, blocks.count, blocks.size, self.G // u, u, repeat, K)
    x = x.transpose(3, 0, 1, 4, 5, 2, 6)
    return x.reshape(*x.shape[:4], repeat * blocks.size, K)

  def join(self, x_SBquRE: jax.Array) -> jax.Array:
    """Returns x_BLHE of queries, without the padding."""
    S, B, count, u, _, E = x_SBquRE.shape
    x = x_SBquRE.reshape(S, B, count, u, self.H // self.G, self.queries.size, E)
    x = x.transpose(1, 2, 5, 0, 3, 4, 6).reshape(B, -1, self.H, E)
    return x[:, : self.queries.length]

  def places(self, at: Coords, blocks: Blocks) -> tuple[TokenData, Coords]:
    """Returns the data of padded coordinates, and the coordinates for masks."""

    def cut(name: str, x: jax.Array) -> jax.Array:
      axes = axes_of(name)
      x = self.by_group(x, axes.index("H")) if "H" in axes else x[None]
      return jax.vmap(blocks.cut)(x)

    of_encoding, of_variant = (
      {name: cut(name, x) for name, x in data.items()}
      for data in (at.data, at.variant_data)
    )
    # The mask reads the variant's data too: that of all heads, and without a gradient.
    rest = jax.tree.map(lambda x: blocks.cut(x)[None], at.replace(data={}))
    return (of_encoding, of_variant), rest

  def by_group(self, x: jax.Array, axis: int) -> jax.Array:
    """Splits an axis of query heads into groups; the axis of groups comes first."""
    groups = self.G // self.together
    x = x.reshape(*x.shape[:axis], groups, self.H // groups, *x.shape[axis + 1 :])
    return jnp.moveaxis(x, axis, 0)

  def tiles(self, x_HLM: jax.Array) -> jax.Array:
    """Cuts both axes of an array for all query heads: x_SqkHLM."""
    q, k = self.queries, self.keys
    x = self.by_group(x_HLM.reshape(-1, q.count, q.size, k.count, k.size), 0)
    return x.transpose(0, 2, 4, 1, 3, 5)

  def params(self, params: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Cuts parameters that have a slice for each head; others are shared."""

    def cut(name, x):
      return self.by_group(x, 0) if axes_of(name).startswith("H") else x[None]

    return {name: cut(name, jnp.asarray(x))[:, None] for name, x in params.items()}


def each(function: Callable[[Any], Any], tree: Any, at_once: bool = False) -> Any:
  """Maps over the first axis of a tree, one at a time; length one means shared.

  at_once   all in one program, as accelerators need it
  """
  leaves, structure = jax.tree.flatten(tree)
  n = max(x.shape[0] for x in leaves)
  if n == 1:
    out = function(jax.tree.map(lambda x: x[0], tree))
    return jax.tree.map(lambda x: x[None], out)
  mapped = [x for x in leaves if x.shape[0] == n]
  along = jax.vmap if at_once else _one_by_one

  def one(mapped):
    mapped = iter(mapped)
    whole = [next(mapped) if x.shape[0] == n else x[0] for x in leaves]
    return function(jax.tree.unflatten(structure, whole))

  return along(one)(mapped)


def _one_by_one(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
  return functools.partial(jax.lax.map, function)


# Scores in a tile: its arrays fit the cache of one CPU core. The second number is for
# hooks that compute in each tile: work that all heads share, as a network of distances,
# is done once only if all heads are in the tile. Of masked pairs tiles that are less
# tall hold fewer, each of which costs more there than products.
ENTRIES, HOOKED = 2**15, 2**17
WIDE = 512  # queries and keys in a tile of an accelerator, for all texts and heads


def choose(
  L: int,
  M: int,
  H: int,
  G: int,
  block: int,
  hooked: bool = False,
  at_once: bool = False,
) -> Cut:
  """Returns the cut for these lengths.

  L, M     number of queries and of keys
  H, G     number of query heads and of key heads
  block    queries and keys in a tile; 0: chosen here
  hooked   whether a hook computes biases or scores in each tile
  at_once  whether all texts and heads are computed at once: a tile has all heads

  256 queries by 128 keys of one head were the fastest of 14 shapes, or within 5% of it,
  from 512 to 4096 tokens: docs/results/tiles.md has the measurements.
  """
  if at_once:
    size = block or WIDE
    return Cut(Blocks(L, min(size, L)), Blocks(M, min(size, M)), H, G, together=G)
  repeat, entries = H // G, HOOKED if hooked else ENTRIES
  wide = block or 128
  tall = block or max(1, min(128 if hooked else 256, entries // (wide * repeat)))
  tall, wide = min(tall, L), min(wide, M)
  room = max(1, entries // (tall * wide * repeat))
  together = max(u for u in range(1, G + 1) if G % u == 0 and u <= room)
  return Cut(Blocks(L, tall), Blocks(M, wide), H, G, together)
