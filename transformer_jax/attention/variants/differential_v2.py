"""Differential attention, second version. Ye et al., 2026.

https://huggingface.co/blog/microsoft/diff-attn-v2
"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.attention.projections import Heads
from transformer_jax.attention.variants.base import Variant, attentions
from transformer_jax.matmul import project_by


@dataclasses.dataclass(frozen=True)
class PairedQueries(Heads):
  """Projections in which two neighbouring query heads share keys, values and output.

  groups   heads of keys and values; 0: one for each pair of query heads

  >>> import transformer_jax as tj
  >>> dims = tj.Dims(V=2, D=64, H=8, F=64, L=8)
  >>> paired = tj.attentions.build("differential_v2").projections().fit(dims)
  >>> shapes = paired.weights(dims)
  >>> shapes["key_DGK"], shapes["share_DN"], shapes["out_HED"]
  (((64, 4, 8), 1), ((64, 4), 1), ((8, 4, 64), 2))
  """

  def fit(self, dims):
    self.check(dims)
    return dataclasses.replace(self, groups=self.groups or dims.H // 2)

  def weights(self, dims):
    D, H, K = dims.D, dims.H, dims.K
    shapes = super().weights(dims)
    del shapes["out_HKD"]
    # The outputs of H / 2 pairs, in H slices: a mesh splits them as it splits heads.
    return shapes | {"share_DN": ((D, H // 2), 1), "out_HED": ((H, K // 2, D), 2)}

  def check(self, dims):
    if dims.H % 2 or dims.K % 2:
      raise ValueError(
        f"differential_v2 pairs {dims.H} heads, and makes two halves of their {dims.K}"
        " features; choose even numbers of both"
      )
    if self.groups and dims.H % (2 * self.groups):
      raise ValueError(
        f"differential_v2 subtracts heads that share keys, and {self.groups} groups of"
        f" keys do not divide {dims.H // 2} pairs; change one of them"
      )

  def sizes(self, dims):
    return dataclasses.replace(dims, E=dims.K // 2, G=self.groups)

  def found(self, w, o_BLHE, x_BLD):
    """Returns the outputs of pairs, each as two halves, o_BLHE."""
    B, L, H, E = o_BLHE.shape
    o_BLN2E = o_BLHE.astype(jnp.float32).reshape(B, L, H // 2, 2, E)
    share_BLN = jax.nn.sigmoid(project_by(x_BLD, w, "share_DN").astype(jnp.float32))
    o_BLNE = o_BLN2E[..., 0, :] - share_BLN[..., None] * o_BLN2E[..., 1, :]
    return o_BLNE.reshape(B, L, H, E // 2).astype(o_BLHE.dtype)


@attentions.register("differential_v2")
@dataclasses.dataclass(frozen=True)
class DifferentialV2(Variant):
  """Mixture of one head minus lambda times that of its neighbour, with equal keys.

      o_p = softmax(q_2p k^T / sqrt(K)) v - lambda_p softmax(q_2p+1 k^T / sqrt(K)) v,
        lambda_p = sigmoid(w_p . x_i)

  Query heads 2p and 2p + 1 share keys and values, and have one output of a head's
  width. Lambda is a number of each token and pair; there is no norm after it. A model
  of as many outputs as one of `multihead` has twice its heads, of the same width
  (`model.head_width`).

  groups   heads of keys and values, as in `gqa`; 0: one for each pair of query heads

  >>> import transformer_jax as tj
  >>> tj.attentions.build("differential_v2(2)").projections().groups
  2
  """

  groups: int = 0

  def projections(self):
    return PairedQueries(self.groups)

  def refusal(self, encoding):
    if encoding.overrides("values"):
      return (
        f"{encoding.name} adds to the mixture of each head, of which {self.name} makes"
        " one of two; use another encoding or another attention"
      )
    return None
