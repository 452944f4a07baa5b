"""Options whose program for accelerators is another than for CPUs: both are equal.

The device is that of an abstract mesh, as where programs are compiled ahead of time.
NumPy runs what is traced for it.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh
from random_parameters import of_model
from registries import SCORED

import transformer_jax as tj
from transformer_jax.devices import platform
from transformer_jax.numpy_interpreter import trace
from transformer_jax.positions import coords, dape

DIMS = tj.Dims(V=7, D=16, H=2, F=16, L=40)
TOKEN_BL = np.random.default_rng(0).integers(0, 7, (2, 40))
SEGMENTS = jnp.array([[0] * 3 + [1] * 30 + [2] * 7, [1] * 40])  # padding, two texts
DEVICES = {
  "cpu": AbstractDevice("cpu", 1, "cpu"),
  "tpu": AbstractDevice("TPU v5 lite", 1, "tpu"),
  "gpu": AbstractDevice("NVIDIA H100", 1, "gpu"),
}
# Convolutions of scores, sums of tanh, chunks of a recurrence, decayed products in
# tiles, texts one after another (two), and a barrier in a gradient.
TWO_FORMS = [
  {"attention": "mta"},
  {"attention": "additive"},
  {"attention": "alternate(gated_delta, multihead, 2)", "decoders": 2},
  {"position": "wall", "core": "blockwise(block=8)"},
  {"position": "cope"},
  {"position": "dape"},
  {"position": "rope"},
]


@functools.cache
def model_of(**parts):
  defaults = {"position": "none", "core": "dense", "decoders": 1}
  return tj.Transformer(tj.Architecture(DIMS, **defaults | parts))


def on(device, model, params, *reads):
  """Returns logits and gradients of the parameters, by the program for a device."""

  def loss(params, *reads):
    logits_BLV = model.apply({"params": params}, *reads)
    return jnp.sum(jnp.sin(logits_BLV)), logits_BLV

  both_passes = jax.grad(loss, has_aux=True)
  mesh = AbstractMesh((1,), ("data",), abstract_device=DEVICES[device])
  with jax.sharding.use_abstract_mesh(mesh):
    assert platform() == device
    run = trace(both_passes, params, *reads)
  return run(params, *reads)


def compare(device, **parts):
  model = model_of(**parts)
  ids = {name: TOKEN_BL for name in model.arch.position.ids}
  reads = TOKEN_BL, coords.packed(SEGMENTS).replace(data=ids)
  params = of_model(model, *reads)
  got, want = (on(name, model, params, *reads) for name in (device, "cpu"))
  close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=2e-4)
  jax.tree.map(close, got, want)


@pytest.mark.parametrize("parts", TWO_FORMS, ids=lambda x: [*x.values()][0])
def test_both_forms_have_the_same_values_and_gradients(parts, monkeypatch):
  monkeypatch.setattr(dape, "PAIRS", 400)  # a CPU takes ten of 40 rows at a time
  compare("tpu", **parts)


@pytest.mark.slow
@pytest.mark.parametrize("device", ["tpu", "gpu"])
@pytest.mark.parametrize("name", sorted(tj.positions.positions))
def test_every_encoding_is_the_same_on_every_device(name, device):
  compare(device, position=name)


@pytest.mark.slow
@pytest.mark.parametrize("device", ["tpu", "gpu"])
@pytest.mark.parametrize("name", sorted(SCORED))
def test_every_variant_is_the_same_on_every_device(name, device):
  compare(device, attention=name)
