"""Attention with biases equals PyTorch's, gradients included.

The numbers lie in `third_party/torch/`; `ORIGIN.md` there says how they were made.
"""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.attention.cores import cores
from transformer_jax.positions import Bound, PositionalEncoding, coords, positions

FOLDER = pathlib.Path(__file__).parents[2] / "third_party"
DENSE = cores.build("dense")


def recorded(name):
  with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
    return dict(file)


@dataclasses.dataclass(frozen=True)
class Given(PositionalEncoding):
  """Adds a number for each pair of positions."""

  def bias(self, params, pos_L, pos_M):
    return params["bias_HLM"][pos_L][:, pos_M]


def batch_first(there, *names):
  return (np.moveaxis(there[name], 1, 2) for name in names)


def check(there, case, found):
  for name, value in found.items():
    expected = there[f"{case}/{name}"]
    expected = expected if name == "dbias" else np.moveaxis(expected, 1, 2)
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=5e-6, err_msg=name)


def test_torch_attention_with_a_bias_and_its_gradients():
  there = recorded("torch/sdpa_bias")
  q_at, k_at = (coords.consecutive(1, n).bidirectional() for n in (9, 11))
  arrays = batch_first(there, "query", "key", "value")
  (g_BLHK,) = batch_first(there, "grad_out")

  def run(bias_HLM, q, k, v):
    return DENSE(q, k, v, q_at, k_at, Bound(Given(), {"bias_HLM": bias_HLM}))

  bias_HLM = jnp.asarray(there["bias_broadcast"][0])
  out, pull = jax.vjp(jax.jit(run), bias_HLM, *arrays)
  found = dict(zip(("dbias", "dquery", "dkey", "dvalue"), pull(g_BLHK), strict=True))
  found["dbias"] = found["dbias"][None]
  check(there, "float_bias_broadcast", {"out": out, **found})


def test_torch_attention_adds_the_bias_after_the_scale():
  there = recorded("torch/sdpa_bias")
  q_at, k_at = (coords.consecutive(1, n).bidirectional() for n in (9, 11))

  @jax.vmap  # every text has its own bias
  def run(bias_HLM, q, k, v):
    q, k, v = (x[None] for x in (q, k, v))
    position = Bound(Given(), {"bias_HLM": bias_HLM})
    return DENSE(q, k, v, q_at, k_at, position, scale=0.3)[0]

  arrays = batch_first(there, "query", "key", "value")
  check(there, "scale", {"out": jax.jit(run)(jnp.asarray(there["bias"]), *arrays)})


def test_torch_attention_with_fewer_heads_of_keys():
  there, few = recorded("torch/sdpa_bias"), recorded("torch/sdpa_gqa")
  q_at, k_at = (coords.consecutive(1, n).bidirectional() for n in (9, 11))

  @jax.vmap  # every text has its own bias
  def run(bias_HLM, q, k, v):
    q, k, v = (x[None] for x in (q, k, v))
    return DENSE(q, k, v, q_at, k_at, Bound(Given(), {"bias_HLM": bias_HLM}))[0]

  q, g = batch_first(there, "query", "grad_out")
  attend = jax.jit(lambda *qkv: run(jnp.asarray(there["bias"]), *qkv))
  out, pull = jax.vjp(attend, q, *batch_first(few, "key_gqa", "value_gqa"))
  found = dict(zip(("dquery", "dkey", "dvalue"), pull(g), strict=True))
  check(few, "gqa", {"out": out, **found})


def test_torch_causal_attention_and_its_gradients():
  there = recorded("torch/sdpa_bias")
  at = coords.consecutive(1, 11)
  run = lambda q, k, v: DENSE(q, k, v, at, at, Bound(positions.build("none")))
  q, g = batch_first(there, "query_square", "grad_out_square")
  out, pull = jax.vjp(jax.jit(run), q, *batch_first(there, "key", "value"))
  found = dict(zip(("dquery", "dkey", "dvalue"), pull(g), strict=True))
  check(there, "causal_square", {"out": out, **found})


def heads_of(weights, name, x_BLD):
  """Projects to queries, keys or values, [B, L, H, K]; PyTorch stacks the three."""
  n, D = "query key value".split().index(name), x_BLD.shape[-1]
  weight_DD, shift_D = (
    weights[f"in_proj_{w}"][n * D :][:D] for w in ("weight", "bias")
  )
  return (x_BLD @ weight_DD.T + shift_D).reshape(*x_BLD.shape[:2], 4, 8)


def multi_head(weights, texts, bias_BHLM, q_at, k_at):
  """Returns outputs and weights, for a bias of every text, as `MultiheadAttention`."""
  projected = (heads_of(weights, n, texts[n]) for n in ("query", "key", "value"))

  @jax.vmap
  def attend(bias_HLM, k_at, q, k, v):
    q, k, v, k_at = jax.tree.map(lambda x: x[None], (q, k, v, k_at))
    position = Bound(Given(), {"bias_HLM": bias_HLM})
    each_key = jnp.broadcast_to(jnp.eye(12)[None, :, None], (1, 12, 4, 12))
    both = jnp.concatenate([v, each_key], axis=-1)
    return DENSE(q, k, both, q_at, k_at, position)[0]

  out_BLHK, w_BLHM = jnp.split(attend(bias_BHLM, k_at, *projected), [8], axis=-1)
  out_BLD = out_BLHK.reshape(*out_BLHK.shape[:2], 32)
  out_BLD = out_BLD @ weights["out_proj.weight"].T + weights["out_proj.bias"]
  return out_BLD, w_BLHM


def test_torch_multi_head_attention_and_its_gradients():
  there = recorded("torch/mha")
  texts = {name: jnp.asarray(there[name]) for name in ("query", "key", "value")}
  names = "in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"
  weights = {name: jnp.asarray(there[name]) for name in names}
  bias_BHLM = jnp.asarray(there["attn_bias_per_head"]).reshape(3, 4, 9, 12)
  k_at = coords.padded(jnp.asarray(there["key_padding_mask"] == 0))
  q_at = coords.consecutive(1, 9).bidirectional()
  run = jax.jit(
    lambda weights, texts: multi_head(weights, texts, bias_BHLM, q_at, k_at)
  )
  (out_BLD, w_BLHM), pull = jax.vjp(run, weights, texts)
  near = lambda actual, expected: np.testing.assert_allclose(
    actual, expected, rtol=1e-5, atol=1e-5
  )
  near(out_BLD, there["out"])
  near(jnp.moveaxis(w_BLHM, 2, 1), there["weights_per_head"])
  cotangent = jnp.asarray(there["grad_out"]), jnp.zeros_like(w_BLHM)
  d_weights, d_texts = pull(cotangent)
  for name, gradient in d_texts.items():
    near(gradient, there[f"grad_in/{name}"])
  for name, gradient in d_weights.items():
    near(np.linalg.norm(gradient) / there[f"grad_norm/{name}"], 1.0)


def test_torch_causal_multi_head_attention_with_fewer_queries_than_keys():
  there = recorded("torch/mha")
  texts = {name: jnp.asarray(there[name]) for name in ("query", "key", "value")}
  k_at = coords.consecutive(3, 12)
  q_at = coords.consecutive(1, 9, start=3)
  run = jax.jit(lambda: multi_head(there, texts, jnp.zeros((3, 4, 9, 12)), q_at, k_at))
  np.testing.assert_allclose(run()[0], there["out_causal"], rtol=1e-5, atol=1e-5)
