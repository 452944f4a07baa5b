"""Encodings that look at the tokens: their papers' numbers, identities and edges.

Numbers under `third_party/` come from other people's programs; the others from the
papers' formulas evaluated in NumPy on inputs that anybody can repeat.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from interpreted import interpreted
from oracles import content
from test_papers import close, det
from test_recorded import DENSE, recorded

from transformer_jax.attention.variants.bound_variant import visible
from transformer_jax.axes import Dims
from transformer_jax.positions import Bound, bind, coords, positions
from transformer_jax.positions.deberta import bucket, rows

Q, K, ZERO = det((4, 4), 0.1), det((4, 4), 0.6), np.zeros((4, 4))
CAUSAL = coords.consecutive(1, 4)


@functools.partial(interpreted, statics=1)
def changed(encoding, params, s_HLM, q_LHK, k_MHK, q_at, k_at, scale):
  """Returns scores after the encoding changed them, before the mask."""
  position, mask_BLM = Bound(encoding, params), visible(q_at, k_at)
  given = q_LHK[None], k_MHK[None], q_at, k_at, mask_BLM, scale
  return position.full_scores(position.score(s_HLM[None], *given), *given)[0]


def one_head(spec, params, q_LK, k_MK, q_at=CAUSAL, k_at=None):
  """Returns the scores s_LM of one head, from data that is accumulated already."""
  scale = q_LK.shape[-1] ** -0.5
  arrays = scale * (q_LK @ k_MK.T)[None], q_LK[:, None], k_MK[:, None]
  params, arrays = float32((params, arrays))
  k_at = q_at if k_at is None else k_at
  return changed(positions.build(spec), params, *arrays, q_at, k_at, scale)[0]


def float32(tree):
  array = lambda x: jnp.asarray(x, jnp.float32)
  return jax.tree.map(array, tree, is_leaf=lambda x: isinstance(x, list))


def holding(at, **data):
  """Returns coordinates with token data, [L, ...] of one head or [L]."""
  where = {"order_BL": at.order_BL, "segment_BL": at.segment_BL}
  return at.replace(data=where | {n: jnp.asarray(x)[None] for n, x in data.items()})


def read(spec, params, x_LD, at=CAUSAL):
  """Returns coordinates with what the encoding read off the tokens and summed."""
  position = Bound(positions.build(spec), float32(params))
  x_BLD = jnp.asarray(x_LD, jnp.float32)[None]
  return interpreted(lambda x: position.accumulate(position.read(x, None, at)))(x_BLD)


# DeBERTa and TUPE: vectors of positions that match queries and keys.


def test_deberta_numbers():
  params = {"table_ND": np.eye(4), "query_HDK": det((1, 4, 4), 1.1)}
  params["key_HDK"] = det((1, 4, 4), 1.7)
  scores = one_head("deberta(max_distance=2)", params, Q, K, CAUSAL.bidirectional())
  close(scores[0], [-0.745469, -0.529866, -0.149775, 0.355321])
  close(scores[3], [-0.218126, -0.313421, 0.505351, 2.053845])


def test_deberta_buckets():
  back = np.array([15, 16, 17, 40, 127, -40])
  assert bucket(back, 32, 128).tolist() == [15, 16, 17, 23, 31, -23]


@pytest.mark.parametrize(
  "max_distance, buckets",
  [(512, None), (2, None), (512, 256), (128, 32), (7, 4), (32, 8)],
)
def test_deberta_rows_are_exact_from_far_future_to_far_past(max_distance, buckets):
  deberta = positions.build(f"deberta(max_distance={max_distance}, buckets={buckets})")
  back = np.arange(-max_distance, max_distance + 1)
  expected = [content.Deberta(max_distance, buckets).delta(int(n), 0) for n in back]
  np.testing.assert_array_equal(rows(deberta), expected)
  assert {rows(deberta)[0], rows(deberta)[-1]} == {0, 2 * (buckets or max_distance) - 1}


def test_deberta_weights_of_transformers():
  there, H, D = recorded("transformers/deberta_v2"), 4, 32
  hidden_LD, L = there["hidden"][0], there["hidden"].shape[1]
  names = {"norm.weight": "gain_D", "norm.bias": "shift_D"}
  norm = {ours: there[name] for name, ours in names.items()}
  table_ND = [content.layer_norm(norm, x_D, 1e-7) for x_D in there["rel_embeddings"]]
  # Its projections of content, which have shifts, also project the table. A table with
  # a feature that is always one has these shifts in the projection.
  shifted = {}
  for name in ("query", "key"):
    weights = there[f"{name}_proj.weight"].T, there[f"{name}_proj.bias"]
    shifted[name] = np.vstack(weights).reshape(D + 1, H, -1)
  params = {f"{name}_HDK": np.moveaxis(w, 1, 0) for name, w in shifted.items()}
  params["table_ND"] = np.hstack([table_ND, np.ones((len(table_ND), 1))])
  tokens_LD = np.hstack([hidden_LD, np.ones((L, 1))])
  q, k = (np.einsum("LD,DHK->LHK", tokens_LD, w)[None] for w in shifted.values())
  deberta = positions.build("deberta(max_distance=32, buckets=8, released=True)")
  position = Bound(deberta, float32(params))
  real_BL = there["attention_mask"] > 0
  at = coords.padded(jnp.asarray(real_BL)).bidirectional()
  each_key = jnp.broadcast_to(jnp.eye(L)[None, :, None], (1, L, H, L))
  attend = interpreted(lambda q, k: DENSE(q, k, each_key, at, at, position))
  w_HLM = np.moveaxis(attend(*float32((q, k)))[0], 1, 0)
  expected = there["attn_probs"][0]
  assert 0 < np.sum(real_BL) < L
  close(w_HLM * real_BL[0][:, None], expected * real_BL[0][:, None], atol=5e-6)


def test_deberta_shares_its_table_and_projects_it_in_each_layer():
  deberta = positions.build("deberta(norm=True)")
  shapes = jax.eval_shape(
    lambda: deberta.init(jax.random.key(0), Dims(V=2, D=8, H=2, F=2, L=4))
  )
  assert {name for name in shapes if not deberta.in_layer(name)} == {
    "table_ND",
    "gain_D",
    "shift_D",
  }
  assert shapes["table_ND"].shape == (1024, 8)


TUPE = {"table_LD": det((4, 4), 0.9), "query_HDK": det((1, 4, 4), 0.2)}
TUPE |= {"key_HDK": det((1, 4, 4), 0.5)}
ENDS = {"from_first_H": [0.7], "to_first_H": [-0.3]}


def test_tupe_numbers():
  scores = one_head("tupe(norm=False)", TUPE, Q, K)
  close(scores[2], [-0.670378, 0.192324, 0.705254, -0.064431])
  first = holding(CAUSAL, first_BL=np.float32([1, 0, 0, 0]))
  untied = one_head("tupe(norm=False, untie=True)", TUPE | ENDS, Q, K, first)
  close(untied[2, 0], -0.87715)
  close(untied[1:, 1:], scores[1:, 1:])


def test_tupe_unties_the_first_token_of_each_text_wherever_it_is():
  segment_BL = jnp.array([[0, 5, 5, 6]])
  at = coords.packed(segment_BL).replace(pos_BL=jnp.array([[0, 2, 3, 1]]))
  at = read("tupe(untie=True)", {}, ZERO, at)
  bare = one_head("tupe(norm=False)", TUPE, ZERO, ZERO, at)
  scores = one_head("tupe(norm=False, untie=True)", TUPE | ENDS, ZERO, ZERO, at)
  close(scores[1], [0.7] * 4)
  close(scores[2], [bare[2, 0], -0.3, bare[2, 2], -0.3])
  close(scores[3], [0.7] * 4)


# CoPE: positions are counts of tokens that the query looks for.


def counts(q_LK, k_LK, longest):
  """Returns CoPE's positions of the last row, from vectors that match it by n."""
  q_K = q_LK[-1]
  table_NK = np.arange(longest)[:, None] * q_K / (q_K @ q_K)
  spec, scale = f"cope(max_positions={longest})", q_LK.shape[-1] ** -0.5
  return one_head(spec, {"table_NK": table_NK}, q_LK, k_LK)[-1] - scale * k_LK @ q_K


def test_cope_numbers():
  close(counts(Q, K, 6), [2.018185, 1.818132, 1.52115, 0.747384])
  scores = one_head("cope(max_positions=6)", {"table_NK": det((4, 6), 1.4).T}, Q, K)
  close(scores[3], [-1.884051, -1.393519, 0.649669, 0.401768])
  assert np.all(np.diff(counts(Q, K, 6)) < 0)


def test_cope_counts_every_token_once_gates_are_one_and_stops_at_its_last_row():
  sure = np.full((4, 4), 9.0)
  close(counts(sure, sure, 20), [4, 3, 2, 1], atol=1e-4)  # scores are 162
  close(counts(sure, sure, 3), [2, 2, 2, 1], atol=1e-4)


def test_cope_of_x_transformers():
  there, past_LM = recorded("x_transformers/cope"), np.tril(np.ones((11, 11)))
  at, mask_BLM = coords.consecutive(1, 11), jnp.asarray(past_LM > 0)[None]
  cope = positions.build("cope(max_positions=6)")

  @interpreted
  def added(s_BHLM, q_BHLK, table_NK):
    q_BLHK = jnp.moveaxis(q_BHLK, 1, 2)
    given = q_BLHK, q_BLHK, at, at, mask_BLM, 1.0
    return Bound(cope, {"table_NK": table_NK}).full_scores(s_BHLM, *given) - s_BHLM

  given = (jnp.asarray(there[n]) for n in ("attn_logits", "query", "pos_emb"))
  bias_BHLM, pull = jax.vjp(added, *given)
  close(bias_BHLM * past_LM, there["bias"] * past_LM, atol=5e-6)
  d_s, d_q, d_table = pull(jnp.asarray(there["grad_out"] * past_LM, jnp.float32))
  close(d_s, there["grad_in/attn_logits"], atol=1e-5)
  close(d_q, there["grad_in/query"], atol=1e-5)
  close(d_table, there["grad_pos_emb"], atol=2e-5)
  s_BHLM = np.where(past_LM, there["attn_logits"] + bias_BHLM, -np.inf)
  close(jax.nn.softmax(s_BHLM), there["attn"])


# DAPE: a network that reads the scores and biases of all heads.


def dape(spec, params, s_HLM, seen=None):
  """Returns scores of queries and keys that all see each other, or causal ones."""
  at = coords.consecutive(1, s_HLM.shape[-1])
  zero_LHK = jnp.zeros((s_HLM.shape[-1], len(s_HLM), 2))
  arrays = float32((params, s_HLM)), zero_LHK, zero_LHK
  (params, s_HLM), q, k = arrays
  return np.asarray(changed(positions.build(spec), params, s_HLM, q, k, at, at, 1.0))


def network(kernel, H=2, W=4):
  first, last = det((2 * H, W, kernel), 0.4) / 2, det((W, H, kernel), 1.2) / 2
  return {
    "slope_H": [0.5, 0.25],
    "mix_scores_HWN": first[:H],
    "mix_biases_HWN": first[H:],
    "mix_shift_W": det((W,), 0.8),
    "mix_out_HWN": np.moveaxis(last, 1, 0),
    "mix_out_shift_H": det((H,), 1.6),
  }


def test_dape_numbers():
  scores = dape("dape(alibi, width=4)", network(1), det((2, 3, 3), 0.2))
  close(scores[0, 2], [1.924615, 1.949668, 1.924655])


def test_dape_learns_as_many_numbers_as_the_paper_says():
  dape, dims = positions.build("dape(alibi)"), Dims(V=2, D=12, H=12, F=2, L=4)
  shapes = jax.eval_shape(lambda: dape.init(jax.random.key(0), dims))
  assert sum(math.prod(x.shape) for x in shapes.values()) == 1196
  assert all(dape.in_layer(name) for name in shapes)
  assert not positions.build("dape(t5)").in_layer("table_HN")


def test_dape_of_equal_tokens_depends_on_the_distance_alone():
  scores = dape("dape(alibi, width=4)", network(1), np.full((2, 5, 5), 0.3))
  for head in scores:
    for back in range(5):
      close(np.diag(head, -back), np.diag(head, -back)[0])


@pytest.mark.parametrize("kernel", [1, 3])
def test_dape_does_not_read_what_is_not_seen(kernel):
  spec, past = f"dape(alibi, width=4, kernel={kernel})", np.tril(np.ones((5, 5))) > 0
  s_HLM = det((2, 5, 5), 0.2)
  want = dape(spec, network(kernel), s_HLM)
  got = dape(spec, network(kernel), np.where(past, s_HLM, np.nan))
  np.testing.assert_array_equal(got[:, past], want[:, past])
  moved = s_HLM + 0.1 * (np.arange(5) == 2)
  differs = np.abs(dape(spec, network(kernel), moved) - want)[0, 4] > 1e-6
  # Two layers of 3 keys reach two keys to each side.
  assert differs.tolist() == [True] * 5 if kernel == 3 else [0, 0, 1, 0, 0]


# Gates that add up along the text.


def test_forgetting_keeps_for_as_long_as_it_is_told():
  forgetting = positions.build("forgetting(gate='head', memory=(4, 64))")
  dims = Dims(V=2, D=6, H=3, F=2, L=4)
  shift_H = forgetting.init(jax.random.key(0), dims)["forget_shift_H"]
  close(shift_H[1], 2.741176)
  at = read("forgetting(gate='head')", {"forget_shift_H": shift_H}, ZERO)
  close(at.data["kept_BLH"][0, :, 1], [-0.0625, -0.125, -0.1875, -0.25])
  close(at.data["kept_BLH"][0, 0], [-1 / 4, -1 / 16, -1 / 64])


def test_constant_gates_are_alibi():
  at, slope, half = coords.consecutive(1, 4), 0.3, math.log(2)
  alibi = one_head("alibi", {"slope_H": [slope]}, Q, K)
  past = np.tril(np.ones((4, 4))) > 0
  # Gates that see nothing are one half: softplus(0) = ln 2 and log sigmoid(0) = -ln 2.
  rate = {"rate_H": [math.log(math.expm1(1 / half))], "slope_H": [slope]}
  for gate in ("key", "query"):
    got = one_head(f"grape_a('{gate}')", rate | {f"{gate}_HK": np.zeros((1, 4))}, Q, K)
    close(got, alibi)
  link = {"link_DHW": np.zeros((4, 1, 8)), "slope_H": [slope / half]}
  got = one_head("grape_ap", link, Q, K, read("grape_ap", link, Q, at))
  close(got[past], alibi[past])
  shift = {"forget_shift_H": [-math.log(math.expm1(slope))]}
  got = one_head("forgetting", shift, Q, K, read("forgetting('head')", shift, Q, at))
  close(got[past], alibi[past])


def test_grape_a_starts_with_the_slopes_of_alibi_and_unit_vectors():
  grape, dims = positions.build("grape_a"), Dims(V=2, D=8, H=1, F=2, L=4, K=4)
  params = bind(grape, grape.init(jax.random.key(0), dims), dims).params
  close(jax.nn.softplus(params["rate_H"]), [1])
  close(params["slope_H"], [2**-8])
  longer = params | {"key_HK": 3 * params["key_HK"]}
  close(one_head("grape_a", longer, Q, K), one_head("grape_a", params, Q, K))


def test_grape_ap_numbers():
  params = {"link_DHW": np.eye(4)[:, None], "slope_H": [0.5]}
  at = read("grape_ap(width=4)", params, det((4, 4), 0.3))
  scores = one_head("grape_ap(width=4)", params, ZERO, ZERO, at)
  close(scores[3], [-1.403166, -0.932403, -0.652978, 0])
  close(np.diag(scores), [0] * 4)
  assert np.all(scores <= 0) and np.all(np.diff(scores[3]) > 0)


def test_inkling_numbers():
  params = {"weigh_DHW": np.eye(3)[:, None], "bank_WN": det((3, 5), 0.8)}
  at, zero = coords.consecutive(1, 8), np.zeros((8, 4))
  x_LD = np.broadcast_to(det((3,), 0.5), (8, 3))
  for spec in (
    "inkling(width=3, max_distance=5)",
    "inkling(width=3, max_distance=5, floor=4)",
  ):
    scores = one_head(spec, params, zero, zero, read(spec, params, x_LD, at))
    curve = np.array([-0.219827, -0.399922, -0.525889, -0.58068, -0.556878])
    close(scores[3], [*curve[3::-1], 0, 0, 0, 0])
    heat = 1 + 0.1 * math.log(2) if "floor" in spec else 1
    close(scores[7], [0, 0, 0, *(heat * curve[::-1])])
  factor = positions.build(spec).temperature({}, at)[0, :, 0, 0]
  close(factor, [1, 1, 1, 1] + [1 + 0.1 * math.log(n / 4) for n in range(5, 9)])


# PaTH: tokens reflect the keys before them.

W = det((4, 4), 1.2) / np.linalg.norm(det((4, 4), 1.2), axis=1, keepdims=True)
BETA = 2 / (1 + np.exp(-det((4,), 0.9)))


def tokens(strength_L, at=CAUSAL):
  w_LHK, b_LH = np.float32(W[:, None]), np.float32(strength_L)[:, None]
  return holding(at, direction_BLHK=w_LHK, strength_BLH=b_LH)


def test_path_numbers():
  scores = one_head("path", {}, Q, K, tokens(BETA))
  close(BETA, [1.372793, 1.44428, 1.461175, 1.423989])
  close(scores[3], [0.702021, 0.51627, 1.287562, 1.08471])
  close(np.diag(scores), np.sum(Q * K, axis=1) / 2)


def test_path_keeps_the_length_of_keys_when_it_reflects_them():
  k_at, last = tokens(np.full(4, 2.0)), CAUSAL.replace(order_BL=jnp.full((1, 4), 3))
  # Four queries of the last token, along the axes, read off what keys have become.
  scores = one_head("path", {}, np.eye(4), K, tokens(BETA, last), k_at)
  close(2 * np.linalg.norm(scores, axis=0), np.linalg.norm(K, axis=1))
  assert np.abs(scores - K.T / 2)[:, :3].max() > 0.1


def test_path_of_a_few_queries_equals_their_rows():
  at = tokens(BETA)
  last = jax.tree.map(lambda x: x[:, 2:], at)
  close(one_head("path", {}, Q[2:], K, last, at), one_head("path", {}, Q, K, at)[2:])


def test_path_of_several_blocks_reflects_keys_token_by_token():
  random, L = np.random.default_rng(0), 75  # blocks of 32 tokens, and a part of one
  at = coords.packed(jnp.array([[0] * 3 + [1] * 40 + [2] * 32]))
  w, *vectors = random.normal(size=(3, L, 4))
  arrays = (
    *vectors,
    w / np.linalg.norm(w, axis=1, keepdims=True),
    random.uniform(size=L),
  )
  arrays = float32((*arrays[:3], 2 * arrays[3]))
  g_LM = float32(random.normal(size=(L, L))) * visible(at, at)[0]
  segment_L, position = at.segment_BL[0], Bound(positions.build("path"), {})

  def reflected(q_LK, k_MK, w_LK, b_L):
    data = {"direction_BLHK": w_LK[:, None], "strength_BLH": b_L[:, None]}
    of_text = holding(at, **data)
    plain = (q_LK @ k_MK.T / 2)[None, None], q_LK[None, :, None], k_MK[None, :, None]
    scores = position.full_scores(*plain, of_text, of_text, visible(at, at), 0.5)
    return scores[0, 0] * visible(at, at)[0]

  def token_by_token(q_LK, k_MK, w_LK, b_L):
    def visit(k_MK, i):
      before_M = (jnp.arange(L) < i) & (segment_L == segment_L[i])
      k_MK -= jnp.outer(jnp.where(before_M, b_L[i] * (k_MK @ w_LK[i]), 0), w_LK[i])
      return k_MK, k_MK @ q_LK[i] / 2

    _, scores_LM = jax.lax.scan(visit, k_MK, jnp.arange(L))
    return scores_LM * visible(at, at)[0]

  def both_passes(f):
    out, pull = jax.vjp(f, *arrays)
    return out, *pull(g_LM)

  run = jax.jit(both_passes, static_argnums=0)
  for one, other in zip(*map(run, (reflected, token_by_token)), strict=True):
    np.testing.assert_allclose(one, other, atol=2e-5, rtol=2e-5)


def test_path_leaves_keys_ahead_in_a_prefix_as_they_are():
  scores = one_head("path", {}, Q, K, tokens(BETA, CAUSAL.prefix(jnp.array([[4]]))))
  ahead = np.triu_indices(4)
  close(scores[ahead], (Q @ K.T / 2)[ahead])


def test_path_makes_a_direction_of_three_tokens_of_one_text():
  params = {"down_DW": np.eye(4), "up_WHK": np.eye(4)[:, None]}
  params |= {"mix_HKN": np.array([[[1, 10, 100]] * 4])}
  params |= {"strength_DH": np.zeros((4, 1)), "strength_shift_H": [math.log(3)]}
  x_LD = np.eye(4) * 0.01
  at = read("path", params, x_LD, coords.packed(jnp.array([[1, 1, 1, 2]])))
  sums_LK = [[1, 0, 0, 0], [10, 1, 0, 0], [100, 10, 1, 0], [0, 0, 0, 1]]
  silu_LK = 0.01 * np.array(sums_LK) / (1 + np.exp(-0.01 * np.array(sums_LK)))
  length_L = np.sqrt(np.sum(silu_LK**2, axis=1) + 1e-6)
  close(at.data["direction_BLHK"][0, :, 0], silu_LK / length_L[:, None])
  close(at.data["strength_BLH"], np.full((1, 4, 1), 1.5))


# What is not defined is refused.


@pytest.mark.parametrize(
  "spec, says",
  [
    ("deberta(max_distance=9, buckets=16)", "max_distance=9 must be more"),
    ("deberta(max_distance=0)", "max_distance=0 must be more"),
    ("deberta(buckets=1)", "buckets at least 2"),
    ("tupe(plus=rope)", "rope is more; write plus=t5"),
    ("tupe(plus=learned)", "learned is more; write plus=t5"),
    ("dape(rope)", "rope has none; write dape.kerple_log"),
    ("dape(none)", "has none; write dape.kerple_log"),
    ("dape(shaw)", "shaw has none; write dape.kerple_log"),
    ("dape(dape)", "dape has none; write dape.kerple_log"),
    ("dape(kernel=2)", "odd kernel such as 1 or 3, not 2"),
    ("grape_a(gate='value')", "key, query or both, not 'value'"),
    ("grape_ap(width=3)", "even width, not 3"),
    ("forgetting(gate='none')", "token, head or fixed, not 'none'"),
    ("forgetting(memory=(0, 4))", "above 0"),
  ],
)
def test_settings_without_a_meaning_are_refused(spec, says):
  with pytest.raises(ValueError, match=says):
    positions.build(spec)
