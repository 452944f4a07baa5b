"""Encodings that turn queries and keys: their papers' numbers, identities and edges.

Numbers under `third_party/` come from other people's programs; the others from the
papers' formulas evaluated in NumPy on inputs that anybody can repeat.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_positions as contract
from interpreted import interpreted
from oracles import rotary
from test_papers import RAMP8, close, det, one_head
from test_recorded import DENSE, recorded

from transformer_jax.axes import Dims
from transformer_jax.positions import Bound, bind, coords, positions
from transformer_jax.positions.pope import polar
from transformer_jax.positions.rope import turn_pairs
from transformer_jax.positions.rope_dynamic import lengths


def build(spec):
  return positions.build(spec)


def frequencies(spec, K=128):
  """Returns the radians per position of a head of width K."""
  encoding = build(spec)
  return np.asarray(encoding.frequencies({}, encoding.pairs(K)))


# What other programs gave.


@functools.partial(interpreted, statics=1)
def turn(encoding, params, q_BLHK, k_BMHK, q_at, k_at):
  return encoding.transform_qk(params, q_BLHK, k_BMHK, q_at, k_at)


def placed(pos_L):
  """Returns the coordinates of one row of tokens at these positions."""
  at = coords.consecutive(1, len(pos_L))
  return at.replace(pos_BL=jnp.asarray(pos_L, jnp.int32)[None])


def table(spec, K, pos_L, length=1):
  """Returns cosines and sines [L, R] of the angles in a text of that length."""
  encoding = build(spec)
  R, dims = encoding.pairs(K), Dims(V=2, D=K, H=1, F=2, L=length)
  # A pair (1, 0) turned by an angle is that angle's cosine and sine.
  first_K = np.arange(K) % 2 == 0 if encoding.interleaved else np.arange(K) < R
  x_BLHK = jnp.broadcast_to(jnp.float32(first_K), (1, len(pos_L), 1, K))
  q_at, k_at, params = placed(pos_L), placed([length - 1]), encoding.constants(dims)
  turned = np.asarray(turn(encoding, params, x_BLHK, x_BLHK[:, :1], q_at, k_at)[0])
  if encoding.interleaved:
    return turned[0, :, 0, ::2], turned[0, :, 0, 1::2]
  return turned[0, :, 0, :R], turned[0, :, 0, R:]


def compare(spec, K, pos_L, length, cos_LR, sin_LR):
  ours = table(spec, K, pos_L, length)
  # Angles are float32 numbers as large as the position, and so are theirs.
  allowed = 2e-6 + 2e-7 * pos_L[:, None]
  for actual, expected in zip(ours, (cos_LR, sin_LR), strict=True):
    assert np.all(np.abs(actual - expected) < allowed), spec
  return ours


SHORT = tuple(1 + 0.01 * m for m in range(16))
LONG = tuple(1 + 0.25 * m * m for m in range(16))
PHI = f"longrope(factor=8, original=4096, short={SHORT}, long={LONG})"


@pytest.mark.parametrize(
  ("name", "spec", "K", "length"),
  [
    ("linear_4", "rope_linear(factor=4)", 64, 1),
    ("dynamic_2/len1024", "rope_dynamic(factor=2, original=2048)", 64, 1024),
    ("dynamic_2/len4096", "rope_dynamic(factor=2, original=2048)", 64, 4096),
    ("dynamic_2/len10000", "rope_dynamic(factor=2, original=2048)", 64, 10000),
    ("yarn_4_of_32768", "rope_yarn(1e6, factor=4, original=32768)", 64, 1),
    ("yarn_16_of_2048", "rope_yarn(original=2048)", 64, 1),
    ("llama3_1_8b", "rope_llama3", 128, 1),
    ("longrope/len4096", PHI, 32, 4096),
    ("longrope/len4097", PHI, 32, 4097),
  ],
)
def test_tables_of_transformers(name, spec, K, length):
  there = recorded("transformers/rope_scalings")
  pos_L, expected = there["positions"], (there[f"{name}/cos"], there[f"{name}/sin"])
  cos_LR, sin_LR = compare(spec, K, pos_L, length, *expected)
  assert pos_L[1] == 1
  frequency_R = np.arctan2(sin_LR[1], cos_LR[1])
  np.testing.assert_allclose(frequency_R, there[f"{name}/inv_freq"], rtol=2e-6)
  gain = np.hypot(sin_LR[1], cos_LR[1])
  np.testing.assert_allclose(gain, there[f"{name}/attention_factor"], rtol=1e-6)


@pytest.mark.parametrize(
  ("model", "spec", "K"),
  [
    ("llama_rope_linear", "rope_linear(factor=4)", 16),
    ("llama_rope_dynamic", "rope_dynamic(factor=2, original=16)", 16),
    ("llama_rope_llama3", "rope_llama3(base=1e4, original=32)", 16),
    ("llama_rope_yarn", "rope_yarn(factor=4, original=32)", 16),
    ("gpt_oss", "rope_yarn(factor=4, original=16, truncate=False)", 16),
    ("deepseek_v2_mla", "rope(interleaved=True)", 8),
  ],
)
def test_tables_inside_of_models(model, spec, K):
  there = recorded("transformers/rope_models")
  cos_LR, sin_LR = (there[f"{model}/{name}"][:, : K // 2] for name in ("cos", "sin"))
  compare(spec, K, np.arange(len(cos_LR)), len(cos_LR), cos_LR, sin_LR)


def test_attention_of_a_llama_with_yarn():
  there = recorded("transformers/rope_models")
  part = lambda name: there[f"llama_rope_yarn/{name}"]
  L, H, K = 40, 2, 16
  project = lambda name: (part("hidden") @ part(f"{name}_proj.weight").T).reshape(
    1, L, -1, K
  )
  q, k, at = project("q"), np.repeat(project("k"), H, 2), coords.padded(part("real"))
  each_key = jnp.broadcast_to(jnp.eye(L)[None, :, None], (1, L, H, L))
  position = Bound(build("rope_yarn(factor=4, original=32)"))

  @interpreted
  def attend(q, k):
    q, k = position.transform_qk(q, k, at, at)
    return DENSE(q, k, each_key, at, at, position, K**-0.5)

  w_BLHM = attend(q, k)
  close(w_BLHM, np.moveaxis(part("attn_probs"), 1, 2), atol=1e-5)


@pytest.mark.parametrize("layout", ["rotate_half", "interleaved"])
def test_part_of_a_head_turns_as_in_gpt_neox_and_gpt_j(layout):
  full, there = (recorded(f"transformers/rope_apply{x}") for x in ("", "_partial"))
  spec = f"partial_rope(fraction=0.5, interleaved={layout == 'interleaved'})"
  at = placed(full["positions_offset"])
  q, k = (np.moveaxis(full[name], 1, 2) for name in "qk")
  for ours, which in zip(turn(build(spec), {}, q, k, at, at), "qk", strict=True):
    expected = np.moveaxis(there[f"partial_{layout}/{which}"], 1, 2)
    close(ours, expected, atol=2e-5)  # angles up to 49 radians


def matches(spec, params, q_BLHK, k_BMHK, q_at, k_at):
  """Returns the dot products of queries and keys after they were turned."""
  q_BLHK, k_BMHK = turn(build(spec), params, q_BLHK, k_BMHK, q_at, k_at)
  return np.einsum("BLHK,BMHK->BHLM", q_BLHK, k_BMHK)


def test_xpos_of_x_transformers():
  there, at = recorded("x_transformers/xpos"), coords.consecutive(1, 14)
  q, k = (np.moveaxis(there[name], 1, 2) for name in "qk")
  close(matches("xpos", {}, q, k, at, at), there["scores"], atol=2e-5)


def test_pope_of_x_transformers():
  there, at = recorded("x_transformers/pope"), coords.consecutive(1, 12)
  q, k = (np.moveaxis(there[name], 1, 2) for name in "qk")
  phase_HK = there["learned_bias"][:, 0]
  assert phase_HK.min() < -2 * math.pi and phase_HK.max() > 0, "beyond what is allowed"
  scores = matches("pope", {"phase_HK": jnp.array(phase_HK)}, q, k, at, at)
  close(scores, there["scores"], atol=2e-5)
  angle_BL1K = np.arange(12)[None, :, None, None] * 1e4 ** (-np.arange(8) / 8)
  close(polar(jnp.array(q), angle_BL1K), np.moveaxis(there["q_out"], 1, 2), atol=2e-6)


# Numbers from the papers' formulas.


def test_numbers_of_static_scalings():
  at = np.array([0, 16, 32, 48, 63])
  near = functools.partial(np.testing.assert_allclose, rtol=1e-6)
  near(frequencies("rope")[at], [1, 0.1, 0.01, 0.001, 1.154782e-4])
  near(frequencies("rope_linear")[at], [0.25, 0.025, 0.0025, 0.00025, 2.886955e-5])
  ntk = [1, 0.0703228, 0.00494529, 3.477664e-4, 2.886955e-5]
  near(frequencies("rope_ntk")[at], ntk)
  near(frequencies("rope_ntk"), frequencies("rope(base=40889.942432)"))
  yarn, paper = (frequencies(f"rope_yarn(by_turns={x})") for x in (False, True))
  near(yarn[[24, 32, 40]], [0.0270618, 0.005673077, 8.81789e-4])
  near(paper[[24, 32, 40]], [0.02073477, 0.002294048, 2.991557e-4])
  plain = frequencies("rope")
  near(yarn[:21], plain[:21])
  near(yarn[46:], plain[46:] / 16)
  assert not np.any(np.isclose(yarn[21:46], plain[21:46]))
  llama3 = [1, 0.003211446, 0.002166571, 5.248462e-4, 1.785078e-4, 9.556212e-5]
  at = [0, 28, 29, 32, 34, 35, 63]
  near(frequencies("rope_llama3")[at], [*llama3, 3.068926e-7])
  near(frequencies("p_rope(p=0.75)", 8), [1, 0.1, 0.01, 0])
  near(frequencies("p_rope(p=0.25)", 8), [1, 0, 0, 0])


def test_numbers_of_gains():
  close(build("rope_yarn").gain({}), 1.277259)
  for factor, gain in ((32, 1.190238), (8, 1.118034)):
    longrope = build(f"longrope(factor={factor}, original=4096)")
    close(longrope.gain(longrope.constants(contract.DIMS)), gain)
  # Both growths alike, as in DeepSeek-V3: features stay, whole scores grow.
  deepseek = build("rope_yarn(factor=40, mscale=1, mscale_all=1)")
  assert deepseek.gain({}) == 1
  close(deepseek.temperature({}, None), 1.3688879**2)


def test_numbers_of_dynamic_ntk():
  bases = {1: (20221.261690, 40889.942432), 2: (30527.736749, 72195.860087)}
  for factor, expected in bases.items():
    dynamic = build(f"rope_dynamic(factor={factor}, original=2048)")
    params = dynamic.constants(contract.DIMS)
    for length, base in zip((4096.0, 8192.0), expected, strict=True):
      found = dynamic.frequencies_of(params, 64, jnp.float32(length), None)
      np.testing.assert_allclose(found, frequencies(f"rope(base={base})"), rtol=2e-6)


def test_part_of_a_head_turns_in_numbers():
  x = np.float32(RAMP8)[None, None, None]
  turned, _ = turn(build("partial_rope"), {}, x, x, placed([3]), placed([3]))
  close(turned[0, 0, 0], [-0.127223, -0.183886, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])


def test_xpos_numbers():
  q, k = (np.float32(x)[None, None, None] for x in (RAMP8, RAMP8[::-1]))
  match = lambda i, j: matches("xpos", {}, q, k, placed([i]), placed([j]))[0, 0, 0, 0]
  close(match(7, 3), 0.832223)
  close(match(519, 515), 0.832223, atol=1e-5)
  close(match(519, 3), 0.304954, atol=1e-5)


def test_pope_numbers():
  q, k, at = det((4, 4), 0.1), det((4, 4), 0.6), coords.consecutive(1, 4)
  scores = lambda phase: one_head("pope", {"phase_HK": [[phase] * 4]}, q, k, k, at)[0]
  # Scores there are divided by the root of the width after turning, here 8.
  wide = 2**-0.5
  close(scores(0)[3], wide * np.array([0.540535, 0.386992, 0.236419, 0.337343]))
  close(scores(-1)[3], wide * np.array([0.219301, 0.029626, 0.064478, 0.182267]))


def test_carope_numbers():
  carope = build("carope")
  logits_BLD = jnp.asarray(det((1, 4, 1), 0.2), jnp.float32)
  position = Bound(carope, {"rate_DH": jnp.ones((1, 1)), "power_R": jnp.arange(1.0, 3)})
  read = lambda x: position.read(x, None, coords.consecutive(1, 4))
  at = interpreted(read)(logits_BLD)
  close(at.data["rate_BLH"][0, :, 0], [0.556357, 0.500268, 0.459491, 0.436938])
  angle_BLHR = interpreted(position.accumulate)(at).data["angle_BLHR"]
  close(angle_BLHR[0, -1, 0], [1.953053, 0.961847])


def test_rank_two_rotations_add_up():
  a, b = np.array([1, 0, 0.5, 0]), np.array([0, 1, 0, 0.5])
  turned = functools.partial(rotary.rank_two, a, b)
  close(turned(2)[0], [-0.440915, 0.478778, -0.720457, 0.239389])
  close(turned(2) @ turned(3), turned(5))
  close(turned(3) @ turned(3).T, np.eye(4))
  grape, x = build("grape_m"), np.float32(RAMP8)[None, None, None]
  params = {"log_frequency_R": jnp.array([1.0, -2.0, 0.0, 5.0])}
  rotate = interpreted(lambda x, n: grape.rotate(params, x, n[None, None]))
  close(rotate(rotate(x, 2), 3), rotate(x, 5))


# Identities and edges.


def test_a_scaling_by_one_is_rope():
  for spec in (
    "rope_linear(factor=1)",
    "rope_ntk(factor=1)",
    "rope_yarn(factor=1)",
    "rope_yarn(factor=1, by_turns=True)",
    "rope_llama3(base=1e4, factor=1)",
    "p_rope(p=1)",
    "partial_rope(fraction=1)",
  ):
    np.testing.assert_allclose(frequencies(spec), frequencies("rope"), rtol=1e-12)
    assert build(spec).gain({}) == build(spec).temperature({}, None) == 1.0
  assert np.all(frequencies("rope_linear(factor=1e30)") < 1e-29)
  assert frequencies("partial_rope(fraction=0)").shape == (0,)
  long = f"longrope(factor=1, original=9, short={(1.0,) * 4}, long={(1.0,) * 4})"
  for spec in (long, "rope_dynamic(original=40)"):
    same = zip(table(spec, 8, np.arange(40), 40), table("rope", 8, np.arange(40)),
               strict=True)  # fmt: skip
    for actual, expected in same:
      close(actual, expected)


@pytest.mark.parametrize("spec", ["rope(", "rope_dynamic(", "xpos(interleaved=False, "])
def test_a_reversed_rotation_is_one_of_exchanged_halves(spec):
  x_BLHK = det((1, 6, 2, 8), 0.3)
  at, swapped = coords.consecutive(1, 6), np.roll(x_BLHK, 4, axis=-1)
  params = {"original": 4} if "dynamic" in spec else {}
  run = lambda spec, x: turn(build(spec), params, x, x, at, at)
  for got, want in zip(
    run(f"{spec}reverse=True)", x_BLHK), run(f"{spec})", swapped), strict=True
  ):
    close(got, np.roll(want, 4, axis=-1))
    assert np.abs(got - run(f"{spec})", x_BLHK)[0]).max() > 0.1


def test_xpos_without_decay_is_rope():
  q, k = (np.float32(det((1, 6, 1, 8), shift)) for shift in (0.1, 0.6))
  at, specs = coords.consecutive(1, 6), ("xpos(gamma=1e9)", "rope(interleaved=True)")
  xpos, rope = (matches(spec, {}, q, k, at, at) for spec in specs)
  close(xpos, rope)


def test_xpos_stays_finite_and_decays_however_far_its_positions():
  x_BLHK = jnp.asarray(det((1, 4, 1, 8), 0.3), jnp.float32)
  position = Bound(build("xpos"))

  @interpreted
  @functools.partial(jax.value_and_grad, has_aux=True)
  def attend(x_BLHK, at):
    q, k = position.transform_qk(x_BLHK, x_BLHK, at, at)
    out_BLHK = DENSE(q, k, x_BLHK, at, at, position)
    return jnp.sum(out_BLHK), jnp.einsum("BLHK,BMHK->BHLM", q, k)[0, 0]

  near = attend(x_BLHK, placed([0, 1, 2, 3]))[0][1]
  shifted = attend(x_BLHK, placed(2**20 + np.arange(4)))[0][1]
  close(shifted, near, atol=0.07)  # phases of a million radians
  far = 2**20
  for pos_L in ([0, 1, far, far + 1], [0, 20_000, 40_000, 60_000]):
    (_, scores), gradient = attend(x_BLHK, placed(pos_L))
    assert np.all(np.isfinite(scores)) and np.all(np.isfinite(gradient))
    assert np.abs(scores[2:, :2]).max() < 1e-3, "far keys are forgotten"
    assert np.all(np.diag(scores) > 0.1), "a token still matches itself"


def test_phases_of_pope_can_leave_their_start():
  pope, dims = build("pope"), Dims(V=2, D=8, H=2, F=2, L=4)
  q, k = (jnp.asarray(det((1, 4, 2, 4), s), jnp.float32) for s in (0.1, 0.6))
  at, params = coords.consecutive(1, 4), pope.init(jax.random.key(0), dims)
  assert not np.any(params["phase_HK"])

  @interpreted
  @jax.grad
  def slope(params):
    q_BLHK, k_BMHK = pope.transform_qk(params, q, k, at, at)
    return jnp.sum(jnp.einsum("BLHK,BMHK->BHLM", q_BLHK, k_BMHK)[:, :, 3, :2])

  start = slope(params)["phase_HK"]
  just_below = slope({"phase_HK": params["phase_HK"] - 1e-4})["phase_HK"]
  close(start, just_below, atol=1e-3)
  assert np.abs(start).min() > 1e-3
  spread = build("pope(anywhere=True)").init(jax.random.key(0), dims)["phase_HK"]
  assert -2 * math.pi <= spread.min() < -4 and -2 < spread.max() <= 0


MORE = [
  "rope_dynamic(factor=2, original=7)",
  "longrope(original=13, first=3)",
  "grape_m(contextual=True)",
]


@pytest.mark.parametrize(
  "spec", [MORE[0], *(pytest.param(spec, marks=pytest.mark.slow) for spec in MORE[1:])]
)
def test_the_contract_holds_in_texts_that_outgrow_their_original_length(spec):
  encoding = build(spec)
  contract.test_packed_and_padded_rows_equal_the_texts_alone(encoding)
  contract.test_what_comes_later_changes_nothing_unless_declared(encoding)
  # The first text of row 1 is the shorter one, and does not see that.
  ends = jnp.array([[contract.CUT], [4]])
  first = contract.with_ids(coords.padded(jnp.arange(contract.L) < ends))
  alone = contract.outputs(encoding, first)
  packed = contract.outputs(encoding, contract.MODES["packed"])
  for row, length in ((0, contract.CUT), (1, 4)):
    np.testing.assert_allclose(packed[row, :length], alone[row, :length], atol=5e-6)
  # A step of decoding is one pass over the text so far, though its length decides.
  given, at = contract.inputs(encoding), contract.MODES["causal"]
  decoded = jax.jit(functools.partial(contract.decoded, "dense", encoding))(given, at)
  whole = contract.outputs(encoding, at)
  half = contract.outputs(encoding, contract.MODES["first_half"])
  np.testing.assert_allclose(decoded[:, 11], half[:, 11], atol=1e-5)
  np.testing.assert_allclose(decoded[:, -1], whole[:, -1], atol=1e-5)
  if encoding.needs_full_text:
    assert np.abs(half[:, 11] - whole[:, 11]).max() > 1e-3, "length decides"


def test_the_length_of_each_text_needs_no_table_of_tokens_by_tokens():
  at = coords.packed(jnp.array([[1, 1, 1, 2, 2, 0], [0, 0, 4, 4, 4, 4]]))
  assert lengths(at, at).tolist() == [[3, 3, 3, 2, 2, 0], [0, 0, 4, 4, 4, 4]]
  at = coords.consecutive(1, 4096)
  compiled = jax.jit(lengths).lower(at, at).compile()
  assert compiled.memory_analysis().temp_size_in_bytes < 4096**2


@pytest.mark.parametrize(
  ("spec", "message"),
  [
    ("rope(base=1)", "base above 1"),
    ("rope(fraction=1.5)", "fraction .* from 0 to 1"),
    ("rope_linear(factor=0.5)", "factor .* choose 1 or more"),
    ("p_rope(p=2)", "p_rope: p .* from 0 to 1"),
    ("rope_yarn(fast=1)", "rope_yarn.*0 < slow < fast"),
    ("rope_yarn(original=0)", "rope_yarn: original"),
    ("rope_llama3(slow=0)", "rope_llama3.*0 < slow < fast"),
    ("rope_dynamic(original=1)", "original .* 2 or more"),
    ("xpos(gamma=0)", "xpos .*gamma above 0"),
  ],
)
def test_bad_arguments_are_refused(spec, message):
  with pytest.raises(ValueError, match=message):
    build(spec)


def turned(encoding, dims):
  position = bind(encoding, encoding.init(jax.random.key(0), dims), dims)
  x, at = jnp.zeros((1, 1, 1, dims.K)), coords.consecutive(1, 1)
  return position.transform_qk(x, x, at, at)


def test_bad_widths_are_refused():
  odd = Dims(V=2, D=7, H=1, F=2, L=4)
  for spec in ("rope", "xpos", "grape_m", "carope", "selective_rope", "longrope"):
    with pytest.raises(ValueError, match="even number .* not 7 of 7"):
      jax.eval_shape(functools.partial(turned, build(spec), odd))
  with pytest.raises(ValueError, match="not 1 of 4; .*fraction"):
    build("partial_rope").pairs(4)
  with pytest.raises(ValueError, match="4 pairs .* short has 2 divisors"):
    table("longrope(short=(1.0, 2.0))", 8, np.arange(2))


def complex_turn(x_BLHK, angle_BLHR, gain, interleaved):
  """Returns pairs as complex numbers times gain e^(i angle), in NumPy."""
  R, half = angle_BLHR.shape[-1], x_BLHK[..., : 2 * angle_BLHR.shape[-1]]
  parts = half.reshape(*half.shape[:-1], R, 2)
  if not interleaved:
    parts = np.stack([half[..., :R], half[..., R:]], -1)
  pairs = (parts[..., 0] + 1j * parts[..., 1]) * gain * np.exp(1j * angle_BLHR)
  both = [pairs.real, pairs.imag]
  rotated = np.stack(both, -1) if interleaved else np.concatenate(both, -1)
  return np.concatenate([rotated.reshape(half.shape), x_BLHK[..., 2 * R :]], -1)


@pytest.mark.parametrize("interleaved", [False, True])
def test_gradients_are_those_of_complex_numbers(interleaved):
  """By differences: of features, of learned angles and of a learned gain."""
  rng = np.random.default_rng(0)
  x, g = rng.normal(size=(2, 2, 5, 3, 10))
  angle, gain = rng.normal(size=(1, 5, 3, 4)), rng.normal(size=4)
  args = x, angle, gain

  def loss(args):
    return jnp.sum(turn_pairs(args[0], args[1], interleaved, args[2]) * g)

  got = jax.jit(jax.grad(loss))(tuple(jnp.asarray(a, jnp.float32) for a in args))
  for n, d in enumerate(got):
    way = rng.normal(size=args[n].shape)
    ends = []
    for step in (1e-4, -1e-4):
      moved = [a + step * way if m == n else a for m, a in enumerate(args)]
      ends.append(np.sum(complex_turn(*moved, interleaved) * g))
    want = (ends[0] - ends[1]) / 2e-4
    np.testing.assert_allclose(np.sum(np.asarray(d) * way), want, rtol=2e-4, atol=1e-3)


def test_gradients_of_rope_have_neither_float32_zeros_nor_features_of_before():
  """What the backward pass takes from the forward pass are angles alone."""
  x, g = (jax.ShapeDtypeStruct((2, 6, 3, 8), jnp.bfloat16),) * 2
  angle = jnp.ones((1, 6, 1, 4))
  run = lambda x, g: jax.vjp(lambda x: turn_pairs(x, angle, False), x)[1](g)
  text = str(jax.make_jaxpr(jax.jit(run))(x, g))
  assert not [name for name in ("pad[", "scatter", "0.0:f32") if name in text]
  _, pull = jax.eval_shape(
    lambda x: jax.vjp(lambda x: turn_pairs(x, angle, False), x), x
  )
  kept = [leaf.shape for leaf in jax.tree.leaves(pull)]
  assert (2, 6, 3, 8) not in kept and (1, 6, 1, 4) in kept
