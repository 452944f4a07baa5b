"""Hooks of attention variants on tokens, before a query meets a key."""

import jax

from transformer_jax.attention.carry import Carry
from transformer_jax.attention.projections import (
  Arrays,
  ArrayShapes,
  Heads,
  Projections,
  Weights,
)
from transformer_jax.axes import Dims
from transformer_jax.positions import Coords


class TokenHooks:
  """Parameters and projections of a variant, and what it makes of each token.

  The base class of `Variant`, whose docstring lists all hooks.

  >>> [name for name in vars(TokenHooks) if not name.startswith("_")][:4]
  ['projections', 'weights', 'init', 'borrow']
  """

  def projections(self) -> Projections:
    """Returns the projections of tokens to queries, keys and values."""
    return Heads()

  def weights(self, dims: Dims) -> Weights:
    """Returns the shapes of matrices besides those of the projections.

    dims   sizes with E, the width of values, from `Projections.sizes`
    """
    return {}

  def init(self, key: jax.Array, dims: Dims) -> Arrays:
    """Returns trainable parameters that are not matrices of projections."""
    return {}

  def borrow(self, params: Arrays, weights: Arrays, projections: Projections) -> Arrays:
    """Returns the parameters with projection weights of the layer added.

    weights       of the projections, by name; borrowed ones belong to these
    projections   of the layer
    """
    return params

  def token_data(
    self, params: Arrays, x_BLD: jax.Array, q_BLHK: jax.Array
  ) -> dict[str, jax.Array]:
    """Returns features of each token by name; names end in their axes, BL first.

    x_BLD    input of attention
    q_BLHK   the tokens' queries, before `condition` and the encoding
    """
    return {}

  def accumulate(
    self, params: Arrays, data: dict[str, jax.Array], at: Coords
  ) -> dict[str, jax.Array]:
    """Returns the data of coordinates, from the token data of the text so far.

    A cache stores the results of `token_data`; its empty places come last.
    """
    return data

  def reserved(self, kept: ArrayShapes) -> ArrayShapes:
    """Returns the shapes of what `share` puts into the carry once.

    kept   shapes of the arrays of tokens that the cache stores
    """
    return {}

  def share(
    self, params: Arrays, x_BLD: jax.Array, kept: Arrays, carry: Carry
  ) -> tuple[Arrays, Carry]:
    """Returns changed arrays of new tokens, which the cache stores, and the carry.

    x_BLD   input of attention
    kept    the keys and values of these tokens, or MLA's latent
    carry   of earlier layers
    """
    return kept, carry

  def taps(self, params: Arrays) -> Arrays:
    """Returns the weights of convolutions along the text, of each in `convolves`.

    Those of the token n back at [..., n].
    """
    return {}

  def convolved(
    self, params: Arrays, name: str, x: jax.Array, sums: jax.Array
  ) -> jax.Array:
    """Returns the convolved queries, keys or values.

    name   query, key or value
    x      as projected, [B, L, ...]
    sums   of the newest tokens, weighted by `taps`
    """
    return sums

  def condition(
    self, params: Arrays, q_BLHK: jax.Array, k_BMGK: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """Returns changed queries and keys, before the encoding rotates them."""
    return q_BLHK, k_BMGK

  def rotated(
    self, params: Arrays, q_BLHK: jax.Array, k_BMGK: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """Returns changed queries and keys, after the encoding rotated them."""
    return q_BLHK, k_BMGK
