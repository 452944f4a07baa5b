"""Embeddings of numbers, against slow NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax.axes import Dims
from transformer_jax.models.embeddings import embeddings

RNG = np.random.default_rng(0)
DIMS = Dims(V=8, D=6, H=2, F=8, L=8)
INPUTS = {
  "numbers(features=3)": RNG.normal(size=(2, 5, 3)),
  "signal(size=2, channels=3)": RNG.normal(size=(2, 6, 3)),
  "xval(tokens=4)": np.stack([RNG.integers(0, 4, (2, 5)), RNG.normal(size=(2, 5))], -1),
}


def slow(spec, p, x):
  if spec.startswith("numbers"):
    return [
      [place @ p["number_ND"] + p["number_shift_D"] for place in row] for row in x
    ]
  if spec.startswith("xval"):
    return [[p["token_VD"][int(token)] * value for token, value in row] for row in x]
  found = []
  for row in x:
    patches = [row[n : n + 2] for n in range(0, len(row), 2)]
    vectors = [
      sum(y[i, c] * p["patch_PCD"][i, c] for i in range(2) for c in range(3))
      for y in patches
    ]
    found.append([p["first_D"], *(v + p["patch_shift_D"] for v in vectors)])
  return found


@pytest.mark.parametrize("spec", INPUTS)
def test_vectors_are_those_of_the_definition(spec):
  embedding, x = embeddings.build(spec), INPUTS[spec]
  params = embedding.init(jax.random.key(0), DIMS)
  params = {k: jnp.float32(RNG.normal(size=v.shape)) for k, v in params.items()}
  found = embedding(params, jnp.float32(x), at=None)
  assert found.shape == (2, embedding.places(x), DIMS.D)
  np.testing.assert_allclose(found, np.array(slow(spec, params, x)), rtol=1e-4)
  assert embedding.refusal(x, embedding.places(x)) is None


def test_inputs_that_do_not_fit():
  text, series = jnp.zeros((1, 4), int), jnp.zeros((1, 4, 3))
  for spec in INPUTS:
    assert "no series of numbers" in embeddings.build(spec).refusal(text, 4)
  refused = {
    "numbers": "write features=3",
    "signal(size=2, channels=2)": "write channels=3",
    "signal(size=3, channels=3)": "the same size of a patch",
    "xval": "write numbers(features=...)",
    "tokens": "these are numbers: write the embedding",
  }
  for spec, says in refused.items():
    assert says in embeddings.build(spec).refusal(series, 3)
  params = {"token_VD": jnp.ones((2, 3))}
  outside = embeddings.build("xval(tokens=2)")(params, jnp.ones((1, 1, 2)) * 2, None)
  assert np.isnan(outside).all()
