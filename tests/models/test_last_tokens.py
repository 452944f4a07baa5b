"""States of the last tokens alone, of which evaluation scores the logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_parameters import of_model
from test_positions import with_ids

import transformer_jax as tj
from transformer_jax.positions import coords, positions

DIMS = tj.Dims(V=11, D=32, H=4, F=32, L=24)
TOKENS = jnp.asarray(np.random.default_rng(0).integers(1, 11, (2, 12)))
SEGMENTS = jnp.array([[0] * 3 + [1] * 9, [1] * 4 + [2] * 8])
LAST = 5
QUICK = [
  {"position": "rope", "attention": "gqa(2)"},
  {"position": "cope", "attention": "mla"},
  {"position": "t5", "encoders": 1},
  {"position": "alibi", "attention": "alternate(multihead, gated_delta, 2)"},
  {"position": "none", "convolution": "canon"},
  {"position": "rope", "scan": True},
  {"position": "rope_dynamic(original=8)"},
  {"position": "rope", "norm_placement": "hyper_connections"},
  {"position": "rope", "attention": "value_residual"},
]


def both(position, attention="multihead", encoders=0, **options):
  """Returns the last tokens' logits, and those of the whole pass."""
  arch = tj.Architecture(
    DIMS, position, attention=attention, decoders=2, encoders=encoders, **options
  )
  model, at = tj.Transformer(arch), with_ids(coords.packed(SEGMENTS))
  source = (TOKENS, at) if encoders else (None, None)
  params = {"params": of_model(model, TOKENS, at, *source)}

  @jax.jit
  def found(params):
    read = params, TOKENS, at, *source
    return model.apply(*read, last=LAST), model.apply(*read)[:, -LAST:]

  return found(params)


def close(position, attention="multihead", **options):
  got, want = both(position, attention, **options)
  np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("options", QUICK, ids=lambda x: " ".join(map(str, x.values())))
def test_last_logits_are_those_of_the_whole_pass(options):
  close(**options)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(positions))
def test_every_encoding_has_the_same_last_logits(name):
  close(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(tj.attentions))
def test_every_variant_has_the_same_last_logits(name):
  close("none", name)


def test_the_last_layer_computes_keys_and_values_of_the_others_alone():
  model = tj.Transformer(tj.Architecture(DIMS, "rope", decoders=1))
  params = jax.eval_shape(model.init, jax.random.key(0), TOKENS)

  def operations(last):
    program = jax.jit(lambda params: model.apply(params, TOKENS, last=last))
    return program.lower(params).compile().cost_analysis()["flops"]

  # Of 12 tokens keys and values, and of 5 the other projections, F = D and the logits.
  D, V, tokens = DIMS.D, DIMS.V, TOKENS.size
  parts = tokens * 2 * D * D, tokens * (4 * D * D + D * V)
  most = 2 * (parts[0] + parts[1] * LAST / 12)
  assert operations(None) > 2 * sum(parts) > 1.5 * most
  assert operations(LAST) < 1.35 * most  # and attention, norms and the rotation
