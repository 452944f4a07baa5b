"""Stick-breaking attention, nearest keys first. Tan et al., 2024.

https://arxiv.org/abs/2410.17980
"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.attention.variants.base import Variant, attentions
from transformer_jax.spec import SpecError


@attentions.register("stick_breaking")
@dataclasses.dataclass(frozen=True)
class StickBreaking(Variant):
  """A key's weight is sigmoid(score) of the weight that nearer keys left.

      w_ij = sigmoid(s_ij) product over j < t < i of (1 - sigmoid(s_it))

  Recency is built in: the paper uses it without positional encoding. A query attends to
  the keys before its token; the first query of a text gets zeros.

  attend_current   a query also attends to its token, as the nearest key
  remainder        the weight that is left goes to the value of the query's token

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> weigh = jax.jit(tj.attentions.build("stick_breaking").weigh)
  >>> w_BHLM = weigh({}, np.zeros((1, 1, 4, 4)), np.tri(4, dtype=bool)[None, None])
  >>> print(np.asarray(w_BHLM)[0, 0])
  [[0.    0.    0.    0.   ]
   [0.5   0.    0.    0.   ]
   [0.25  0.5   0.    0.   ]
   [0.125 0.25  0.5   0.   ]]
  """

  attend_current: bool = False
  remainder: bool = False

  def weigh(self, params, s_BHLM, mask_B1LM):
    along = mask_B1LM.ndim - 1
    later_B1LM = jax.lax.cumsum(mask_B1LM.astype(jnp.int32), along, reverse=True)
    own_B1LM = mask_B1LM & (later_B1LM == 1)  # a query's last unmasked key is its token
    mask_B1LM = mask_B1LM if self.attend_current else mask_B1LM & ~own_B1LM
    s_BHLM = jnp.where(mask_B1LM, s_BHLM, 0.0)
    # Of the stick a key leaves 1 - sigmoid(s) = exp(-softplus(s)).
    left_BHLM = jnp.where(mask_B1LM, -jax.nn.softplus(s_BHLM), 0.0)
    left_BHLM = jax.lax.cumsum(left_BHLM, left_BHLM.ndim - 1, reverse=True)
    w_BHLM = jnp.where(mask_B1LM, jnp.exp(s_BHLM + left_BHLM), 0.0)
    if self.remainder:
      w_BHLM += jnp.where(own_B1LM, jnp.exp(left_BHLM[..., :1]), 0.0)
    return w_BHLM

  def bidirectional(self):
    raise SpecError(
      "a stick is broken from the query's own place backwards, and keys in the future"
      " lie on the other side; use it in a decoder"
    )

  def cross(self):
    raise SpecError(
      "a stick is broken from the query's own place backwards, and another text has no"
      " such place; use it in a decoder, without an encoder"
    )
