"""Exclusive self-attention: the paper's formula, and the numbers of a reference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from interpreted import interpreted
from random_parameters import of_model
from test_recorded import recorded

import transformer_jax as tj
from transformer_jax.attention import attentions
from transformer_jax.attention.cores import cores
from transformer_jax.attention.cores.base import repeat_heads
from transformer_jax.models.attention_layer import Attention
from transformer_jax.numpy_interpreter import evaluate
from transformer_jax.positions import PositionalEncoding, bind, coords
from transformer_jax.spec import SpecError

XSA = attentions.build("xsa")
NOTHING = bind(PositionalEncoding(), {}, None)


def close(got, want, atol=2e-6):
  """Compares arrays of order one whose float32 noise is about a millionth."""
  np.testing.assert_allclose(got, want, atol=atol, rtol=2e-6)


def exclusive(o_E, v_E):
  """Returns o without its part along v: one head of one token."""
  length = np.sqrt(sum(v * v for v in v_E))
  along = sum(o * v / length for o, v in zip(o_E, v_E, strict=True))
  return np.array([o - along * v / length for o, v in zip(o_E, v_E, strict=True)])


def test_the_part_along_the_own_value_is_taken_away():
  o_BLHE, v_BLHE = np.random.default_rng(0).normal(size=(2, 2, 5, 3, 4))
  got = evaluate(lambda o, v: XSA.own_value({}, None, o, v), o_BLHE, v_BLHE)
  for at in np.ndindex(2, 5, 3):
    close(got[at], exclusive(o_BLHE[at], v_BLHE[at]))
  close(np.sum(got * v_BLHE, axis=-1), 0.0, atol=1e-5)


def test_a_value_of_zeros_has_no_direction_and_finite_gradients():
  o = jnp.ones((1, 1, 1, 4))
  out, pull = jax.vjp(lambda v: XSA.own_value({}, None, o, v), jnp.zeros_like(o))
  close(out, o)
  assert np.all(np.isfinite(pull(o)[0]))


@interpreted
def attended(q, k, v, g):
  """Returns the attention, without the own value, and the gradients of q, k, v."""
  at = coords.consecutive(1, q.shape[1])

  def attend(q, k, v):
    plain = cores.build("dense")(q, k, v, at, at, NOTHING)
    return XSA.own_value({}, None, plain, repeat_heads(v, q.shape[2])), plain

  out, pull, plain = jax.vjp(attend, q, k, v, has_aux=True)
  return plain, out, *pull(g)


def test_the_numbers_of_a_reference_with_shared_values():
  there = recorded("parameter_golf/xsa")
  given = [jnp.array(there[f"inputs/{name}"]) for name in ("q", "k", "v", "grad_out")]
  names = ("attn_out", "o", "dq", "dk", "dv")
  for got, name in zip(attended(*given), names, strict=True):
    close(got, there[f"outputs/{name}"], atol=5e-6)


def test_a_layer_takes_the_value_as_projected_whatever_is_mixed():
  """`laser` mixes exponentials of the values; the own value is none."""
  o, v = np.random.default_rng(0).normal(size=(2, 1, 3, 2, 4)).astype(np.float32)
  both = attentions.build("laser + xsa")
  got = evaluate(
    lambda o, v: both.own_value({}, None, both.mixed({}, o), v), np.exp(o), v
  )
  close(got, evaluate(lambda o, v: XSA.own_value({}, None, o, v), o, v), atol=5e-6)


def test_bad_input():
  with pytest.raises(SpecError, match="xsa: epsilon is 0; write a number above 0"):
    attentions.build("xsa(0)")


def test_the_own_value_is_as_it_is_mixed():
  """A first token attends to itself alone: nothing is left, with normed values too."""
  dims = tj.Dims(V=7, D=8, H=2, F=8, L=8)
  for spec in ("xsa", "value_norm + xsa", "laser + xsa"):
    arch = tj.Architecture(dims, "rope", attention=spec, core="dense", decoders=1)
    layer = Attention(arch, *arch.layer("decoder", 0))
    x_BLD = jax.random.normal(jax.random.key(0), (1, 3, 8))
    args = x_BLD, coords.consecutive(1, 3)
    params = {"params": of_model(layer, *args)}
    update_BLD = evaluate(layer.apply, params, *args)[0]
    assert np.abs(update_BLD[:, 0]).max() < 1e-5 < np.abs(update_BLD[:, 1:]).max(), spec
