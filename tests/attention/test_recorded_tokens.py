"""Attention whose scores or choices read tokens: the numbers of other programs.

The numbers lie in `third_party/<source>/`; `ORIGIN.md` there says how they were made.
Here the data of tokens, and not the matrices that make it, is given as recorded.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_recorded import recorded

from transformer_jax.attention import BoundVariant, attentions
from transformer_jax.attention.cores import cores
from transformer_jax.attention.cores.base import repeat_heads
from transformer_jax.numpy_interpreter import evaluate
from transformer_jax.positions import Bound, coords, positions
from transformer_jax.positions.shared.sums import running

FLA = "flash_linear_attention"


def close(got, want, what, atol=3e-6):
  """Compares arrays of order one whose float32 noise is about a millionth."""
  np.testing.assert_allclose(got, want, atol=atol, rtol=5e-6, err_msg=what)


def inputs(there):
  return {n.removeprefix("inputs/"): x for n, x in there.items() if "inputs/" in n}


def dense(given, variant="multihead", position="none", scale=None, data=None, own=None):
  """Returns attention of given["q"], given["k"], given["v"].

  data   of the encoding, as `accumulate` returns it
  own    data of the variant, likewise
  """
  at = coords.consecutive(1, given["q"].shape[1])
  at = at.replace(data=data or {}, variant_data=own or {})
  bound = BoundVariant(attentions.build(variant), given.get("variant", {}))
  position = Bound(positions.build(position))
  q, k, v = (given[name] for name in "qkv")
  return cores.build("dense")(q, k, v, at, at, position, scale, bound)


def check(attend, given, there, case, names, g=None):
  """Compares outputs of `attend(given)` and their gradients with the recorded ones."""
  g = given["grad_out"] if g is None else g

  def run(given):
    out, pull = jax.vjp(attend, given)
    return out, pull(jnp.asarray(g))[0]

  out, grads = evaluate(run, jax.tree.map(jnp.asarray, given))
  close(out, there[f"outputs/{case}/o"], f"{case}/o")
  for name in names:
    close(grads[name], there[f"outputs/{case}/d{name}"], f"{case}/d{name}", 1e-5)


# DeepSeek sparse attention.


def index_data(given, weighted=True):
  data = {"index_query_BLNW": given["q_idx"], "index_key_BLW": given["k_idx"]}
  return data | ({"index_head_BLN": given["w_idx"]} if weighted else {})


def chosen(spec, data, M):
  """Returns the indices of the keys that each query attends to; -1: fewer than k."""
  at = coords.consecutive(1, M).replace(variant_data=data)
  bound = BoundVariant(attentions.build(spec))
  args = jnp.zeros((2, M, 4, 8)), jnp.zeros((2, M, 4, 8)), at, at, bound.mask(at, at)
  mask_BHLM = np.asarray(evaluate(bound.select, *args))
  found = np.full((*mask_BHLM.shape[:1], M, bound.variant.k), -1)
  for b, i in np.ndindex(*found.shape[:2]):
    (keys,) = np.nonzero(mask_BHLM[b, 0, i])
    found[b, i, found.shape[2] - len(keys) :] = keys
  return found


def test_deepseek_sparse_attention():
  there = recorded(f"{FLA}/dsa")
  given = inputs(there)
  spec = "dsa(6, heads=12, width=5)"

  def attend(given):
    return dense(given, spec, own=index_data(given))

  check(attend, given, there, "dsa", "qkv")
  plain = "dsa(6, heads=12, width=5, relu=False, weighted=False)"
  for case, variant, weighted in (
    ("dsa", spec, True),
    ("no_activation_no_weights", plain, False),
  ):
    found = chosen(variant, index_data(given, weighted), 20)
    np.testing.assert_array_equal(found, there[f"outputs/{case}/indices_sorted"])


def test_an_indexer_that_learns_changes_no_output():
  given = inputs(recorded(f"{FLA}/dsa"))

  def loss(w_idx, spec):
    out = dense(given, spec, own=index_data(given | {"w_idx": w_idx}))
    return jnp.sum(out * given["grad_out"])

  found = []
  for learned in (False, True):
    spec = f"dsa(6, heads=12, width=5, learned={learned})"
    slope = jax.jit(jax.value_and_grad(loss), static_argnums=1)
    found.append(slope(jnp.asarray(given["w_idx"]), spec))
  (plain, none), (same, some) = found
  close(same, plain, "loss", atol=1e-4)
  assert not np.any(none) and np.any(some)


# Native sparse attention.


def branches(given, names):
  return {"gate_BLHN": jnp.stack([given[name] for name in names], axis=-1)}


@pytest.mark.parametrize(
  ("case", "gates", "window"),
  [
    ("compress_select", ("g_cmp", "g_slc"), 0),
    ("with_window", ("g_cmp", "g_slc", "g_swa"), 5),
  ],
)
def test_native_sparse_attention(case, gates, window):
  there = recorded(f"{FLA}/nsa")
  given = inputs(there)

  def attend(given):
    return dense(given, f"nsa(4, 4, {window})", own=branches(given, gates))

  check(attend, given, there, case, ("q", "k", "v", *gates))


def test_its_compressed_part_and_its_choice():
  there = recorded(f"{FLA}/nsa")
  given = inputs(there)
  nsa, at = attentions.build("nsa(4, 4, 0)"), coords.consecutive(1, 24)
  ones = {"g_cmp": np.ones_like(given["g_cmp"]), "g_slc": 0 * given["g_slc"]}
  only = branches(given | ones, ("g_cmp", "g_slc"))
  out = evaluate(lambda given: dense(given, "nsa(4, 4, 0)", own=only), given)
  close(out, there["outputs/compression_only/o"], "compression_only")

  def weights(q, k):
    k = repeat_heads(k, 16)
    s_BHLM = jnp.einsum("BLHK,BMHK->BHLM", q, k) * 5**-0.5
    return nsa.branches(s_BHLM, jnp.tri(24, dtype=bool)[None, None], at, at)["selected"]

  w_LM = np.asarray(evaluate(weights, given["q"], given["k"]))[0, 0]
  for i, want in enumerate(there["outputs/block_indices_sorted"][0, :, 0]):
    assert {*(np.nonzero(w_LM[i])[0] // 4)} == {*want} - {-1}


# Adaptive-scalable entmax. Their arrays have heads before tokens.


def heads_last(there):
  given = inputs(there)
  swap = ("q", "k", "v", "grad_out")
  return given | {name: np.swapaxes(given[name], 1, 2) for name in swap}


def scaled(spec, given):
  """Returns attention with the recorded matrices, or one number for each head."""
  variant, at = attentions.build(spec), coords.consecutive(1, 10)
  if variant.source == "head":
    names = {"length_beta_H": "beta", "length_gamma_H": "gamma"}
    params = {ours: given[theirs].reshape(-1) for ours, theirs in names.items()}
  else:
    names = {"length_beta_DH": "w_beta", "length_gamma_DH": "w_gamma"}
    params = {ours: given[theirs].T for ours, theirs in names.items()}
  bound = BoundVariant(variant, params)
  at = bound.accumulate(bound.read(given["x"], given["q"], at))
  tempered = given | {"q": bound.temper(given["q"], at), "variant": params}
  return dense(tempered, spec, own=at.variant_data), tempered["q"]


NAKANISHI = "adaptive_scale('head', delta=0)"  # and a gamma of one
CASES = {
  "asentmax_adaptive": ("asentmax", ("q", "k", "v", "w_beta", "w_gamma", "x")),
  "asentmax_learned": ("asentmax('head')", ("q", "k", "v", "beta", "gamma")),
  "nakanishi": (NAKANISHI, ("q", "k", "v", "beta")),
}


@pytest.mark.parametrize("case", CASES)
def test_asentmax_of_its_authors(case):
  there, (spec, names) = recorded("asentmax/asentmax"), CASES[case]
  given = heads_last(there)
  if case == "nakanishi":
    given["gamma"] = np.ones_like(given["gamma"])
  swapped = {"o", "scaled_q", "dq", "dk", "dv"}
  want = {
    name: np.swapaxes(x, 1, 2) if name.rpartition("/")[2] in swapped else x
    for name, x in there.items()
    if f"/{case}/" in name
  }
  check(lambda given: scaled(spec, given)[0], given, want, case, names)
  q = evaluate(lambda given: scaled(spec, given)[1], given)
  close(q, want[f"outputs/{case}/scaled_q"], "scaled_q")


@pytest.mark.parametrize(
  ("case", "spec"),
  [
    ("bisect_1.25", "entmax(1.25)"),
    ("bisect_1.75", "entmax(1.75)"),
    ("entmax15", "entmax(1.5)"),
    ("sparsemax", "sparsemax"),
  ],
)
def test_entmax_of_its_authors(case, spec):
  there, bound = recorded("asentmax/asentmax"), BoundVariant(attentions.build(spec))
  scores, g = (there[f"inputs/{n}"][None, None] for n in ("scores", "grad_p"))
  every = jnp.ones((1, *scores.shape[2:]), bool)

  def run(scores):
    p, pull = jax.vjp(lambda s: bound.weigh(s, every), scores)
    return p, *pull(g)

  for got, name in zip(evaluate(run, scores), ("p", "dscores"), strict=True):
    # Their bisection takes 50 halvings in float32.
    close(got[0, 0], there[f"outputs/{case}/{name}"], f"{case}/{name}", 1e-5)


# Forget gates, sinks and windows.


def forgotten(g):
  return dict(zip(("kept_BLH", "kept_low_BLH"), running(g), strict=True))


@pytest.mark.parametrize(
  ("case", "spec", "scale"),
  [
    ("forget", "multihead", None),
    ("forget_scale", "multihead", 0.5),
    ("forget_window", "window(5)", None),
  ],
)
def test_forgetting_attention(case, spec, scale):
  there = recorded(f"{FLA}/forgetting_sink_attn")

  def attend(given):
    data = forgotten(given["g"])
    return dense(given, spec, "forgetting", scale=scale, data=data)

  check(attend, inputs(there), there, case, "qkvg")


@pytest.mark.parametrize(
  ("case", "spec"), [("sink", "sinks"), ("sink_window", "sinks + window(5)")]
)
def test_attention_with_a_sink(case, spec):
  there = recorded(f"{FLA}/forgetting_sink_attn")

  def attend(given):
    params = {"variant": {"sink_H": given["sink_bias"]}}
    return dense(given | params, spec)

  check(attend, inputs(there), there, case, ("q", "k", "v", "sink_bias"))


@pytest.mark.parametrize(
  ("case", "spec", "names"),
  [
    ("path", "path", ("q", "k", "v", "w", "beta")),
    (
      "path_fox",
      "path(forget=True, scale_gates=True)",
      ("q", "k", "v", "w", "beta", "g"),
    ),
  ],
)
def test_path_attention(case, spec, names):
  there = recorded(f"{FLA}/path_attn")
  given, at = inputs(there), coords.consecutive(1, 16)

  def attend(given):
    four = functools.partial(repeat_heads, H=4)
    data = {"direction_BLHK": four(given["w"]), "strength_BLH": four(given["beta"])}
    data |= {"order_BL": at.order_BL, "segment_BL": at.segment_BL}
    data |= forgotten(given["g"]) if "forget" in spec else {}
    return dense(given, position=spec, scale=0.35, data=data)

  check(attend, given, there, case, names)
