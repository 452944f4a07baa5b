"""Multi-token attention. Golovneva et al., 2025. https://arxiv.org/abs/2504.00927"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from transformer_jax.attention.score_convolution import convolve_scores
from transformer_jax.attention.variants.base import Variant, attentions
from transformer_jax.attention.variants.bound_variant import softmax
from transformer_jax.axes import check_whole
from transformer_jax.forwarding import computed
from transformer_jax.normalization import inverse_rms
from transformer_jax.spec import SpecError

SCALINGS = "gate", "depth", "none"


@attentions.register("mta")
@dataclasses.dataclass(frozen=True)
class MTA(Variant):
  """Convolves scores over neighbouring queries and keys, and mixes weights of heads.

      s_ij' = sum over a, b of kernel_ab s_(i-a)(j-b), a = 0 ... queries - 1,
        b = -(keys - 1) / 2 ... (keys - 1) / 2; scores of later keys count as zero

  Each head has its kernel. Kernels and mixtures start as the identity. Neighbours are
  tokens of the same text, whatever padding lies between them. The outputs of a head are
  RMS-normed, with gains that all heads share, and then scaled: by the sigmoid of a
  projection of each, or by 1 - lambda of differential attention, which depends on the
  layer. The paper has kernels in every fourth layer and mixtures in all:
  `alternate(mta(before=False), mta, 4)`.

  queries        queries that a kernel covers, the last ones. With more than one, a
                 cache of keys is not enough: decoding takes a full pass for each token
  keys           keys that a kernel covers, an odd number
  heads          neighbouring heads whose weights are mixed; 0: none
  before, after  whether there is a kernel on scores, and one on weights
  mix_scores     whether the scores of all heads are mixed after their convolution
  norm           whether the outputs of heads are normed
  scaling        of the normed outputs: "gate", "depth" or "none"
  epsilon        added to mean squares by the norm
  start          lambda of "depth"; None: 0.8 - 0.6 exp(-0.3 n) in layer n = 0, 1, ...

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> at = tj.positions.coords.consecutive(1, 3)
  >>> mta = tj.attention.BoundVariant(
  ...   tj.attentions.build("mta(queries=2, keys=1, heads=0)"),
  ...   {"score_kernel_HQM": np.array([[[1.0], [0.0]]])},  # the query before alone
  ... )
  >>> s_BHLM = np.log(np.float32([[[[2, 1, 1], [3, 1, 1], [1, 1, 1]]]]))
  >>> w_BHLM = jax.jit(mta.weigh)(s_BHLM, mta.mask(at, at), at, at)
  >>> print(np.asarray(w_BHLM)[0, 0].round(2))
  [[1.   0.   0.  ]
   [0.67 0.33 0.  ]
   [0.6  0.2  0.2 ]]
  """

  queries: int = 6
  keys: int = 11
  heads: int = 2
  before: bool = True
  after: bool = False
  mix_scores: bool = False
  norm: bool = True
  scaling: str = "gate"
  epsilon: float = 1e-5
  start: float | None = None

  def __post_init__(self):
    check_whole(self, queries=1, keys=1, heads=0)
    if self.keys % 2 == 0:
      raise SpecError(
        f"mta: keys is {self.keys}; write an odd number, as many on either side"
      )
    if self.scaling not in SCALINGS:
      raise SpecError(
        f"mta: scaling is {self.scaling!r}; write {', '.join(SCALINGS[:2])} or none"
      )

  @computed
  def rereads(self):
    return self.queries > 1 and (self.before or self.after)

  @computed
  def signed(self):
    return self.after or self.heads > 0

  def layer(self, n):
    if self.scaling != "depth" or self.start is not None:
      return self
    return dataclasses.replace(self, start=0.8 - 0.6 * math.exp(-0.3 * n))

  def init(self, key, dims):
    H, C = dims.H, self.heads
    if C and H % C:
      raise ValueError(
        f"mta mixes groups of {C} heads, which do not divide {H}; write heads={H} or 0"
      )
    shape = H, self.queries, self.keys
    kernel = jnp.zeros(shape).at[:, -1, self.keys // 2].set(1.0)
    params = {"score_kernel_HQM": kernel} if self.before else {}
    params |= {"weight_kernel_HQM": kernel} if self.after else {}
    # N: heads after mixing. A mesh can split an array by the letter H only once.
    params |= {"mix_scores_HN": jnp.eye(H)} if self.mix_scores else {}
    params |= {"mix_weights_HN": jnp.tile(jnp.eye(C), (H // C, 1))} if C else {}
    E = dims.E or dims.K
    params |= {"mta_gain_E": jnp.ones(E)} if self.norm else {}
    if self.scaling == "gate":
      params |= {"mta_gate_E": jax.random.normal(key, (E,)) * E**-0.5}
      params |= {"mta_gate_shift": jnp.zeros(())}
    return params

  def weigh_at(self, params, s_BHLM, mask_B1LM, q_at, k_at):
    if self.before:
      s_BHLM = jnp.where(mask_B1LM, s_BHLM, 0.0)
      s_BHLM = convolve_scores(s_BHLM, params["score_kernel_HQM"], q_at, k_at)
    if self.mix_scores:
      s_BHLM = jnp.where(mask_B1LM, s_BHLM, 0.0)
      s_BHLM = jnp.einsum("BHLM,HN->BNLM", s_BHLM, params["mix_scores_HN"])
    w_BHLM = softmax(s_BHLM, mask_B1LM)
    if self.after:
      w_BHLM = convolve_scores(w_BHLM, params["weight_kernel_HQM"], q_at, k_at)
    if self.heads:
      w_BHLM = mixed_in_groups(w_BHLM, params["mix_weights_HN"])
    return jnp.where(mask_B1LM, w_BHLM, 0.0)

  def output(self, params, x_BLD, o_BLHE):
    out = o_BLHE.astype(jnp.float32)
    if self.norm:
      out *= inverse_rms(out, self.epsilon) * params["mta_gain_E"]
    if self.scaling == "gate":
      logit_BLH = out @ params["mta_gate_E"] + params["mta_gate_shift"]
      out *= jax.nn.sigmoid(logit_BLH)[..., None]
    elif self.scaling == "depth":
      out *= 1 - self.layer(0).start
    return out.astype(o_BLHE.dtype)

  def bidirectional(self):
    raise SpecError(
      "mta convolves the scores of earlier queries, and in bidirectional attention no"
      " query is earlier; use it in a decoder"
    )

  def cross(self):
    raise SpecError(
      "mta convolves scores of one text with itself; use it in a decoder, without an"
      " encoder"
    )


def mixed_in_groups(w_BHLM: jax.Array, mix_HN: jax.Array) -> jax.Array:
  """Returns weights, each head a mixture of those of its group; N heads in a group."""
  B, H, L, M = w_BHLM.shape
  N = mix_HN.shape[1]
  w_BGNLM = w_BHLM.reshape(B, H // N, N, L, M)
  mix_GNN = mix_HN.reshape(H // N, N, N)
  return jnp.einsum("BGNLM,GNO->BGOLM", w_BGNLM, mix_GNN).reshape(B, H, L, M)
