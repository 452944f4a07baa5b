"""Biases of the distance: numbers, identities, recorded outputs, what is refused."""

import dataclasses
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from interpreted import interpreted
from oracles.classic import T5 as T5Paper

from transformer_jax.attention.cores import cores
from transformer_jax.axes import Dims
from transformer_jax.positions import Bound, bind, coords, positions
from transformer_jax.positions.alibi import slopes
from transformer_jax.positions.kerple_log import within
from transformer_jax.positions.music_transformer import skew, skew_both_ways
from transformer_jax.spec import SpecError

FOLDER = pathlib.Path(__file__).parents[2] / "third_party"
B, L, H, K = 2, 9, 3, 6
DIMS = Dims(V=2, D=18, H=H, F=2, L=L)
DENSE = cores.build("dense")
CAUSAL = coords.consecutive(1, L)


def recorded(name):
  with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
    return dict(file)


def det(shape, s):
  return np.sin(0.37 * np.arange(math.prod(shape)) + s).reshape(shape)


def close(actual, expected, atol=2e-6):
  np.testing.assert_allclose(actual, expected, rtol=2e-6, atol=atol)


@interpreted
def bias(position, pos_L, pos_M):
  """Returns b_HLM."""
  return position.bias(pos_L[None], pos_M[None])[0]


def sees(position, pos_L, pos_M):
  """Returns which keys each head attends to, by what the encoding says; True: any."""
  if position.mask(pos_L[None], pos_M[None]) is True:
    return True
  return interpreted(position.mask)(pos_L[None], pos_M[None])[0]


@interpreted
def scores(position, q_BLHK, at):
  """Returns what an encoding adds to the scores of keys that are all zero, s_BHLM."""
  mask_BLM = jnp.ones((1, L, L), bool)
  s_BHLM = jnp.zeros((B, H, L, L))
  return position.score(s_BHLM, q_BLHK, 0 * q_BLHK, at, at, mask_BLM, K**-0.5)


def start(spec, dims=DIMS):
  """Returns an encoding with its first parameters."""
  encoding = positions.build(spec)
  init = interpreted(lambda key: encoding.init(key, dims))
  return bind(encoding, init(jax.random.key(0)), dims)


def holds(spec, **params):
  """Returns an encoding with these parameters."""
  params = {name: np.asarray(x, np.float32) for name, x in params.items()}
  return bind(positions.build(spec), params, DIMS)


@pytest.mark.parametrize(
  ("form", "past", "future"),
  [  # slopes are 1/16 and 1/256; the query is in the middle of five keys
    ("symmetric", [[-2 / 16, -1 / 16], [-2 / 256, -1 / 256]], "the same"),
    ("offset", [[-1.5 / 16, -0.5 / 16], [-1.5 / 256, -0.5 / 256]], "symmetric"),
    ("causal", [[-2 / 16, -1 / 16], [-2 / 256, -1 / 256]], "rewarded"),
    ("two_sided", [[-2 / 256, -1 / 256], [-np.inf, -np.inf]], "the other head"),
  ],
)
def test_alibi_that_looks_both_ways(form, past, future):
  past, far = np.array(past), [[2 / 16, 1 / 16], [2 / 256, 1 / 256]]
  future = {
    "the same": past,
    "symmetric": -np.array(far),
    "rewarded": np.array(far),
    "the other head": past[::-1],
  }[future]
  alibi = positions.build(f"alibi(both_ways='{form}')")
  dims = dataclasses.replace(DIMS, H=2, K=9)
  for encoding, here in ((alibi.bidirectional(), past), (alibi, -np.array(far))):
    position, places = bind(encoding, {}, dims), (np.array([2]), np.arange(5))
    b_HLM = np.where(sees(position, *places), bias(position, *places), -np.inf)
    close(b_HLM[:, 0, :2], here)
    assert not np.any(b_HLM[:, 0, 2])
    if not encoding.causal:
      close(b_HLM[:, 0, :2:-1], future)


def test_alibi_gives_the_odd_head_to_the_past():
  alibi = positions.build("alibi(both_ways='two_sided')").bidirectional()
  slope_H = alibi.constants(DIMS)["slope_H"]
  assert slope_H.tolist() == [2.0**-4, 2.0**-8, -(2.0**-8)]


@pytest.mark.parametrize("form", ["symmetric", "offset", "two_sided", "causal"])
def test_learned_slopes_start_as_alibi(form):
  here, there = np.arange(5), np.arange(9)
  for causal in (True, False):
    fields = f"both_ways='{form}', causal={causal}"
    alibi = start(f"alibi({fields})")
    expected, seen = bias(alibi, here, there), sees(alibi, here, there)
    for logarithm in (True, False):
      learned = start(f"alibi_learned(logarithm={logarithm}, {fields})")
      close(bias(learned, here, there), expected)
      np.testing.assert_array_equal(sees(learned, here, there), seen)


def test_alibi_ignores_what_is_the_same_for_all_keys():
  s_HLM, slope_H11 = det((H, L, L), 0.3), np.array(slopes(H))[:, None, None]
  past = np.tril(np.ones((L, L)))
  ours = np.where(past, s_HLM + bias(start("alibi"), *[np.arange(L)] * 2), -1e30)
  grows = np.where(past, s_HLM + slope_H11 * np.arange(L), -1e30)
  softmax = interpreted(jax.nn.softmax)
  close(softmax(ours), softmax(grows))


def test_kerple_numbers():
  far, zero, ones = np.array([0, 1, 10, 100]), np.zeros(1, int), np.ones(H)
  log = holds("kerple_log", weight_H=ones, rate_H=ones / 2)
  close(bias(log, zero, far)[0, 0], [0, -0.405465, -1.791759, -3.931826])
  three = holds(
    "kerple_log(exponent=True)", weight_H=ones, rate_H=ones / 2, exponent_H=ones
  )
  close(bias(three, zero, far), bias(log, zero, far))
  power = holds("kerple_power", weight_H=ones / 10, exponent_H=1.5 * ones)
  close(bias(power, far, zero)[0, :, 0], [0, -0.1, -3.162278, -100])


@pytest.mark.parametrize(
  ("spec", "stored", "used"),
  [
    ("kerple_log", [-1, 0.005, 3], [0.01, 0.01, 3]),
    ("kerple_log(exponent=True)", [-1, 1, 3], [0.01, 1, 2]),
    ("kerple_power", [-1, 1, 3], [0.01, 1, 2]),
  ],
)
def test_kerple_uses_parameters_within_limits_and_can_come_back(spec, stored, used):
  start_params = start(spec).params
  same = {name: jnp.full(H, 0.5) for name in start_params}
  name = "exponent_H" if "exponent_H" in same else "rate_H"
  here = np.arange(L)
  make = lambda values: bias(
    Bound(positions.build(spec), same | {name: jnp.float32(values)}), here, here
  )
  close(make(stored), make(used))
  gradient = interpreted(jax.grad(lambda values: jnp.sum(make(values))))(
    jnp.float32(stored)
  )
  assert np.all(np.isfinite(gradient)) and np.all(gradient < 0)
  assert within(jnp.float32(-3), 0.01) == jnp.float32(0.01)


def test_kerple_starts_in_the_intervals_of_the_authors():
  dims = dataclasses.replace(DIMS, H=400)
  log, power = (start(spec, dims).params for spec in ("kerple_log", "kerple_power"))
  for drawn, high in (
    (log["weight_H"], 2),
    (log["rate_H"], 1),
    (power["weight_H"], 1),
    (power["exponent_H"], 2),
  ):
    assert 0 <= drawn.min() < 0.05 * high and 0.95 * high < drawn.max() <= high


@pytest.mark.parametrize(
  ("spec", "params"),
  [
    ("kerple_log", {"weight_H": [0.5, 1, 2], "rate_H": [3, 0.5, 0.1]}),
    ("kerple_power", {"weight_H": [0.5, 1, 0.1], "exponent_H": [0.5, 1, 2]}),
  ],
)
def test_kerple_kernels_are_positive_definite_at_any_positions(spec, params):
  pos_L = np.random.default_rng(0).choice(1000, 40, replace=False)
  b_HLM = np.asarray(bias(holds(spec, **params), pos_L, pos_L), float)
  assert np.linalg.eigvalsh(np.exp(b_HLM)).min() > -1e-5
  # Its opposite is not: the sign matters.
  assert np.linalg.eigvalsh(np.exp(np.maximum(b_HLM, -9) * -1)).min() < -0.1


def test_sandwich_numbers():
  dims, zero = dataclasses.replace(DIMS, H=8, K=9), np.zeros(1, int)
  far = np.array([0, 1, 10, 100, 1000])
  product = [64, 62.093684, 42.820023, 30.543455, 10.177728]
  sandwich = start("sandwich", dims)
  b_HM = bias(sandwich, zero, far)[:, 0]
  # Phases of 1000 radians are exact to 6e-5 in float32.
  close(b_HM[0], product, atol=2e-4)
  close(b_HM[7, 2], 5.352503)
  b_HM = bias(sandwich, zero, np.arange(1, 2000))[:, 0]
  assert np.all(b_HM < 64 / np.arange(1, 9)[:, None])
  rises = np.mean(np.diff(b_HM[0]) > 0)
  assert 0 < rises < 0.6, "it falls, with ripples"


def test_sinusoids_of_tensor2tensor():
  spec, one_BL = (
    "sinusoidal(interleaved=False, full_range={})",
    coords.consecutive(1, 1, 1),
  )
  embed = interpreted(lambda x, at: positions.build(spec.format(True)).embed({}, x, at))
  paper = interpreted(positions.build(spec.format(False)).embed)
  zero_BLD = np.zeros((1, 1, 8), np.float32)
  close(np.arcsin(embed(zero_BLD, one_BL)[0, 0, 1:4]), [0.0464159, 0.00215443, 0.0001])
  close(np.arcsin(paper({}, zero_BLD, one_BL)[0, 0, 1:4]), [0.1, 0.01, 0.001])
  assert np.all(np.isfinite(embed(zero_BLD[..., :2], one_BL)))
  there = recorded("transformers/sinusoidal_tables")
  for size in ("50x32", "20x64"):
    length, D = map(int, size.split("x"))
    zero_BLD = np.zeros((1, length, D), np.float32)
    waves_BLD = embed(zero_BLD, coords.consecutive(1, length))
    close(waves_BLD[0], there[f"tensor2tensor_half/{size}"], atol=1e-5)


@pytest.mark.parametrize("both_ways", [False, True])
def test_one_bias_per_distance_holds_the_table_of_t5(both_ways):
  far, paper = np.arange(-300, 301), T5Paper(8, 128)
  t5 = holds(f"t5(buckets=8, causal={not both_ways})", table_HN=det((H, 8), 0.4))
  back = range(-128 if both_ways else 0, 129)
  bucket = [paper.bucket(-distance, both_ways) for distance in back]
  table_HN = t5.params["table_HN"][:, np.array(bucket)]
  each = holds(f"per_distance(causal={not both_ways})", table_HN=table_HN)
  zero = np.zeros(1, int)
  np.testing.assert_array_equal(bias(each, zero, far), bias(t5, zero, far))


def test_t5_with_a_bucket_per_distance_is_one_bias_per_distance():
  # 32 buckets hold distances below 16 each on its own, or below 8 on either side.
  pos_L = np.arange(L)
  table_HN = det((H, 9), 0.4)
  t5 = holds("t5", table_HN=np.pad(table_HN, ((0, 0), (0, 23))))
  each = holds("per_distance(max_distance=8)", table_HN=table_HN)
  np.testing.assert_array_equal(bias(t5, pos_L, pos_L), bias(each, pos_L, pos_L))
  table_HN = det((H, 32), 0.4)
  both = [*range(16 + 7, 16, -1), *range(8)]  # buckets from far future to far past
  each = holds("per_distance(7, causal=False)", table_HN=table_HN[:, both])
  t5 = holds("t5(causal=False)", table_HN=table_HN)
  here, there = np.arange(3, 5), np.arange(8)
  np.testing.assert_array_equal(bias(t5, here, there), bias(each, here, there))


@pytest.mark.parametrize("both_ways", [False, True])
def test_the_gradient_of_a_bias_per_distance_sums_diagonals(both_ways):
  encoding = start(f"per_distance(max_distance=8, causal={not both_ways})")
  g_HLM = det((H, L, L), 0.7) * (1 if both_ways else np.tril(np.ones((L, L))))
  loss = lambda position: jnp.sum(bias(position, np.arange(L), np.arange(L)) * g_HLM)
  gradient = interpreted(jax.grad(loss))(encoding).params["table_HN"]
  back = range(-8 if both_ways else 0, 9)
  diagonals = [np.trace(g_HLM, offset=-distance, axis1=1, axis2=2) for distance in back]
  close(gradient, np.array(diagonals).T)


def test_skew_numbers():
  q_LK = det((5, 4), 0.3)
  numbers = [1.647473, -0.210377, -1.685624, -0.095299, 1.668342]
  close(skew(q_LK @ det((5, 4), 0.9).T)[4], numbers)
  both = skew_both_ways(q_LK @ det((9, 4), 0.9).T)
  close(both[0], [2.449838, 1.030357, -2.26299, -1.440735, 2.001722])


@pytest.mark.parametrize("length", [1, 2, 5, 8])
def test_skew_moves_matches_with_distances_to_their_keys(length):
  causal = det((length, length), 0.1)
  both = det((length, 2 * length - 1), 0.1)
  skewed = interpreted(skew)(causal)
  skewed_both = interpreted(skew_both_ways)(both)
  for i in range(length):
    for j in range(length):
      assert skewed_both[i, j] == jnp.float32(both[i, j - i + length - 1])
      if j <= i:
        assert skewed[i, j] == jnp.float32(causal[i, length - 1 - (i - j)])


Q_BLHK = det((B, L, H, K), 0.2).astype(np.float32)


def test_music_transformer_is_the_skewed_matrix():
  past = np.tril(np.ones((L, L)))
  shear_all = lambda shear: interpreted(jax.vmap(jax.vmap(shear)))
  for causal, rows, shear, seen in (
    (True, L, shear_all(skew), past),
    (False, 2 * L - 1, shear_all(skew_both_ways), 1),
  ):
    table_HNK = det((H, rows, K), 0.5)
    music = holds(f"music_transformer(causal={causal})", table_HNK=table_HNK)
    match_BHLN = np.einsum("BLHK,HNK->BHLN", Q_BLHK, table_HNK)
    expected = K**-0.5 * shear(match_BHLN)
    close(scores(music, Q_BLHK, CAUSAL) * seen, expected * seen)


def test_music_transformer_is_shaw_without_values_or_a_clip():
  table_NK = det((2 * L - 1, K), 0.5)
  shaw = holds("shaw(max_distance=8)", key_NK=table_NK, value_NK=0 * table_NK)
  music = holds("music_transformer(shared=True, causal=False)", table_NK=table_NK)
  close(scores(music, Q_BLHK, CAUSAL), scores(shaw, Q_BLHK, CAUSAL))
  v_BLHK = det((B, L, H, K), 0.9).astype(np.float32)
  run = interpreted(
    lambda position: DENSE(Q_BLHK, v_BLHK, v_BLHK, CAUSAL, CAUSAL, position)
  )
  close(run(music), run(shaw))
  # Transformer-XL without its global terms, its table being projected sinusoids.
  project_HKD = det((H, K, 18), 0.8)
  zero = {"content_HK": np.zeros((H, K)), "position_HK": np.zeros((H, K))}
  xl = holds("transformer_xl", project_HKD=project_HKD, **zero)
  angle_NR = np.arange(L - 1, -1, -1)[:, None] / 10_000 ** (np.arange(9) / 9)
  waves_ND = np.concatenate([np.sin(angle_NR), np.cos(angle_NR)], axis=1)
  table_HNK = np.einsum("ND,HKD->HNK", waves_ND, project_HKD)
  close(run(holds("music_transformer", table_HNK=table_HNK)), run(xl), atol=1e-5)


def test_music_transformer_shares_the_farthest_row_beyond_its_table():
  table_NK = det((4, K), 0.5)
  short = holds("music_transformer(max_distance=4, shared=True)", table_NK=table_NK)
  long_NK = np.concatenate([np.repeat(table_NK[:1], L - 4, axis=0), table_NK])
  long = holds("music_transformer(shared=True)", table_NK=long_NK)
  past = np.tril(np.ones((L, L)))
  close(scores(short, Q_BLHK, CAUSAL) * past, scores(long, Q_BLHK, CAUSAL) * past)


def test_continuous_bias_of_x_transformers():
  there = recorded("x_transformers/dynamic_position_bias")
  spec = "cpb(log=False, width=12, depth=2, activation='silu', limit=0)"
  position = Bound(
    positions.build(spec),
    {
      "in_W": there["mlp.0.0.weight"][:, 0],
      "in_shift_W": there["mlp.0.0.bias"],
      "hidden_NWW": there["mlp.1.0.weight"].T[None],
      "hidden_shift_NW": there["mlp.1.0.bias"][None],
      "out_HW": there["mlp.2.weight"],
      "out_shift_H": there["mlp.2.bias"],
    },
  )
  for queries, keys in ((9, 9), (4, 11)):
    b_HLM = bias(position, np.arange(keys - queries, keys), np.arange(keys))
    close(b_HLM, there[f"q{queries}_k{keys}"], atol=1e-5)


def test_continuous_bias_is_limited_and_starts_with_corners_at_many_distances():
  cpb = start("cpb(width=200)")
  b_HLM = bias(cpb, np.zeros(1, int), np.arange(-(10**6), 10**6, 999))
  assert np.all((b_HLM >= 0) & (b_HLM <= 16)) and np.ptp(b_HLM) > 1
  corner_W = -cpb.params["in_shift_W"] / cpb.params["in_W"]
  assert np.sum(np.abs(corner_W) > np.log(3)) > 20


@pytest.mark.parametrize(
  ("spec", "says"),
  [
    (
      "alibi(both_ways='ofset')",
      "no both_ways='ofset'. Did you mean 'offset'? Choose from symmetric, offset,",
    ),
    ("alibi_learned(both_ways='no')", "Choose from symmetric"),
    ("sandwich(width=7)", "even width of at least 2, not 7"),
    ("sandwich(width=0)", "even width of at least 2, not 0"),
    ("per_distance(max_distance=0)", "max_distance of at least 1, not 0"),
    ("cpb(depth=0)", "at least 1, not 0 and 32"),
    ("cpb(width=0)", "at least 1, not 1 and 0"),
    (
      "cpb(activation='rely')",
      "no activation 'rely'. Did you mean 'relu'? Choose from relu, silu.",
    ),
    ("music_transformer(max_distance=0)", "max_distance of at least 1, not 0"),
  ],
)
def test_bad_arguments_are_refused(spec, says):
  with pytest.raises(SpecError) as error:
    positions.build(spec)
  assert says in str(error.value)


def test_two_sides_need_two_heads():
  alibi = positions.build("alibi(both_ways='two_sided')")
  one = dataclasses.replace(DIMS, H=1)
  assert alibi.constants(one)["slope_H"].tolist() == slopes(1)
  with pytest.raises(ValueError, match="at least 2 heads or another both_ways"):
    alibi.bidirectional().constants(one)


@pytest.mark.parametrize(
  ("spec", "own"),
  [
    ("kerple_log", False),
    ("kerple_power", False),
    ("t5", False),
    ("alibi_learned", True),
    ("per_distance", True),
    ("cpb", True),
    ("music_transformer", True),
  ],
)
def test_layers_share_what_the_papers_share(spec, own):
  encoding = positions.build(spec)
  params = jax.eval_shape(lambda: encoding.init(jax.random.key(0), DIMS))
  assert params and all(encoding.in_layer(name) == own for name in params)
  if spec not in ("t5", "music_transformer"):
    assert positions.build(f"{spec}(per_layer={not own})").in_layer("") != own
