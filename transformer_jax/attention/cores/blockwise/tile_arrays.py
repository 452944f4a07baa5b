"""Arrays of queries and keys, cut into the blocks of tiles; axes as in `flash.py`."""

import dataclasses

import jax

from transformer_jax.attention.cores.blockwise.blocks import TokenData
from transformer_jax.positions import Coords


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Queries:
  """Blocks q_qurK, their token data and coordinates, and their numbers of keys.

  >>> import jax.numpy as jnp
  >>> from transformer_jax.attention.cores.blockwise.tile_arrays import Queries
  >>> Queries(jnp.ones((1, 1, 2, 4)), ({}, {}), None, None).narrow(jnp.bfloat16).q.dtype
  dtype(bfloat16)
  """

  q: jax.Array
  data: TokenData
  at: Coords
  key_count_BL: jax.Array

  @property
  def vectors(self) -> tuple:
    return self.q, self.data

  def narrow(self, dtype) -> "Queries":
    return dataclasses.replace(self, q=self.q.astype(dtype))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Keys:
  """Blocks of keys k_kuMK and values v_kuME, their token data and coordinates.

  >>> import jax.numpy as jnp
  >>> from transformer_jax.attention.cores.blockwise.tile_arrays import Keys
  >>> x_kuMK = jnp.ones((1, 1, 2, 4))
  >>> Keys(x_kuMK, x_kuMK, ({}, {}), None).narrow(jnp.bfloat16).v.dtype
  dtype(bfloat16)
  """

  k: jax.Array
  v: jax.Array
  data: TokenData
  at: Coords

  @property
  def vectors(self) -> tuple:
    return self.k, self.data

  def narrow(self, dtype) -> "Keys":
    return dataclasses.replace(self, k=self.k.astype(dtype), v=self.v.astype(dtype))
