"""Scores, mixture and gradients of one tile of queries and keys, on any chip."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from transformer_jax.attention.cores.pallas.bias_term import BiasTerm
from transformer_jax.attention.cores.pallas.score_terms import (
  Given,
  LogitsTerm,
  MaskTerm,
  ScoreTerm,
  Sizes,
  ValuesTerm,
  head_slices,
  shape,
)
from transformer_jax.attention.variants.bound_variant import MASKED, BoundVariant
from transformer_jax.positions import Bound

Tree = Any


EXTENDED = "extended"  # the tables of products, of which kernels read parts


class ScoreProgram:
  """The score function of an encoding and a variant, traced for tiles of one size.

  position         the bound encoding
  bound            the bound variant
  sizes            sizes of a tile
  q_pos, k_pos     types of positions
  q_data, k_data   shapes of token data, without batch and heads
  """

  def __init__(
    self,
    position: Bound,
    bound: BoundVariant,
    sizes: Sizes,
    q_pos,
    k_pos,
    q_data,
    k_data,
  ):
    encoding, variant = position.encoding, bound.variant
    self.sizes, self.variant = sizes, variant
    own = {
      "position": head_slices(position.params),
      "variant": head_slices(bound.params),
      "scale": shape((), jnp.float32),
    }
    self.terms: dict[str, Any] = {}
    ints = {q_pos, k_pos} == {jnp.dtype("int32")}
    if encoding.overrides("score"):
      self.terms["score"] = ScoreTerm(
        encoding, own, sizes, q_pos, k_pos, ints, q_data, k_data
      )
    elif encoding.bias is not None:
      self.terms["score"] = BiasTerm(encoding, own, sizes, q_pos, k_pos, ints)
    if encoding.mask is not None:
      self.terms["mask"] = MaskTerm(encoding, own, sizes, q_pos, k_pos, ints)
    if variant.overrides("logits"):
      self.terms["logits"] = LogitsTerm(variant, own, sizes)
    if encoding.overrides("values"):
      self.terms["values"] = ValuesTerm(encoding, own, sizes, q_pos, k_pos, ints)

  @property
  def room(self) -> bool:
    """Returns whether a term needs memory for a tile."""
    return any(term.room for term in self.terms.values())

  @property
  def more(self) -> bool:
    """Returns whether scores or outputs change by more than a bias of positions."""
    return "values" in self.terms or isinstance(self.terms.get("score"), ScoreTerm)

  @property
  def largest(self) -> int:
    """Returns the most numbers of an array in what is more than a bias; 0: nothing."""
    terms = [self.terms.get(name) for name in ("score", "values")]
    hooks = [x.hook for x in terms if isinstance(x, (ScoreTerm, ValuesTerm))]
    return max([hook.largest for hook in hooks], default=0)

  @property
  def bands(self) -> bool:
    """Returns whether a term is faster where positions are consecutive."""
    return any(len(term.ways) > 1 for term in self.terms.values())

  def tables(self, own_H: Tree, head_axes: Tree) -> Tree:
    """Returns the arrays that depend on parameters alone, for each head."""

    def outer(own):
      return {
        name: [hook.outer(own) for hook in term.hooks]
        for name, term in self.terms.items()
      }

    def extended(own):
      score = self.terms.get("score")
      return score.hook.extended(own) if isinstance(score, ScoreTerm) else []

    tables = jax.vmap(outer, (head_axes,))(own_H)
    extended_H = jax.vmap(extended, (head_axes,))(own_H)
    return {"scale": own_H["scale"], EXTENDED: extended_H} | tables

  def masked(self, tables: Tree, given: Given) -> Given:
    """Returns inputs of terms, with the encoding's mask of this head added."""
    if "mask" not in self.terms:
      return given
    mask_LM = self.terms["mask"].value(tables["mask"], given)
    return dataclasses.replace(given, mask_LM=mask_LM)

  def scores(self, tables: Tree, given: Given, dot_LM, run_on) -> list[jax.Array]:
    """Returns scaled products, then with the encoding, then with the variant's logits.

    tables   arrays of a head, from `tables`
    given    inputs of the tile
    dot_LM   dot products
    run_on   whether positions are consecutive in the tile
    """
    steps = [tables["scale"] * dot_LM]
    for name in ("score", "logits"):
      if name in self.terms:
        steps.append(self._value(name, tables, given, steps[-1], run_on))
      else:
        steps.append(steps[-1])
    return steps

  def mixture(self, tables, given, w_LM, v_ME, run_on) -> jax.Array:
    """Returns weighted values with the encoding's addition, float32.

    w_LM   weights
    v_ME   values

    tables, given and run_on as in `scores`.
    """
    out_LE = dot(w_LM.astype(v_ME.dtype), v_ME)
    if "values" in self.terms:
      out_LE += self._value("values", tables, given, w_LM, run_on)
    return out_LE

  def backward(
    self, tables, given, residuals: "Residuals", run_on, sums=None
  ) -> "Grads":
    """Returns gradients of all inputs of the tile.

    sums   references to which gradients of extended tables are added; None: they are
           not computed

    tables, given and run_on as in `scores`.
    """
    given = self.masked(tables, given)
    sums = sums or [None] * len(tables[EXTENDED])
    given = dataclasses.replace(given, sums=sums)
    q_LK, k_MK, v_ME, d_out_LE = (
      residuals.q_LK,
      residuals.k_MK,
      residuals.v_ME,
      residuals.d_out_LE,
    )
    dot_LM = dot(q_LK, k_MK, 1, 1)
    pre_LM, s_LM, logit_LM = self.scores(tables, given, dot_LM, run_on)
    w_LM = jnp.where(given.mask_LM, jnp.exp(logit_LM - residuals.lse_L1), 0.0)
    d_w_LM = dot(d_out_LE.astype(v_ME.dtype), v_ME, 1, 1)
    d_tables = {}
    if "values" in self.terms:
      d = d_out_LE.astype(jnp.float32)
      d_tables["values"], more = self._pull("values", tables, given, w_LM, d, run_on)
      d_w_LM += more["pre_LM"]
    d_LM, more = w_LM * (d_w_LM - residuals.delta_L1), {}
    for name, x_LM in (("logits", s_LM), ("score", pre_LM)):
      if name in self.terms:
        d_tables[name], more = self._pull(name, tables, given, x_LM, d_LM, run_on)
        d_LM = more["pre_LM"]
    d_tables["scale"] = jnp.sum(d_LM * dot_LM)
    d_LM = (d_LM * tables["scale"]).astype(k_MK.dtype)
    d_q_LK, d_k_MK = dot(d_LM, k_MK), dot(d_LM, q_LK, 0, 0)
    if more.get("q_LK") is not None:
      d_q_LK, d_k_MK = d_q_LK + more["q_LK"], d_k_MK + more["k_MK"]
    d_v_ME = dot(w_LM.astype(d_out_LE.dtype), d_out_LE, 0, 0)
    return Grads(
      tables=d_tables,
      q_LK=d_q_LK,
      k_MK=d_k_MK,
      v_ME=d_v_ME,
      q_data=more.get("q_data", {}),
      k_data=more.get("k_data", {}),
    )

  def _value(self, name, tables, given, x_LM, run_on):
    term, given = self._given(name, tables, given, x_LM)
    return _either(term, lambda way: term.value(way, tables[name], given), run_on)

  def _pull(self, name, tables, given, x_LM, d, run_on):
    term, given = self._given(name, tables, given, x_LM)
    return _either(term, lambda way: term.pull(way, tables[name], given, d), run_on)

  def _given(self, name, tables, given, x_LM):
    extended = tables[EXTENDED] if name == "score" else []
    return self.terms[name], dataclasses.replace(given, pre_LM=x_LM, extended=extended)


@dataclasses.dataclass(frozen=True, eq=False)
class Residuals:
  """Inputs of the backward pass besides those of the forward pass.

  q_LK       queries
  k_MK       keys
  v_ME       values
  d_out_LE   gradient of the outputs
  lse_L1     log-sum-exp of each row
  delta_L1   row sums of dO * O (Dao et al., section B.2)
  """

  q_LK: jax.Array
  k_MK: jax.Array
  v_ME: jax.Array
  d_out_LE: jax.Array
  lse_L1: jax.Array
  delta_L1: jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class Grads:
  """Gradients of a tile; in tables and data, None for leaves without a gradient."""

  tables: Tree
  q_LK: jax.Array
  k_MK: jax.Array
  v_ME: jax.Array
  q_data: Tree
  k_data: Tree


def grow(state, s_LM, mask_LM, mixture):
  """Adds a tile to a running softmax; state is (top_L1, sum_L1, out_LE)."""
  top_L1, sum_L1, out_LE = state
  s_LM = jnp.where(mask_LM, s_LM, MASKED)
  new_L1 = jnp.maximum(top_L1, jnp.max(s_LM, axis=1, keepdims=True))
  w_LM = jnp.where(mask_LM, jnp.exp(s_LM - new_L1), 0.0)
  shrink_L1 = jnp.exp(top_L1 - new_L1)
  sum_L1 = sum_L1 * shrink_L1 + jnp.sum(w_LM, axis=1, keepdims=True)
  return new_L1, sum_L1, out_LE * shrink_L1 + mixture(w_LM)


def finish(state):
  """Returns outputs and the log-sum-exp of each row."""
  top_L1, sum_L1, out_LE = state
  sum_L1 = jnp.where(sum_L1 == 0, 1.0, sum_L1)
  return out_LE / sum_L1, top_L1 + jnp.log(sum_L1)


def dot(x, y, x_axis=1, y_axis=0):
  """Returns the matrix product along these axes, in float32."""
  axes = (((x_axis,), (y_axis,)), ((), ()))
  return jax.lax.dot_general(x, y, axes, preferred_element_type=jnp.float32)


def _either(term, compute, run_on):
  """Returns compute(way) of a term, with the way for consecutive positions or any."""
  if len(term.ways) == 1:
    return compute(term.ways[0])
  return jax.lax.cond(run_on, lambda: compute("band"), lambda: compute("loop"))
