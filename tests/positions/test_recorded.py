"""Our numbers equal those that other people's programs gave for the same inputs.

The numbers lie in `third_party/<source>/`; `ORIGIN.md` there says how they were made.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from interpreted import interpreted

from transformer_jax.attention.cores import cores
from transformer_jax.positions import Bound, coords, positions
from transformer_jax.positions.alibi import slopes

FOLDER = pathlib.Path(__file__).parents[2] / "third_party"
DENSE = cores.build("dense")


def recorded(name):
  with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
    return dict(file)


def close(actual, expected, atol=2e-6):
  """Compares arrays of order one whose float32 noise is about a millionth."""
  np.testing.assert_allclose(actual, expected, rtol=2e-6, atol=atol)


def right_aligned(L, M):
  """Returns positions of L queries, the last of which is at the last of M keys."""
  return np.arange(M - L, M)[None], np.arange(M)[None]


bias = interpreted(Bound.bias)


def test_alibi_slopes_of_bloom_and_mpt():
  for name, expected in recorded("transformers/alibi_slopes").items():
    close(slopes(int(name.removeprefix("slopes_"))), expected)


@pytest.mark.parametrize(
  ("table", "spec"),
  [
    ("causal_32_128", "t5"),
    ("bidirectional_32_128", "t5(causal=False)"),
    ("bidirectional_16_64", "t5(16, 64, causal=False)"),
  ],
)
def test_t5_buckets(table, spec):
  there = recorded("transformers/t5_buckets")
  numbers = {"table_HN": np.arange(32, dtype=np.float32)}
  bucket_LM = interpreted(positions.build(spec).bias)(
    numbers, np.zeros(1, int), there["relative_position"]
  )
  np.testing.assert_array_equal(bucket_LM[0], there[table])


def test_t5_bias_of_x_transformers():
  there = recorded("x_transformers/t5_bias")
  # That library multiplies the table by the root of the head width, here 8.
  position = Bound(
    positions.build("t5(16, 32)"), {"table_HN": there["weight"].T * 8**0.5}
  )
  for L, M in ((20, 20), (6, 25)):
    close(bias(position, *right_aligned(L, M))[0], there[f"q{L}_k{M}"])


def test_alibi_bias_of_x_transformers():
  there = recorded("x_transformers/alibi_bias")
  for H, L, M in ((4, 9, 9), (6, 7, 12)):
    position = Bound(positions.build("alibi"), {"slope_H": np.float32(slopes(H))})
    bias_BHLM = bias(position, *right_aligned(L, M))
    close(bias_BHLM[0], there[f"heads{H}of{H}_q{L}_k{M}"])


@pytest.mark.parametrize(
  ("table", "spec", "K"),
  [("default", "rope", 64), ("default_theta5e5_d128", "rope(base=5e5)", 128)],
)
def test_rope_tables(table, spec, K):
  there = recorded("transformers/rope_tables")
  pos_L, R = there["positions"], K // 2
  # A pair (1, 0) turned by an angle is that angle's cosine and sine.
  x_BLHK = np.broadcast_to(np.float32(np.arange(K) < R), (1, len(pos_L), 1, K))
  turned = interpreted(positions.build(spec).rotate)({}, x_BLHK, pos_L[None])
  turned = np.asarray(turned)[0, :, 0]
  # Angles are float32 numbers as large as the position.
  allowed = 1e-6 + 1.2e-7 * pos_L[:, None]
  assert np.all(np.abs(turned[:, :R] - there[f"{table}/cos"]) < allowed)
  assert np.all(np.abs(turned[:, R:] - there[f"{table}/sin"]) < allowed)
  assert pos_L[1] == 1
  frequency_R = np.arctan2(turned[1, R:], turned[1, :R])
  np.testing.assert_allclose(frequency_R, there[f"{table}/inv_freq"], rtol=1e-6)


@pytest.mark.parametrize(
  ("layout", "spec"),
  [("rotate_half", "rope"), ("interleaved", "rope(interleaved=True)")],
)
def test_rope_turns_queries_and_keys(layout, spec):
  there = recorded("transformers/rope_apply")
  position = Bound(positions.build(spec))
  turn = interpreted(position.transform_qk)
  q, k = (np.moveaxis(there[name], 1, 2) for name in "qk")
  for name in ("positions", "positions_offset"):
    at = coords.consecutive(1, 13, int(there[name][0]))
    np.testing.assert_array_equal(at.pos_BL[0], there[name])
    for x_BLHK, which in zip(turn(q, k, at, at), "qk", strict=True):
      expected = np.moveaxis(there[f"{layout}/{name}/{which}"], 1, 2)
      close(x_BLHK, expected, atol=2e-5)  # angles up to 49 radians


@pytest.mark.parametrize("table", ["50x32", "20x64"])
def test_sinusoidal_tables(table):
  there = recorded("transformers/sinusoidal_tables")
  L, D = map(int, table.split("x"))
  zero_BLD, at = np.zeros((1, L, D), np.float32), coords.consecutive(1, L)
  for spec, name in (
    ("sinusoidal", "paper_interleaved"),
    ("sinusoidal(interleaved=False)", "marian_half"),
  ):
    waves_BLD = interpreted(positions.build(spec).embed)({}, zero_BLD, at)
    close(waves_BLD[0], there[f"{name}/{table}"], atol=1e-5)


def test_forgetting_bias_of_x_transformers():
  there = recorded("x_transformers/forgetting_bias")
  B, L, _ = there["x"].shape
  past_LM = np.tril(np.ones((L, L)))
  at, mask_BLM = coords.consecutive(1, L), jnp.ones((1, L, L), bool)

  @interpreted
  def run(params, x_BLD):
    position = Bound(positions.build("forgetting"), params)
    here = position.accumulate(position.read(x_BLD, None, at))
    zero = jnp.zeros((B, L, 3, 4))
    s_BHLM = jnp.zeros((B, 3, L, L))
    return position.score(s_BHLM, zero, zero, here, here, mask_BLM, 0.5) * past_LM

  params = {
    "forget_DH": jnp.asarray(there["to_forget_gates.0.weight"].T),
    "forget_shift_H": jnp.asarray(there["to_forget_gates.0.bias"]),
  }
  bias_BHLM, pull = jax.vjp(run, params, there["x"])
  close(bias_BHLM, there["bias"] * past_LM, atol=1e-5)
  d_params, d_x = pull(jnp.asarray(there["grad_out"]))
  close(d_x, there["grad_in/x"], atol=1e-5)
  for name, part in (("forget_DH", "weight"), ("forget_shift_H", "bias")):
    norm = there[f"grad_norm/to_forget_gates.0.{part}"]
    np.testing.assert_allclose(np.linalg.norm(d_params[name]), norm, rtol=1e-5)


FORMS = {
  "both_ways": ("forgetting(causal=False)", ("forget", "forget_back")),
  "per_row": ("forgetting_per_row(width=4)", ("forget_query", "forget_key")),
}


@pytest.mark.parametrize("form", FORMS)
def test_other_forms_of_forgetting_of_x_transformers(form):
  there, (spec, names) = recorded("x_transformers/forgetting_forms"), FORMS[form]
  there = {
    n.removeprefix(f"{form}/"): x for n, x in there.items() if n.startswith(form)
  }
  x_BLD, L, first = there["x"], there["x"].shape[1], "to_forget_gates.0"
  at, mask_BLM = coords.consecutive(1, L), jnp.ones((1, L, L), bool)
  mask_BLM = mask_BLM if form == "both_ways" else jnp.tril(mask_BLM)

  def ours(weights):
    """Theirs are [out, in] and of both names together: heads, then width."""
    shape = {"weight": (12, 3), "bias": (3,)} if form == "both_ways" else {}
    letters = {"weight": "DH", "bias": "shift_H"} if shape else {"weight": "DHW"}
    shape = shape or {"weight": (12, 3, 4)}
    halves = {part: np.split(weights[f"{first}.{part}"], 2) for part in shape}
    return {
      f"{name}_{letters[part]}": halves[part][n].T.reshape(shape[part])
      for n, name in enumerate(names)
      for part in shape
    }

  @interpreted
  def run(params, x_BLD):
    position = Bound(positions.build(spec), params)
    here = position.accumulate(position.read(x_BLD, None, at))
    zero, s_BHLM = jnp.zeros((2, L, 3, 4)), jnp.zeros((2, 3, L, L))
    tile = zero, zero, here, here, mask_BLM, 0.5
    return position.full_scores(position.score(s_BHLM, *tile), *tile)

  bias_BHLM, pull = jax.vjp(run, jax.tree.map(jnp.asarray, ours(there)), x_BLD)
  close(bias_BHLM, there["bias"], atol=1e-5)
  d_params, d_x = pull(jnp.asarray(there["grad_out"]))
  close(d_x, there["dx"], atol=3e-5)
  wanted = {n.removeprefix("grad/"): x for n, x in there.items() if "grad/" in n}
  for name, want in ours(wanted).items():
    np.testing.assert_allclose(d_params[name], want, atol=5e-5, rtol=1e-5)


def test_transformer_xl_weights_over_three_segments():
  there = recorded("transformers/transfo_xl")
  H, K, D, memory, L = 4, 8, 32, 14, 10
  params = {
    "content_HK": there["r_w_bias"],
    "position_HK": there["r_r_bias"],
    "project_HKD": there["r_net.weight"].reshape(H, K, D),
  }
  position = Bound(positions.build("transformer_xl"), jax.tree.map(jnp.array, params))
  past_BMD = np.zeros((1, memory, D), np.float32)  # it starts from zeros, and sees them
  k_at, q_at = coords.consecutive(1, memory + L), coords.consecutive(1, L, memory)
  each_key = jnp.broadcast_to(jnp.eye(memory + L)[None, :, None], (1, 24, H, 24))
  attend = interpreted(lambda q, k: DENSE(q, k, each_key, q_at, k_at, position))
  for segment in (1, 2, 3):
    text_BMD = np.concatenate([past_BMD, there[f"segment{segment}/hidden"]], axis=1)
    q, k = np.split(text_BMD @ there["qk_net.weight"].T, 2, axis=-1)
    w_BLHM = attend(q.reshape(1, -1, H, K)[:, memory:], k.reshape(1, -1, H, K))
    expected = np.moveaxis(there[f"segment{segment}/attn_probs"], 1, 2)
    close(w_BLHM, expected, atol=1e-5)
    past_BMD = there.get(f"segment{segment}/memory_after")
