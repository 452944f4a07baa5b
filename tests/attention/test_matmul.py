"""Products of tokens with weights: values and gradients in both float types."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax import matmul, remat, weight_gradients
from transformer_jax.devices import gather_matrix
from transformer_jax.matmul import across, project
from transformer_jax.training import sharding

SHAPES = [((5, 7, 6), (6, 3, 4), 1), ((5, 7, 6, 4), (6, 4, 3), 2), ((35, 2), (2, 9), 1)]
SHAPES += [((2, 3, 6), (6, 2, 128), 1), ((2, 3, 2, 128), (2, 128, 6), 2)]  # flat heads


def inputs(x_shape, w_shape, inputs, dtype):
  rng = np.random.default_rng(0)
  x, w = rng.normal(size=x_shape), rng.normal(size=w_shape)
  y_shape = (*x_shape[: len(x_shape) - inputs], *w_shape[inputs:])
  g = rng.normal(size=y_shape)
  return jnp.asarray(x, dtype), jnp.asarray(w, jnp.float32), jnp.asarray(g, dtype)


@pytest.mark.parametrize(("x_shape", "w_shape", "n"), SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_a_projection_and_its_gradients_are_sums(
  x_shape, w_shape, n, dtype, platform, monkeypatch
):
  monkeypatch.setattr(matmul, "platform", lambda: platform)
  x, w, g = inputs(x_shape, w_shape, n, dtype)
  y, pull = jax.vjp(lambda x, w: project(x, w, n), x, w)
  d_x, d_w = jax.jit(pull)(g)
  assert y.dtype == d_x.dtype == x.dtype and d_w.dtype == w.dtype

  wide = lambda a: np.asarray(a, np.float64)
  size = int(np.prod(w_shape[:n]))
  x2, g2 = wide(x).reshape(-1, size), wide(g).reshape(-1, w.size // size)
  w2 = wide(w.astype(dtype)).reshape(size, -1)  # read in the dtype of x
  # What comes out in bfloat16 has 8 bits; a weight's gradient keeps its float32 sums.
  loose = {"float32": 1e-5, "bfloat16": 2**-7}[dtype]
  np.testing.assert_allclose(wide(y).reshape(g2.shape), x2 @ w2, atol=loose, rtol=loose)
  np.testing.assert_allclose(
    wide(d_x).reshape(x2.shape), g2 @ w2.T, atol=loose, rtol=loose
  )
  np.testing.assert_allclose(
    wide(d_w).reshape(w2.shape), x2.T @ g2, atol=1e-5, rtol=1e-5
  )


@pytest.mark.parametrize("shape", [(64, 16, 48), (64, 48, 16)])
def test_the_transpose_by_a_product_changes_no_number(shape):
  """Numbers of bfloat16 times one are themselves, on whatever units."""
  T, D, F = shape
  x = jax.random.normal(jax.random.key(0), (T, D), jnp.bfloat16)
  y = jax.random.normal(jax.random.key(1), (T, F), jnp.bfloat16)
  want = np.asarray(x, np.float64).T @ np.asarray(y, np.float64)
  got = jax.jit(across)(x, y)
  assert got.dtype == jnp.float32
  np.testing.assert_allclose(got, want, atol=1e-5, rtol=1e-5)


def test_on_accelerators_a_projection_is_products_and_nothing_turned(monkeypatch):
  """Neither flattened nor transposed: what is left is three products and types."""
  monkeypatch.setattr(matmul, "platform", lambda: "tpu")
  x, w, g = inputs((5, 7, 6, 4), (6, 4, 3), 2, "bfloat16")
  run = lambda x, w, g: jax.vjp(lambda x, w: project(x, w, 2), x, w)[1](g)
  text = str(jax.make_jaxpr(run)(x, w, g))
  assert text.count("dot_general") == 3
  assert not [word for word in ("reshape", "transpose", "barrier") if word in text]


@pytest.mark.parametrize(
  ("letters", "want"), [("DF", (None, "tensor")), ("HED", ("tensor",))]
)
def test_a_matrix_is_whole_along_fsdp_and_split_along_tensor(
  letters, want, monkeypatch
):
  monkeypatch.setattr(matmul, "platform", lambda: "tpu")
  mesh = sharding.make_mesh(fsdp=2, tensor=2, data=2)
  sizes, n = {"D": 6, "F": 4, "H": 4, "E": 3}, len(letters) - 1
  x, w, g = inputs(
    (4, 5, *(sizes[a] for a in letters[:n])), [sizes[a] for a in letters], n, "float32"
  )
  run = lambda x, w, g: jax.vjp(lambda x, w: project(x, w, n, f"w_{letters}"), x, w)
  step = lambda x, w, g: run(x, w, g)[1](g)
  alone = jax.jit(step)(x, w, g)
  with jax.set_mesh(mesh):
    spec = sharding.split(mesh, {f"w_{letters}": w})[f"w_{letters}"]
    got = jax.jit(step)(x, jax.device_put(w, spec), g)
    whole = jax.jit(lambda w: gather_matrix(w, letters))(jax.device_put(w, spec))
    lowered = jax.jit(lambda x, w: run(x, w, g)[0]).lower(x, w).as_text()
  assert "fsdp" in spec.spec and tuple(whole.sharding.spec) == want
  assert lowered.count("sharding_constraint") == 1  # the product's own
  for ours, theirs in zip(got, alone, strict=True):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
  ("mesh", "phases"),
  [
    ({"fsdp": 8}, 2),
    ({"data": 2, "fsdp": 4}, 1),
    ({"fsdp": 2, "tensor": 2, "sequence": 2}, 1),
  ],
)
@pytest.mark.parametrize("letters", ["DF", "FD", "DHK", "HED"])
def test_gradients_are_summed_into_the_parts_of_devices(
  mesh, phases, letters, monkeypatch
):
  """By reduce-scatters, of which each device has its part; as one device sums."""
  for module in (matmul, weight_gradients):
    monkeypatch.setattr(module, "platform", lambda: "tpu")
  monkeypatch.setattr(weight_gradients, "ONE_RING", 4)
  sizes, n = {"D": 16, "F": 12, "H": 2, "E": 128, "K": 128}, len(letters) - 1
  n = n if letters.endswith("D") else 1
  x, w, g = inputs(
    (8, 4, *(sizes[a] for a in letters[:n])), [sizes[a] for a in letters], n, "float32"
  )
  name = f"w_{letters}"
  step = jax.jit(lambda x, w, g: jax.vjp(lambda w: project(x, w, n, name), w)[1](g)[0])
  alone = step(x, w, g)
  mesh = sharding.make_mesh(**mesh)
  with jax.set_mesh(mesh):
    split = sharding.split(mesh, {name: w})[name]
    lowered = step.lower(x, jax.device_put(w, split), g)
    got = lowered.compile()(x, jax.device_put(w, split), g)
  assert lowered.as_text().count("stablehlo.reduce_scatter") == phases
  assert got.sharding.is_equivalent_to(split, got.ndim)
  np.testing.assert_allclose(got, alone, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("devices", [16, 12, 8, 7, 256])
def test_phases_of_a_sum_leave_each_device_its_own_part(devices, monkeypatch):
  monkeypatch.setattr(weight_gradients, "platform", lambda: "tpu")
  phases = weight_gradients._phases(devices)
  assert len(phases) == (1 if devices in (7, 8) else 2)
  parts = [range(devices) for _ in range(devices)]  # of the sum, by device
  for groups in phases:
    assert sorted(sum(groups, [])) == list(range(devices))
    for group in groups:
      for place, device in enumerate(group):
        size = len(parts[device]) // len(group)
        parts[device] = parts[device][place * size : (place + 1) * size]
  assert [list(part) for part in parts] == [[n] for n in range(devices)]


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_policies_that_keep_products_compute_none_again(platform, monkeypatch):
  monkeypatch.setattr(matmul, "platform", lambda: platform)
  x, w, _ = inputs((35, 6), (6, 4), 1, "float32")

  def count(name):
    def layer(x, w):
      return jnp.sin(project(jnp.sin(project(x, w, 1)), w.T, 1)).sum()

    kept = jax.checkpoint(layer, policy=remat.policy(name))
    return str(jax.make_jaxpr(jax.grad(kept, (0, 1)))(x, w)).count("dot_general")

  products = 2 * 3  # forward, and two gradients of each
  assert count("full") == products + 2
  for name in remat.KEEP_PRODUCTS:
    assert count(name) == products


def test_no_product_of_bfloat16_training_has_float32_operands():
  """They would leave a CPU's matrix units, and a TPU's, alone."""
  x, w, g = inputs((35, 6), (6, 4), 1, "bfloat16")
  run = lambda x, w, g: jax.vjp(lambda x, w: project(x, w, 1), x, w)[1](g)
  text = jax.jit(run).lower(x, w, g).as_text()
  products = [line for line in text.splitlines() if "dot_general" in line]
  assert len(products) >= 2
  for line in products:
    operands = line.partition(" : (")[2].partition(")")[0]
    assert operands.count("bf16") == 2, line
