"""Native sparse attention. Yuan et al., 2025. https://arxiv.org/abs/2502.11089"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.attention.variants.base import Variant, attentions
from transformer_jax.attention.variants.block_columns import block_columns
from transformer_jax.attention.variants.bound_variant import softmax
from transformer_jax.attention.variants.selection import nth_largest
from transformer_jax.axes import check_whole
from transformer_jax.matmul import einsum
from transformer_jax.spec import SpecError


@attentions.register("nsa")
@dataclasses.dataclass(frozen=True)
class NativeSparse(Variant):
  """Three attentions, to means of blocks, to chosen blocks and to a window, with gates.

      o_i = g_c softmax over blocks c of (q_i . mean k_c) mean v_c
        + g_s softmax over chosen blocks of (q_i . k_j) v_j
        + g_w softmax over the last tokens of (q_i . k_j) v_j, g = sigmoid(W x_i)

  A block is compressed once it is past: its mean key and value; a query before the end
  of the first block has no such part. The chosen blocks are the first, the query's own,
  the one before it, and those of highest compressed weight, summed over a group of
  heads, which share the choice; the choice has no gradient. A bias of the encoding is
  averaged over a block. Without the paper's learned compression and overlapping blocks.
  This is the definition: all scores are computed, and masked.

  block    tokens in a block
  blocks   number of chosen blocks, with the three that always are
  window   number of last tokens; 0: without this attention
  groups   groups of heads that choose together, as those that share keys in `gqa`

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> nsa = tj.attentions.build("nsa(block=2, blocks=3, window=0)")
  >>> at = tj.positions.coords.consecutive(1, 8)
  >>> s_BHLM = np.zeros((1, 1, 8, 8)); s_BHLM[..., 4] = 5.0
  >>> part = jax.jit(nsa.branches)(s_BHLM, np.tri(8, dtype=bool)[None, None], at, at)
  >>> print(np.asarray(part["selected"])[0, 0, -1].round(3))  # blocks 0, 2 and 3
  [0.007 0.007 0.    0.    0.967 0.007 0.007 0.007]
  """

  block: int = 16
  blocks: int = 4
  window: int = 32
  groups: int = 1

  def __post_init__(self):
    check_whole(self, block=1, blocks=3, window=0, groups=1)

  @property
  def names(self) -> tuple[str, ...]:
    """Names of the attentions, in the order of the gates."""
    return ("compressed", "selected") + (("window",) if self.window else ())

  def weights(self, dims):
    if dims.H % self.groups:
      raise ValueError(
        f"nsa: groups is {self.groups}, which does not divide {dims.H} heads; change"
        " one of them"
      )
    return {"branch_DHN": ((dims.D, dims.H, len(self.names)), 1)}

  def token_data(self, params, x_BLD, q_BLHK):
    x_BLD = x_BLD.astype(jnp.float32)
    gate_BLHN = einsum("BLD,DHN->BLHN", x_BLD, params["branch_DHN"])
    return {"gate_BLHN": jax.nn.sigmoid(gate_BLHN)}

  def weigh_at(self, params, s_BHLM, mask_B1LM, q_at, k_at):
    weights = self.branches(s_BHLM, mask_B1LM, q_at, k_at)
    gate_BHLN = jnp.moveaxis(q_at.data["gate_BLHN"], 2, 1)
    gated = (
      gate_BHLN[..., n, None] * weights[name] for n, name in enumerate(self.names)
    )
    return sum(gated)

  def branches(self, s_BHLM, mask_B1LM, q_at, k_at):
    """Returns the weights w_BHLM of each attention, by name, before the gates.

    s_BHLM       scores
    mask_B1LM    or mask_BHLM
    q_at, k_at   coordinates of queries and keys
    """
    columns = block_columns(q_at, k_at, self.block)
    weight_BHLN = self._compressed(s_BHLM, columns, q_at)
    chosen_BHLN = self._chosen(weight_BHLN, columns, q_at).astype(jnp.float32)
    spread_BHLM = columns.spread(weight_BHLN / self.block)
    parts = {
      "compressed": jnp.where(mask_B1LM, spread_BHLM, 0.0),
      "selected": softmax(s_BHLM, mask_B1LM & (columns.spread(chosen_BHLN) > 0)),
    }
    if self.window:
      apart_BLM = q_at.order_BL[:, :, None] - k_at.order_BL[:, None]
      near_B1LM = (apart_BLM < self.window)[:, None]
      parts["window"] = softmax(s_BHLM, mask_B1LM & near_B1LM)
    return parts

  def _compressed(self, s_BHLM, columns, q_at):
    """Returns the weights of compressed blocks, BHLN: a softmax over past blocks."""
    number_BLN, order_BL1 = columns.number_BLN, q_at.order_BL[:, :, None]
    past_BLN = (number_BLN >= 0) & ((number_BLN + 1) * self.block - 1 <= order_BL1)
    return softmax(columns.mean(s_BHLM), past_BLN[:, None])

  def _chosen(self, weight_BHLN, columns, q_at):
    """Returns mask_BHLN of the chosen blocks; all heads of a group share it."""
    number_BLN, own_BL1 = columns.number_BLN, (q_at.order_BL // self.block)[:, :, None]
    always_BLN = (number_BLN == 0) | (number_BLN >= own_BL1 - 1)
    weight_BHLN = jax.lax.stop_gradient(weight_BHLN)
    B, H, L, N = weight_BHLN.shape
    of_group_BGLN = weight_BHLN.reshape(B, self.groups, -1, L, N).mean(2)
    rank_BGLN = jnp.where(always_BLN[:, None], 2.0, of_group_BGLN)
    seen_B1LN = ((number_BLN >= 0) & (number_BLN <= own_BL1))[:, None]
    rival_BGLN = jnp.where(seen_B1LN, rank_BGLN, -jnp.inf)
    chosen_BGLN = seen_B1LN & (rank_BGLN >= nth_largest(rival_BGLN, self.blocks))
    return jnp.repeat(chosen_BGLN, H // self.groups, axis=1)

  def bidirectional(self):
    raise SpecError(
      "nsa attends to blocks before the query, and in bidirectional attention there are"
      " others; use it in a decoder"
    )

  def cross(self):
    raise SpecError(
      "nsa counts blocks from the query's own, and another text has none; use it in a"
      " decoder, without an encoder"
    )
