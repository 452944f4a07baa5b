"""Selective attention: masking of tokens no longer needed. Leviathan et al., 2024.

https://arxiv.org/abs/2410.02703
"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.attention.variants.base import Variant, attentions
from transformer_jax.attention.variants.bound_variant import softmax
from transformer_jax.spec import SpecError


@attentions.register("selective")
@dataclasses.dataclass(frozen=True)
class Selective(Variant):
  """Subtracts from every head's scores the selection scores of earlier queries.

      s_ij' = s_ij - sum over j < t < i of relu(s_tj of the first head), j > 0

  The selection score of a query for an earlier key is the first head's relu(score).
  All later queries of the text sum these (section 3 of the paper). It is zero for the
  first token of a text and for the query's token. No parameters. A cache of keys does
  not store these sums: decoding takes a full pass for each token.

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> s_BHLM = np.zeros((1, 1, 4, 4))
  >>> s_BHLM[..., 2, 1] = 9.0  # the third token selects against the second
  >>> mask_B1LM = np.tri(4, dtype=bool)[None, None]
  >>> w_BHLM = jax.jit(tj.attentions.build("selective").weigh)({}, s_BHLM, mask_B1LM)
  >>> print(np.asarray(w_BHLM)[0, 0].round(2))
  [[1.   0.   0.   0.  ]
   [0.5  0.5  0.   0.  ]
   [0.   1.   0.   0.  ]
   [0.33 0.   0.33 0.33]]
  """

  rereads = True

  def weigh(self, params, s_BHLM, mask_B1LM):
    mask_BLM = mask_B1LM[:, 0]
    later_BLM = jax.lax.cumsum(mask_BLM.astype(jnp.int32), axis=2, reverse=True)
    own_BLM = mask_BLM & (later_BLM == 1)  # a query's last unmasked key is its token
    # The first token of a text is the one whose query attends to itself alone.
    alone_BL1 = jnp.sum(mask_BLM, axis=2, keepdims=True) == 1
    start_B1M = jnp.any(own_BLM & alone_BL1, axis=1, keepdims=True)
    counts_BLM = mask_BLM & ~own_BLM & ~start_B1M
    against_BLM = jnp.where(counts_BLM, jax.nn.relu(s_BHLM[:, 0]), 0.0)
    before_BLM = jnp.pad(against_BLM, ((0, 0), (1, 0), (0, 0)))[:, :-1]
    return softmax(s_BHLM - jnp.cumsum(before_BLM, axis=1)[:, None], mask_B1LM)

  def bidirectional(self):
    raise SpecError(
      "selective adds up the selection scores of earlier queries, and in bidirectional"
      " attention no query is earlier; use it in a decoder"
    )

  def cross(self):
    raise SpecError(
      "selective adds up selection scores of earlier queries of the key's own text; use"
      " it in a decoder, without an encoder"
    )
