"""Talking heads: scores and weights mixed over heads. Shazeer et al., 2020.

https://arxiv.org/abs/2003.02436
"""

import dataclasses

import jax.numpy as jnp

from transformer_jax.attention.variants.base import Variant, attentions
from transformer_jax.attention.variants.bound_variant import softmax
from transformer_jax.forwarding import computed
from transformer_jax.spec import SpecError


@attentions.register("talking_heads")
@dataclasses.dataclass(frozen=True)
class TalkingHeads(Variant):
  """Mixes scores over heads before the softmax, and weights after it.

      w = P_w softmax(P_s s), both mix heads

  Positional biases belong to the scores and are mixed too. Both mixtures start as the
  identity. A head whose mask excludes a key adds nothing to the scores of others for
  it, and gets no weight of theirs.

  before   mixes scores, before the mask
  after    mixes weights

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> params = {"mix_weights_HN": np.array([[0.5, 0.5], [0.5, 0.5]])}
  >>> s_BHLM = np.array([[[[9.0, -9.0]], [[-9.0, 9.0]]]])  # each head has its key
  >>> weigh = jax.jit(tj.attentions.build("talking_heads(before=False)").weigh)
  >>> w_BHLM = weigh(params, s_BHLM, np.ones((1, 1, 1, 2), bool))
  >>> print(np.asarray(w_BHLM)[0, :, 0].round(2))
  [[0.5 0.5]
   [0.5 0.5]]
  """

  before: bool = True
  after: bool = True

  @computed
  def signed(self):
    return self.after

  def __post_init__(self):
    if not (self.before or self.after):
      raise SpecError("talking_heads mixes nothing; set before=True or after=True")

  def init(self, key, dims):
    # N: output heads. A mesh can split an array by the letter H only once.
    names = {"mix_scores_HN": self.before, "mix_weights_HN": self.after}
    return {name: jnp.eye(dims.H) for name, used in names.items() if used}

  def weigh(self, params, s_BHLM, mask_B1LM):
    def mix(x_BHLM, name):
      return jnp.einsum("BHLM,HN->BNLM", x_BHLM, params[name])

    if self.before:
      s_BHLM = mix(jnp.where(mask_B1LM, s_BHLM, 0.0), "mix_scores_HN")
    w_BHLM = softmax(s_BHLM, mask_B1LM)
    if self.after:
      w_BHLM = jnp.where(mask_B1LM, mix(w_BHLM, "mix_weights_HN"), 0.0)
    return w_BHLM
