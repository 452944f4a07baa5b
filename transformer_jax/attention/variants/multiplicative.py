"""Multiplicative attention. Luong et al., 2015. https://arxiv.org/abs/1508.04025"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.attention.variants.base import Variant, attentions
from transformer_jax.attention.variants.unparameterised import Slices
from transformer_jax.matmul import project_by


@dataclasses.dataclass(frozen=True)
class States(Slices):
  """Projections to slices of tokens as values, with optional query and key matrices.

  matrices   those of "query" and "key" that have a matrix for each head

  >>> import transformer_jax as tj
  >>> tj.attentions.build("multiplicative").projections().matrices
  ('query',)
  >>> tj.attentions.build("concat").projections().matrices
  ('query', 'key')
  """

  matrices: tuple[str, ...] = ()

  def weights(self, dims):
    own = {"state_DD": ((dims.D, dims.D), 1)} if self.project else {}
    return super().weights(dims) | own

  def init(self, key, dims):
    shape = dims.H, dims.K, dims.K

    def normal(key):
      return jax.random.normal(key, shape) * dims.K**-0.5

    keys = jax.random.split(key)
    return {f"{n}_HKK": normal(k) for n, k in zip(self.matrices, keys, strict=False)}

  def query(self, w, x_BLD):
    return self.compared(w, "query", self.slices(x_BLD))

  def read(self, w, kept):
    x_BMHK = self.slices(kept["token"])
    return self.compared(w, "key", x_BMHK), x_BMHK

  def compared(self, w, name, x_BLHK):
    if name not in self.matrices:
      return x_BLHK
    return jnp.einsum("BLHK,HKE->BLHE", x_BLHK, w[f"{name}_HKK"].astype(x_BLHK.dtype))

  def out(self, w, o_BLHE, x_BLD):
    if not self.project:
      return super().out(w, o_BLHE, x_BLD)
    return jnp.tanh(super().out(w, o_BLHE, x_BLD) + project_by(x_BLD, w, "state_DD"))


@attentions.register("multiplicative")
@dataclasses.dataclass(frozen=True)
class Multiplicative(Variant):
  """Scores h^T W g of states, with output tanh(W_c [context; h]).

      s_ij = h_i^T W g_j

  A head compares and mixes one slice of the states. A model of one head is the paper's,
  which scales nothing. The paper's concat is the variant `concat`. Its local-p predicts
  a position in a complete source, which suits recurrent models; it is not here.

  general   False: the paper's dot, h^T g
  project   False: the output is the context
  power     scores are divided by K ** power

  >>> import transformer_jax as tj
  >>> general = tj.attentions.build("multiplicative")
  >>> general.projections().matrices, general.scale({}, K=64)
  (('query',), 1.0)
  >>> dot = tj.attentions.build("multiplicative(general=False, power=0.5)")
  >>> dot.projections().matrices, dot.scale({}, K=64)
  ((), 0.125)
  """

  general: bool = True
  project: bool = True
  power: float = 0.0

  def projections(self):
    return States(project=self.project, matrices=("query",) if self.general else ())

  def scale(self, params, K):
    return K**-self.power
