"""Recorded numbers of Mamba: both are the same recurrence, with other names."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax.attention.linear_recurrence import (
  StateUpdates,
  chunked,
  sequential,
)

FILE = pathlib.Path(__file__).parents[2] / "third_party" / "mamba" / "mamba_ssd.npz"
close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-5)


@functools.cache
def recorded():
  with np.load(FILE, allow_pickle=False) as file:
    return {name: jnp.asarray(x) for name, x in file.items()}


def outputs(case):
  prefix = f"outputs/{case}/"
  return {k.removeprefix(prefix): x for k, x in recorded().items() if prefix in k}


def state_space(i):
  """Mamba-2 is a head with one decay, B the key, C the query, dt X the value."""
  of_head = lambda x: jnp.repeat(x, i["X"].shape[2] // x.shape[2], axis=2)
  decay, value = (i["dt"] * i["A"])[..., None], i["dt"][..., None] * i["X"]
  return StateUpdates(of_head(i["C"]), of_head(i["B"]), value, decay)


@pytest.mark.parametrize("form", [sequential, functools.partial(chunked, chunk=16)])
@pytest.mark.parametrize("case", ["ssd", "ssd_state"])
def test_mamba2(case, form):
  want = outputs(case)
  given = {
    name: recorded()[f"inputs/{name}"] for name in ("X", "dt", "A", "B", "C", "h0")
  }
  given = {name: x for name, x in given.items() if f"d{name}" in want}

  def run(i):
    start = jnp.swapaxes(i["h0"][:, 0], 2, 3) if "h0" in i else None
    y, state_BHKE = form(state_space(i), start)
    return y, jnp.swapaxes(state_BHKE, 2, 3)

  def total(i):
    y, state = run(i)
    sum_ = jnp.vdot(y, recorded()["inputs/grad_out"])
    return sum_ + jnp.vdot(state, recorded()["inputs/grad_state"])

  slopes, (y, state) = jax.jit(lambda i: (jax.grad(total)(i), run(i)))(given)
  close(y, want["y"])
  close(state, want["final_state"])
  for name, slope in slopes.items():
    close(slope, want[f"d{name}"], err_msg=name)


def test_a_step_of_mamba2():
  i = {name.removeprefix("inputs/"): x for name, x in recorded().items()}
  first = {name: i[name][:, :1] for name in ("X", "dt", "B", "C")} | {"A": i["A"]}
  y, state = sequential(state_space(first), jnp.swapaxes(i["h0"][:, 0], 2, 3))
  y += i["D"][:, None] * first["X"]
  close(y[:, 0], outputs("mamba2_step")["y"])
  close(jnp.swapaxes(state, 2, 3), outputs("mamba2_step")["state"])


def test_mamba1():
  """Its channels are heads with one value each, and a decay of each feature."""
  names = "u", "delta", "z", "A1", "B1", "C1", "D1", "delta_bias"
  given = {name: recorded()[f"inputs/{name}"] for name in names}
  want = outputs("mamba1_scan")

  def run(i):
    of_time = lambda name: jnp.moveaxis(i[name], 2, 1)
    step_BLH = jax.nn.softplus(of_time("delta") + i["delta_bias"])
    over_heads = lambda x: jnp.broadcast_to(
      x[:, :, None], (*step_BLH.shape, x.shape[-1])
    )
    tokens = StateUpdates(
      query_BLHK=over_heads(of_time("C1")),
      key_BLHK=over_heads(of_time("B1")),
      value_BLHE=(step_BLH * of_time("u"))[..., None],
      decay=step_BLH[..., None] * i["A1"],
    )
    out, state = sequential(tokens)
    y_BLH = (out[..., 0] + i["D1"] * of_time("u")) * jax.nn.silu(of_time("z"))
    return jnp.moveaxis(y_BLH, 1, 2), state[..., 0]

  total = lambda i: jnp.vdot(run(i)[0], recorded()["inputs/grad_y"])
  slopes, (y, state) = jax.jit(lambda i: (jax.grad(total)(i), run(i)))(given)
  close(y, want["y"])
  close(state, want["last_state"])
  for name, slope in slopes.items():
    close(slope, want[f"d{name}"], err_msg=name)
