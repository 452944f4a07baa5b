"""The definition of a gated linear recurrence with a delta rule, token by token.

Yang et al., 2024, https://arxiv.org/abs/2412.06464;
Kimi Team, 2025, https://arxiv.org/abs/2510.26692
"""

import dataclasses

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StateUpdates:
  """What the tokens of a text do to a state, S of axes K and E, of each head.

      S <- exp(decay) S + key (value - read^T S)^T,  then  o = query^T S

  where `read` reads the state after the decay. Without `read` nothing is subtracted:
  S <- exp(decay) S + key value^T. A write of the delta rule with strength beta has
  read = beta key, and beta times its value. With `erase`, what is read is taken away
  along another key than the one that is written: S - erase (read^T S) + key value^T.

  query_BLHK   queries, scaled already
  key_BLHK     keys
  value_BLHE   values
  decay        logarithms of the factors on the state, at most 0: [B, L, H, K], or
               [B, L, H, 1] for one factor a head
  read_BLHK    keys whose content of the state is subtracted from the value; None: none
  first_BL     True where a text begins: the state is 0 before it; None: nowhere
  erase_BLHK   keys along which what was read is subtracted; None: `key`
  floor        number that no decay is below, if there is one: products are then simpler

  >>> one = jnp.ones((1, 3, 1, 1))
  >>> tokens = StateUpdates(one, one, one, jnp.log(0.5) * one)
  >>> sequential(tokens)[0].ravel().tolist()  # 1, 1/2 + 1, 1/4 + 1/2 + 1
  [1.0, 1.5, 1.75]
  """

  query_BLHK: jax.Array
  key_BLHK: jax.Array
  value_BLHE: jax.Array
  decay: jax.Array
  read_BLHK: jax.Array | None = None
  first_BL: jax.Array | None = None
  erase_BLHK: jax.Array | None = None
  floor: float | None = dataclasses.field(default=None, metadata={"static": True})

  @property
  def empty(self) -> jax.Array:
    """The state before any token, float32 [B, H, K, E]."""
    B, _, H, K = self.key_BLHK.shape
    return jnp.zeros((B, H, K, self.value_BLHE.shape[-1]), jnp.float32)

  @property
  def in_float32(self) -> "StateUpdates":
    """The same tokens; a state adds up many of them."""
    narrow = lambda x: jnp.issubdtype(x.dtype, jnp.floating)
    return jax.tree.map(lambda x: x.astype(jnp.float32) if narrow(x) else x, self)

  def padded(self, count: int) -> "StateUpdates":
    """Returns tokens with `count` more, which neither decay the state nor write."""

    def pad(x):
      return jnp.pad(x, [(0, 0), (0, count)] + [(0, 0)] * (x.ndim - 2))

    return jax.tree.map(pad, self) if count else self

  def widened(self, count: int) -> "StateUpdates":
    """Returns tokens whose values have `count` more features, all 0."""
    value_BLHE = jnp.pad(self.value_BLHE, [(0, 0)] * 3 + [(0, count)])
    return dataclasses.replace(self, value_BLHE=value_BLHE)


def sequential(
  tokens: StateUpdates, state_BHKE: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
  """Returns (o_BLHE, the state after the last token), both float32.

  state_BHKE   before the first token; None: zeros
  """
  tokens = tokens.in_float32
  start = tokens.empty if state_BHKE is None else state_BHKE.astype(jnp.float32)

  def visit(state_BHKE, token):
    if token.first_BL is not None:
      state_BHKE = jnp.where(token.first_BL[:, None, None, None], 0, state_BHKE)
    state_BHKE = jnp.exp(token.decay)[..., None] * state_BHKE
    key_BHK1, value_BH1E = token.key_BLHK[..., None], token.value_BLHE[..., None, :]
    if token.read_BLHK is not None:
      erase_BHK = token.key_BLHK if token.erase_BLHK is None else token.erase_BLHK
      read_BHE = jnp.einsum("BHK,BHKE->BHE", token.read_BLHK, state_BHKE)
      state_BHKE -= erase_BHK[..., None] * read_BHE[..., None, :]
    state_BHKE += key_BHK1 * value_BH1E
    return state_BHKE, jnp.einsum("BHK,BHKE->BHE", token.query_BLHK, state_BHKE)

  over_time = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), tokens)
  last_BHKE, out_LBHE = jax.lax.scan(visit, start, over_time)
  return jnp.moveaxis(out_LBHE, 0, 1), last_BHKE
