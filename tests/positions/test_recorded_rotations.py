"""Rotations equal those of their authors' programs: FoPE, RoPE++ and LieRE."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from interpreted import interpreted
from test_recorded import recorded

from transformer_jax.attention.cores import cores
from transformer_jax.axes import Dims
from transformer_jax.positions import Bound, coords, positions


def close(got, want, atol=2e-6):
  """Compares arrays of order one whose float32 noise is about a millionth."""
  np.testing.assert_allclose(got, want, atol=atol, rtol=2e-6)


def heads_last(x_BHLK):
  return jnp.swapaxes(jnp.asarray(x_BHLK), 1, 2)


def test_fope_of_its_authors():
  there = recorded("fope/fope")
  encoding = positions.build("fope(length=64)")
  params = {
    "sine_HRN": there["weights/sin_coef"],
    "cosine_HRN": there["weights/cos_coef"],
  }
  kept = there["outputs/inv_freq"].shape[-1]
  close(encoding.frequencies(16)[:kept], there["outputs/inv_freq"][0])
  rotate = interpreted(lambda x, pos: encoding.rotate(params, x, pos))
  for given, first, name in (("x", 0, "y"), ("x_tail", 9, "y_tail_of_sequence")):
    got = rotate(heads_last(there[f"inputs/{given}"]), np.arange(first, 12)[None])
    close(heads_last(got), there[f"outputs/{name}"])


def test_fope_starts_with_the_mixtures_of_its_authors():
  """Ones where they put them, and deviations by PyTorch's count of fans."""
  dims = Dims(V=2, D=4096, H=64, K=64, F=2, L=4096)
  init = positions.build("fope(gain=0.3)").init
  shapes = jax.eval_shape(lambda: init(jax.random.key(0), dims))
  _, R, N = shapes["sine_HRN"].shape
  assert (R, N) == (23, 16)
  start = interpreted(lambda: init(jax.random.key(0), dims))()
  ones = np.zeros((R, N))
  ones[range(0, 2 * 12, 2), range(12)] = 1
  assert np.abs(start["sine_HRN"].mean(0)[:, :12] - ones[:, :12]).max() < 0.05
  noise = start["sine_HRN"].std(axis=0).mean()
  close(noise, 0.3 * np.sqrt(2 / (R * N + 64 * N)), atol=2e-3)


CASES = {
  "rope": "rope",
  "imagh": "rope_pp(heads='half')",
  "imago": "rope_pp(heads='all')",
}
CASES["ropepp"] = "rope_pp"


@pytest.mark.parametrize("name", CASES)
def test_rope_pp_of_its_authors(name):
  there = recorded("rope_pp/rope_pp")
  encoding = positions.build(CASES[name])
  q, k, v, g = (heads_last(there[f"inputs/{x}"]) for x in ("q", "k", "v", "grad_out"))
  twice = name == "ropepp"
  g = jnp.concatenate([g, 0.5 * g], axis=2) if twice else g
  at, position = coords.consecutive(1, 10), Bound(encoding)

  def attend(q, k, v):
    q = jnp.repeat(q, 2, axis=2) if twice else q
    q, k = position.transform_qk(q, k, at, at)
    return cores.build("dense")(q, k, v, at, at, position), (q, k)

  @interpreted
  def run(q, k, v, g):
    out, pull, turned = jax.vjp(attend, q, k, v, has_aux=True)
    return out, *turned, *pull(g)

  found = run(q, k, v, g)
  for got, key in zip(found, ("o", "q", "k", "dq", "dk", "dv"), strict=True):
    close(heads_last(got), there[f"outputs/{name}/{key}"])


def test_liere_of_its_authors():
  there = recorded("liere/liere")
  encoding = positions.build("liere(block=4, height=3, width=3)")
  upper = np.triu_indices(4, 1)
  raw = there["weights/generator_raw_params"]
  grid = coords.grid(3, 2)
  # Their second column of two lies at 2/3, and ours at 1/2 of three.
  row_L = np.concatenate([[-1], grid.data["row_BL"][0]])
  column_L = np.concatenate([[-1], grid.data["column_BL"][0] * 4 / 3])
  at = coords.consecutive(1, 7).replace(
    data={"row_BL": row_L[None], "column_BL": column_L[None]}
  )

  def rotations(raw):
    layers = []
    for n in range(2):
      # Their product of rotation and vector is our R x, as are their generators.
      row, column = (raw[a, n][:, *upper].reshape(2, 2, 6) for a in range(2))
      params = {"row_HNP": row, "column_HNP": column}
      layers.append(encoding.rotations(params, at).reshape(1, 7, 4, 4, 4))
    return jnp.stack(layers, axis=2)

  @interpreted
  def run(raw, g):
    out, pull = jax.vjp(rotations, raw)
    return out, *pull(g)

  out, grad = run(raw, there["inputs/grad_rot"])
  close(out, there["outputs/rotations"], atol=5e-6)
  close(grad, there["outputs/grad/generator_raw_params"], atol=2e-5)
