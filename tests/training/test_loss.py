"""The loss in pieces equals the definition: values, accuracy and all gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax import matmul, weight_gradients
from transformer_jax.training import loss as losses
from transformer_jax.training import sharding
from transformer_jax.training.loss import chunked_cross_entropy, cross_entropy


def example(dtype=jnp.float32):
  """Returns (x_BLD, output_VD, target_BL, weight_BL); some weights are 0."""
  keys = jax.random.split(jax.random.key(3), 4)
  x_BLD = jax.random.normal(keys[0], (2, 7, 4)).astype(dtype)
  output_VD = jax.random.normal(keys[1], (11, 4))
  target_BL = jax.random.randint(keys[2], (2, 7), 0, 11)
  # Every other token is guessed right, so that accuracy has something to count.
  best_BL = jnp.argmax(x_BLD.astype(jnp.float32) @ output_VD.T, axis=-1)
  target_BL = target_BL.at[:, ::2].set(best_BL[:, ::2])
  weight_BL = jnp.round(2 * jax.random.uniform(keys[3], (2, 7)))
  return x_BLD, output_VD, target_BL, weight_BL


def plain(x_BLD, output_VD, target_BL, weight_BL, smoothing):
  logits_BLV = x_BLD.astype(jnp.float32) @ output_VD.T
  loss_BL = cross_entropy(logits_BLV, target_BL, smoothing)
  right_BL = jnp.argmax(logits_BLV, axis=-1) == target_BL
  return jnp.sum(loss_BL * weight_BL), jnp.sum(right_BL * weight_BL)


def found(function, x_BLD, output_VD, target_BL, weight_BL):
  """Returns ((loss, right), gradients by x, output and weights) of a scaled loss."""

  def scaled(x_BLD, output_VD, weight_BL):
    loss, right = function(x_BLD, output_VD, target_BL, weight_BL)
    return loss / 3, right

  grads = jax.value_and_grad(scaled, (0, 1, 2), has_aux=True)
  return jax.jit(grads)(x_BLD, output_VD, weight_BL)


@pytest.mark.parametrize("smoothing,n", [(0.0, 1), (0.1, 3), (0.0, 7)])
def test_any_number_of_pieces_gives_the_definition_and_its_gradients(smoothing, n):
  data = example()
  got = found(functools.partial(chunked_cross_entropy, smoothing=smoothing, n=n), *data)
  want = found(functools.partial(plain, smoothing=smoothing), *data)
  close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-6)
  jax.tree.map(close, got, want)
  assert want[0][1] > 0


def test_bfloat16_differs_by_its_own_rounding():
  x_BLD, output_VD, *rest = example(jnp.bfloat16)
  rounded_VD = output_VD.astype(jnp.bfloat16).astype(jnp.float32)
  got = found(functools.partial(chunked_cross_entropy, n=3), x_BLD, output_VD, *rest)
  want = found(
    functools.partial(plain, smoothing=0.0),
    x_BLD.astype(jnp.float32),
    rounded_VD,
    *rest,
  )
  assert got[1][0].dtype == jnp.bfloat16 and got[1][1].dtype == jnp.float32
  # The logits are sums in float32 of exact products; their gradient is rounded once.
  np.testing.assert_allclose(got[0], want[0], rtol=1e-5)
  for g, w in zip(got[1], want[1], strict=True):
    np.testing.assert_allclose(np.float32(g), w, rtol=2**-6, atol=2**-6)


def test_of_equal_logits_the_first_is_the_guess():
  x_BLD, output_VD = jnp.ones((1, 3, 2)), jnp.ones((5, 2)).at[0].set(0.0)
  target_BL, weight_BL = jnp.array([[0, 1, 2]]), jnp.array([[1.0, 2.0, 4.0]])
  _, right = chunked_cross_entropy(x_BLD, output_VD, target_BL, weight_BL)
  assert right == 2.0
  _, right = chunked_cross_entropy(x_BLD * jnp.nan, output_VD, target_BL, weight_BL)
  assert right == 0.0


def test_memory_does_not_grow_with_the_logits():
  D, V = 8, 4096

  def peak(L):
    shapes = (2, L, D), (V, D)
    args = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    args += [jax.ShapeDtypeStruct((2, L), dtype) for dtype in (jnp.int32, jnp.float32)]
    function = functools.partial(chunked_cross_entropy, n=L // 16)
    grads = jax.jit(jax.value_and_grad(function, (0, 1), has_aux=True))
    return grads.lower(*args).compile().memory_analysis().temp_size_in_bytes

  short, long = peak(64), peak(256)
  assert long - short < 0.05 * (256 - 64) * 2 * V * 4


def test_pieces_hold_no_more_logits_than_they_may():
  assert losses.num_chunks(2, 50, 10, max_logits=1000) == 1
  assert losses.num_chunks(2, 51, 10, max_logits=1000) == 2
  assert losses.num_chunks(500, 3, 100, max_logits=1000) == 3


@pytest.mark.parametrize(
  ("mesh", "sums"), [({"fsdp": 4, "data": 2}, 1), ({"fsdp": 4, "tensor": 2}, 0)]
)
def test_on_accelerators_devices_sum_the_output_s_gradient_once(
  mesh, sums, monkeypatch
):
  """Each adds its chunks up, and all sum by one reduce-scatter, as one device sums."""
  for module in (matmul, weight_gradients):
    monkeypatch.setattr(module, "platform", lambda: "tpu")
  keys = jax.random.split(jax.random.key(0), 3)
  x_BLD = jax.random.normal(keys[0], (8, 6, 16))
  output_VD = jax.random.normal(keys[1], (12, 16))
  target_BL = jax.random.randint(keys[2], (8, 6), 0, 12)
  weight_BL = jnp.ones((8, 6)).at[1, 2:].set(0.0)

  def loss(x_BLD, output_VD):
    return losses.chunked_cross_entropy(x_BLD, output_VD, target_BL, weight_BL, 0.1, 3)

  step = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))
  alone = step(x_BLD, output_VD)
  mesh = sharding.make_mesh(**mesh)
  with jax.set_mesh(mesh):
    split = sharding.split(mesh, {"output_VD": output_VD})["output_VD"]
    lowered = step.lower(x_BLD, jax.device_put(output_VD, split))
    got = lowered.compile()(x_BLD, jax.device_put(output_VD, split))
  assert lowered.as_text().count("stablehlo.reduce_scatter") == sums
  for ours, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(alone), strict=True):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
