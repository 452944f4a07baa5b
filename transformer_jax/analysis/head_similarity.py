"""Similarities between the heads of a model, for each text; their registry."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from transformer_jax.analysis.divergence import jensen_shannon
from transformer_jax.analysis.head_batch import HeadBatch
from transformer_jax.spec import Registry


class HeadSimilarity:
  """Base class of similarities between heads. Subclasses are frozen dataclasses.

  bounds   least and largest value; None: there is none
  of       "weight" or "output": which heads it compares; some variants have more of one

  >>> head_similarities.build("cka").of
  'output'
  """

  bounds: ClassVar[tuple[float | None, float | None]] = (0.0, 1.0)
  of: ClassVar[str] = "weight"

  def score(self, layer: HeadBatch) -> jax.Array:
    """Returns a number for each text and pair of heads, [B, H, H]; NaN: there is none.

    layer   heads of several layers, one after another
    """
    raise NotImplementedError


head_similarities = Registry("head similarity", HeadSimilarity)


def joined(layers: list[HeadBatch]) -> HeadBatch:
  """Returns layers with the same queries and keys as one, heads after heads.

  A query counts, and sees a key, where it does so in every layer, or in some layer.
  """
  weights = [layer.weight_BHLM for layer in layers]
  outputs = [layer.out_BLHE for layer in layers]
  visible_BLM, counts_BL = layers[0].visible_BLM, layers[0].counts_BL
  for layer in layers[1:]:
    visible_BLM = visible_BLM | layer.visible_BLM
    counts_BL = counts_BL & layer.counts_BL
  return dataclasses.replace(
    layers[0],
    weight_BHLM=jnp.concatenate(weights, axis=1),
    out_BLHE=jnp.concatenate(outputs, axis=2),
    visible_BLM=visible_BLM,
    counts_BL=counts_BL,
  )


@head_similarities.register("jensen_shannon")
@dataclasses.dataclass(frozen=True)
class JensenShannon(HeadSimilarity):
  """Jensen-Shannon divergence of the weights of two heads, in bits: 0 where they agree.

  Clark et al., 2019, section 6. https://arxiv.org/abs/1906.04341

  >>> JensenShannon().bounds
  (0.0, 1.0)
  """

  def score(self, layer):
    p_BHLM = jnp.abs(layer.weight_BHLM)

    def against(q_BLM):  # one head at a time: pairs of weights would not fit
      apart_BHL = jensen_shannon(p_BHLM, q_BLM[:, None]) / jnp.log(2)
      return layer.mean(jnp.maximum(apart_BHL, 0))

    return jnp.moveaxis(jax.lax.map(against, jnp.moveaxis(p_BHLM, 1, 0)), 0, 1)


@head_similarities.register("cka")
@dataclasses.dataclass(frozen=True)
class CenteredKernelAlignment(HeadSimilarity):
  """Centered kernel alignment of the outputs of two heads over the tokens of a text.

  Linear, with the unbiased estimate of HSIC, which texts of few tokens need: 1 where
  outputs are equal up to rotation and scale, about 0 where they are unrelated, and
  below where the sample says so. NaN of texts of fewer than four tokens.
  Kornblith et al., 2019, https://arxiv.org/abs/1905.00414; the estimate: Song et al.,
  2012, equation 5, as in Nguyen et al., 2021, https://arxiv.org/abs/2010.15327

  >>> CenteredKernelAlignment().bounds
  (None, 1.0)
  """

  bounds: ClassVar[tuple[float | None, float | None]] = (None, 1.0)
  of: ClassVar[str] = "output"

  def score(self, layer):
    out_BLHE = layer.out_BLHE.astype(jnp.float32)
    real_BL = jnp.broadcast_to(layer.query_BL >= 0, out_BLHE.shape[:2])
    n_B = jnp.sum(real_BL, axis=1)
    # Centred first: the estimate does not need it, float32 does.
    out_BLHE = jnp.where(real_BL[:, :, None, None], out_BLHE, 0)
    middle_B1HE = jnp.sum(out_BLHE, axis=1, keepdims=True)
    middle_B1HE /= jnp.maximum(n_B, 1)[:, None, None, None]
    out_BLHE = jnp.where(real_BL[:, :, None, None], out_BLHE - middle_B1HE, 0)
    kernel_BHLL = jnp.einsum("blhe,bmhe->bhlm", out_BLHE, out_BLHE)
    kernel_BHLL *= 1 - jnp.eye(out_BLHE.shape[1])
    hsic_BHH = _hsic(kernel_BHLL, n_B[:, None, None])
    own_BH = jnp.diagonal(hsic_BHH, axis1=1, axis2=2)
    size_BHH = own_BH[:, :, None] * own_BH[:, None, :]
    defined_BHH = (n_B > 3)[:, None, None] & (own_BH > 0)[:, :, None]
    defined_BHH &= (own_BH > 0)[:, None, :]
    root_BHH = jnp.sqrt(jnp.where(defined_BHH, size_BHH, 1))
    return jnp.where(defined_BHH, hsic_BHH / root_BHH, jnp.nan)


def _hsic(kernel_BHLL: jax.Array, n: jax.Array) -> jax.Array:
  """Returns the unbiased HSIC of all pairs, [B, H, H], but for a factor of n alone.

  kernel_BHLL   0 on the diagonal, and where there is no token
  n             number of tokens
  """
  trace_BHH = jnp.einsum("bhlm,bglm->bhg", kernel_BHLL, kernel_BHLL)
  row_BHL = jnp.sum(kernel_BHLL, axis=-1)
  total_BH = jnp.sum(row_BHL, axis=-1)
  crossed_BHH = jnp.einsum("bhl,bgl->bhg", row_BHL, row_BHL)
  product_BHH = total_BH[:, :, None] * total_BH[:, None, :]
  n = jnp.maximum(n, 4)
  return trace_BHH + product_BHH / ((n - 1) * (n - 2)) - 2 * crossed_BHH / (n - 2)
