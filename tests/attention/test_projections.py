"""Variants that change how tokens become queries, keys and values, or what heads found.

Each is compared with loops written from its paper's words, in float64, and with its
central differences; MLA and differential attention also with recorded layers.
"""

import dataclasses
import functools
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from interpreted import interpreted
from representatives import representatives
from test_positions import with_ids

from transformer_jax import numpy_interpreter
from transformer_jax.attention import attentions
from transformer_jax.attention.cores import cores
from transformer_jax.attention.variants.gqa import pooled
from transformer_jax.axes import Dims
from transformer_jax.models import Architecture, empty_cache
from transformer_jax.models.transformer import Attention
from transformer_jax.positions import bind, coords, positions
from transformer_jax.positions.base import HOOKS

SLOW = pytest.mark.slow
FOLDER = pathlib.Path(__file__).parents[2] / "third_party"
B, L = 2, 5
DIMS = Dims(V=8, D=12, H=4, F=8, L=L, K=3)
CAUSAL = coords.consecutive(1, L)


def layer(spec, position="none", dims=DIMS, n=0, core="dense"):
  parts = positions.build(position), cores.build(core), attentions.build(spec)
  arch = Architecture(dims, *parts, decoders=1)
  return Attention(arch, *arch.layer("decoder", n))


def drawn(module, dims=DIMS, seed=0):
  """Returns random float64 parameters in the shapes of the layer's own."""
  random = np.random.default_rng(seed)
  x = jnp.zeros((B, L, dims.D))
  shapes = jax.eval_shape(module.init, jax.random.key(0), x, CAUSAL)
  draw = lambda x: 0.7 * random.normal(size=x.shape)
  return jax.tree.map(draw, dict(shapes.get("params", {})))


def tokens(dims=DIMS, seed=1):
  return np.random.default_rng(seed).normal(size=(B, L, dims.D))


@functools.partial(interpreted, statics=1)
def apply(module, w, x, at):
  return module.apply({"params": w}, x, at)[0]


def close(got, want, atol=3e-6):
  """Compares outputs of order one, in float32, with float64 loops."""
  np.testing.assert_allclose(got, want, atol=atol, rtol=1e-5)


def count(spec, dims):
  """Returns how many parameters a layer has."""
  module = layer(spec, dims=dims)
  init = functools.partial(module.init, jax.random.key(0))
  shapes = jax.eval_shape(init, jnp.zeros((1, 2, dims.D)), coords.consecutive(1, 2))
  return sum(x.size for x in jax.tree.leaves(shapes))


# Loops over one text, x_LD. A mixture of past values, from the words of a formula.


def softmax(z):
  e = np.exp(np.array(z) - np.max(z))
  return e / e.sum()


def attend(score, values):
  """Returns sum_j softmax_j(score(i, j)) values[j] over j <= i, for each i."""
  rows = []
  for i in range(len(values)):
    weights = softmax([score(i, j) for j in range(i + 1)])
    rows.append(sum(w * values[j] for j, w in enumerate(weights)))
  return np.array(rows)


def rms(x, epsilon):
  return x / np.sqrt(np.mean(x**2) + epsilon)


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def projected(w, x, name, letters="HK"):
  """Returns [L, heads, width] of x_LD, shifted where there is a shift."""
  y = np.einsum("ld,dhk->lhk", x, w[f"{name}_D{letters}"])
  return y + w.get(f"{name}_shift_{letters}", 0.0)


def heads(w, x, H=4):
  """Multi-head, grouped and multi-query attention: head h reads group h G / H."""
  letters = "GK" if "key_DGK" in w else "HK"
  q = projected(w, x, "query")
  k, v = (projected(w, x, name, letters) for name in ("key", "value"))
  found = []
  for h in range(H):
    g = h * k.shape[1] // H
    score = lambda i, j, h=h, g=g: q[i, h] @ k[j, g] / math.sqrt(q.shape[-1])
    found.append(attend(score, v[:, g]))
  return found


def mixed(w, found):
  return sum(o @ w["out_HKD"][h] for h, o in enumerate(found)) + w.get("out_shift_D", 0)


def multihead(w, x):
  return mixed(w, heads(w, x))


def latent(w, x, best=None, epsilon=1e-6):
  """Equations 9 to 19 of the paper, and RMS norms of both compressed vectors.

  best   the keys of each query, where it does not attend to all
  """
  gain = lambda c, gain: np.array([rms(row, epsilon) for row in c]) * gain
  if "query_down_DQ" in w:
    cq = gain(x @ w["query_down_DQ"], w["query_gain_Q"])
    queries = w["query_QHK"], w["query_part_QHP"]
  else:
    cq, queries = x, (w["query_DHK"], w["query_part_DHP"])
  c, shared = gain(x @ w["latent_DC"], w["latent_gain_C"]), x @ w["key_part_DP"]
  y = 0.0
  for h in range(4):
    q = np.concatenate([cq @ matrix[:, h] for matrix in queries], axis=-1)
    k = np.concatenate([c @ w["key_CHK"][:, h], shared], axis=-1)
    score = lambda i, j, q=q, k=k: (
      q[i] @ k[j] / math.sqrt(q.shape[-1])
      if best is None or j in best[i]
      else -math.inf
    )
    y = y + attend(score, c @ w["value_CHE"][:, h]) @ w["out_HED"][h]
  return y


def differential(w, x, start=0.2):
  """(softmax(q1 k1) - lambda softmax(q2 k2)) v, normed, times 1 - lambda's start."""
  dot = lambda which: w[f"{which}_query_K"] @ w[f"{which}_key_K"]
  share = np.exp(dot("first")) - np.exp(dot("second")) + start
  q, k = projected(w, x, "query"), projected(w, x, "key")
  v = projected(w, x, "value", "GE")
  rows = []
  for i in range(len(x)):
    found = []
    for p in range(2):
      first, second = (
        softmax([q[i, h] @ k[j, h] / math.sqrt(q.shape[-1]) for j in range(i + 1)])
        for h in (2 * p, 2 * p + 1)
      )
      o = sum((first - share * second)[j] * v[j, p] for j in range(i + 1))
      found.append((1 - start) * rms(o, 1e-5))
    rows.append(np.concatenate(found) @ w["out_HKD"].reshape(-1, x.shape[-1]))
  return np.array(rows)


def gated(w, x):
  found = heads(w, x)
  for h in range(4):
    if "gate_DHE" in w:
      gate = x @ w["gate_DHE"][:, h] + w.get("gate_shift_HE", np.zeros((4, 1)))[h]
    else:
      gate = (x @ w["gate_DH"][:, h] + w.get("gate_shift_H", np.zeros(4))[h])[:, None]
    found[h] = found[h] * sigmoid(gate)
  return mixed(w, found)


def hybrid(w, x):
  """Gates of the input, of the outputs of all heads, or of both: sigmoid(W x + V o)."""
  found = np.array(heads(w, x))  # [H, L, K]
  silu = lambda x: x * sigmoid(x)
  flat = found.transpose(1, 0, 2).reshape(len(x), -1)
  logits = 0.0
  for name, read in (("gate", x), ("output_gate", flat)):
    own = {n.removeprefix(f"{name}_"): w[n] for n in w if n.startswith(f"{name}_")}
    for letters in own:
      if letters.startswith("down"):
        read = silu(read @ own[letters].reshape(read.shape[1], -1))
    for letters in own:
      if letters.isupper():
        made = read @ own[letters].reshape(read.shape[1], -1)
        logits = logits + made.reshape(len(x), 4, -1)
  logits = logits + w.get("gate_shift_H", np.zeros(4))[:, None]
  return mixed(w, found * sigmoid(logits).transpose(1, 0, 2))


def normed_values(w, x):
  """Softmax weights of values, each divided by its root mean square, times gains."""
  q, k, v = (projected(w, x, name) for name in ("query", "key", "value"))
  found = []
  for h in range(4):
    gain = w.get("value_gain_E", w.get("value_gain_HE", np.ones(4)[:, None])[h])
    score = lambda i, j, h=h: q[i, h] @ k[j, h] / math.sqrt(3)
    found.append(attend(score, np.array([gain * rms(row, 1e-6) for row in v[:, h]])))
  return mixed(w, found)


def head_scale(w, x):
  return mixed(w, [w["head_scale_H"][h] * o for h, o in enumerate(heads(w, x))])


def slices(x, H=4):
  return np.split(x, H, axis=-1)


def unparameterised(w, x, factor=3**-0.5):
  found = [attend(lambda i, j, s=s: factor * s[i] @ s[j], s) for s in slices(x)]
  return mixed(w, found) if "out_HKD" in w else np.concatenate(found, axis=-1)


def additive(w, x):
  """v' tanh(W s + U h + b)."""
  q, k, v = (projected(w, x, name) for name in ("query", "key", "value"))
  found = []
  for h in range(4):
    shift = w["energy_shift_HK"][h] if "energy_shift_HK" in w else 0.0
    score = lambda i, j, h=h, shift=shift: (
      w["energy_HK"][h] @ np.tanh(q[i, h] + k[j, h] + shift)
    )
    found.append(attend(score, v[:, h]))
  return mixed(w, found)


def luong(score):
  """tanh(W_c [context; h]) over slices; score(w, h, state, source) of head h."""

  def run(w, x):
    found = []
    for h, s in enumerate(slices(x)):
      found.append(attend(lambda i, j, h=h, s=s: score(w, h, s[i], s[j]), s))
    return np.tanh(mixed(w, found) + x @ w["state_DD"])

  return run


def general(w, h, state, source):
  return state @ w["query_HKK"][h] @ source


def concat(w, h, state, source):
  both = np.concatenate([state, source])
  matrix = np.concatenate([w["query_HKK"][h], w["key_HKK"][h]])
  return w["energy_HK"][h] @ np.tanh(both @ matrix)


def tensor_product(w, x):
  """Zhang et al., 2025, equations 3.1 and 3.2: 1/R sum over r of a_r(x) b_r(x)^T."""

  def made(name, x_D):
    if name == "query" and "query_DHK" in w:
      return np.einsum("D,DHK->HK", x_D, w["query_DHK"])
    named = lambda start: next(w[n] for n in w if n.startswith(f"{name}_{start}_"))
    across, along = named("heads"), named("features")
    ranks = range(across.shape[1])
    pairs = [np.outer(x_D @ across[:, r], x_D @ along[:, r]) for r in ranks]
    return sum(pairs) / len(pairs)

  q, k, v = (np.array([made(n, x_D) for x_D in x]) for n in ("query", "key", "value"))
  dot = lambda h: lambda i, j: q[i, h] @ k[j, h] / math.sqrt(3)
  return mixed(w, [attend(dot(h), v[:, h]) for h in range(4)])


def twins(w, x):
  """Liu et al., 2025: heads 2n and 2n + 1 have query n; key h G / H as ever."""
  q, k, v = (
    np.einsum("ld,dhk->lhk", x, w[f"{n}_DGK"]) for n in ("query", "key", "value")
  )
  found = []
  for h in range(4):
    g = h * k.shape[1] // 4
    score = lambda i, j, h=h, g=g: q[i, h // 2] @ k[j, g] / math.sqrt(3)
    found.append(attend(score, v[:, g]))
  return mixed(w, found)


def fenwick(t):
  """Guo et al., 2025, section 3.1: the level of each token up to t, in a list."""
  levels, end = {t: 0}, t
  for bit in range(t.bit_length()):
    if t >> bit & 1:
      levels |= dict.fromkeys(range(end - 2**bit, end), bit + 1)
      end -= 2**bit
  return [levels[s] for s in range(t + 1)]


def log_linear(w, x):
  """Equation 4, with a decay of each token: o_t = sum_s lambda decay (q_t k_s) v_s."""
  q, k, v = (projected(w, x, name) for name in ("query", "key", "value"))
  found = []
  for h in range(4):
    decay = sigmoid(x @ w["decay_DH"][:, h] + w["decay_shift_H"][h])
    factor = np.log1p(np.exp(w["level_scale_HN"][h] * (x @ w["level_DHN"][:, h])))
    rows = []
    for t in range(len(x)):
      row = 0.0
      for s, n in enumerate(fenwick(t)):
        score = q[t, h] @ k[s, h] / math.sqrt(3) * np.prod(decay[s + 1 : t + 1])
        row = row + score * factor[t, min(n, factor.shape[1] - 1)] * v[s, h]
      rows.append(row)
    found.append(np.array(rows))
  return mixed(w, found)


def entmax(z, alpha):
  """max(0, (alpha - 1) z - t)^(1 / (alpha - 1)), with the t that makes the sum one."""
  z, power = (alpha - 1) * np.array(z), 1 / (alpha - 1)
  low, high = np.max(z) - 1, np.max(z)
  for _ in range(60):
    t = (low + high) / 2
    over = np.sum(np.maximum(z - t, 0) ** power) > 1
    low, high = (t, high) if over else (low, t)
  return np.maximum(z - t, 0) ** power


def scaled_by_length(weigh):
  """Equation 10 of Vasylenko et al., and `weigh` of the scores."""

  def run(w, x):
    q, k, v = (projected(w, x, name) for name in ("query", "key", "value"))
    found = []
    for h in range(4):
      rows = []
      for i in range(len(x)):
        if "length_beta_H" in w:
          beta, gamma = w["length_beta_H"][h], w["length_gamma_H"][h]
        else:
          beta = math.log1p(math.exp(x[i] @ w["length_beta_DH"][:, h]))
          gamma = 2 * math.tanh(x[i] @ w["length_gamma_DH"][:, h])
        factor = 1 + beta * math.log(i + 2) ** gamma
        z = [factor * (q[i, h] @ k[j, h]) / math.sqrt(3) for j in range(i + 1)]
        rows.append(sum(a * v[j, h] for j, a in enumerate(weigh(z))))
      found.append(np.array(rows))
    return mixed(w, found)

  return run


def differential_v2(w, x):
  """attn1 - sigmoid(lambda) attn2 of heads 2p and 2p + 1."""
  found = heads(w, x)
  share = sigmoid(x @ w["share_DN"])
  pairs = [found[2 * p] - share[:, p : p + 1] * found[2 * p + 1] for p in range(2)]
  return np.concatenate(pairs, axis=-1) @ w["out_HED"].reshape(-1, x.shape[-1])


def turned(x, i, base=1e4):
  """RoPE of the first two features, a pair."""
  angle = i * base**0.0
  first = x[0] * math.cos(angle) - x[1] * math.sin(angle)
  return np.array([first, x[1] * math.cos(angle) + x[0] * math.sin(angle), *x[2:]])


def indexed(queries, attend_to, part=0):
  """The lightning indexer: the two best keys of each query, for all heads."""

  def choose(w, x):
    a, b = queries(w, x), x @ w["index_key_DW"]
    b = (b - b.mean(-1, keepdims=True)) / np.sqrt(b.var(-1, keepdims=True) + 1e-6)
    b = b * w["index_gain_W"] + w["index_shift_W"]
    head = x @ w["index_head_DN"]
    if part:
      a = np.array([[turned(n, i) for n in row] for i, row in enumerate(a)])
      b = np.array([turned(row, i) for i, row in enumerate(b)])
    best = []
    for i in range(len(x)):
      index = [
        sum(head[i, n] * max(a[i, n] @ b[j], 0) for n in range(a.shape[1]))
        for j in range(i + 1)
      ]
      least = sorted(index)[-2:][0]  # keys that tie with it are chosen too
      best.append([j for j in range(i + 1) if index[j] >= least])
    return best

  return lambda w, x: attend_to(w, x, choose(w, x))


def some_keys(w, x, best):
  q, k, v = (projected(w, x, name) for name in ("query", "key", "value"))
  found = []
  for h in range(4):
    rows = []
    for i, keys in enumerate(best):
      weights = softmax([q[i, h] @ k[j, h] / math.sqrt(3) for j in keys])
      rows.append(sum(a * v[j, h] for a, j in zip(weights, keys, strict=True)))
    found.append(np.array(rows))
  return mixed(w, found)


def native_sparse(w, x, window=2):
  """Blocks of one token: all past ones, four chosen ones and the last two tokens."""
  q, k, v = (projected(w, x, name) for name in ("query", "key", "value"))
  gate = sigmoid(np.einsum("ld,dhn->lhn", x, w["branch_DHN"]))
  found = np.zeros((4, len(x), 3))
  for i in range(len(x)):
    z = np.array(
      [[q[i, h] @ k[j, h] / math.sqrt(3) for j in range(i + 1)] for h in range(4)]
    )
    compressed = np.array([softmax(z[h]) for h in range(4)])
    rank = {j: compressed[:, j].mean() for j in range(i + 1)}
    rank |= {j: 2.0 for j in (0, i - 1, i) if j >= 0}
    chosen = sorted(rank, key=rank.get)[-4:]
    for h in range(4):
      branches = (range(i + 1), chosen, range(max(0, i + 1 - window), i + 1))
      for n, keys in enumerate(branches):
        weights = softmax([z[h, j] for j in keys])
        o = sum(a * v[j, h] for a, j in zip(weights, keys, strict=True))
        found[h, i] += gate[i, h, n] * o
  return mixed(w, found)


def of_latent(w, x, epsilon=1e-6):
  c = np.array([rms(row, epsilon) for row in x @ w["query_down_DQ"]])
  return np.einsum("lq,qnw->lnw", c * w["query_gain_Q"], w["index_query_QNW"])


def of_tokens(w, x):
  return np.einsum("ld,dnw->lnw", x, w["index_query_DNW"])


LOOPS = {
  "adaptive_scale": scaled_by_length(softmax),
  "adaptive_scale('head')": scaled_by_length(softmax),
  "asentmax": scaled_by_length(functools.partial(entmax, alpha=1.5)),
  "asentmax(alpha=1.25)": scaled_by_length(functools.partial(entmax, alpha=1.25)),
  "differential_v2": differential_v2,
  "differential_v2(1)": differential_v2,
  "dsa(2, heads=3, width=4)": indexed(of_tokens, some_keys),
  "dsa(2, heads=3, width=4, part=2)": indexed(of_tokens, some_keys, part=2),
  "mla(latent=5, part=2, queries=7, value=4) + dsa(2, heads=3, width=4, latent=7)": (
    indexed(of_latent, latent)
  ),
  "mla(latent=5, part=2, queries=7, value=4, epsilon=0.5)"
  " + dsa(2, heads=3, width=4, latent=7)": indexed(
    functools.partial(of_latent, epsilon=0.5), functools.partial(latent, epsilon=0.5)
  ),
  "nsa(1, 4, window=2)": native_sparse,
  "multihead": multihead,
  "log_linear": log_linear,
  "log_linear(levels=2)": log_linear,
  "tpa(rank=2, queries=3)": tensor_product,
  "tpa(rank=1, queries=0)": tensor_product,
  "twin_queries": twins,
  "twin_queries(groups=1)": twins,
  "multihead(bias=True)": multihead,
  "gqa(2, bias=True)": multihead,
  "mqa": multihead,
  "mla(latent=5, part=2, queries=7, value=4)": latent,
  "mla(latent=5, part=2)": latent,
  "differential": differential,
  "gated": gated,
  "gated(headwise=True, start=1)": gated,
  "gated(start=1) + gqa(2)": gated,
  "gated(source='output')": hybrid,
  "gated(source='both', headwise=True, start=1)": hybrid,
  "gated(source='both', rank=2)": hybrid,
  "value_norm": normed_values,
  "value_norm(per_head=True)": normed_values,
  "value_norm(gain=False)": normed_values,
  "head_scale": head_scale,
  "unparameterised": unparameterised,
  "unparameterised(project=False) + scale(0)": functools.partial(
    unparameterised, factor=1
  ),
  "additive": additive,
  "additive(bias=False)": additive,
  "multiplicative": luong(general),
  "multiplicative(general=False)": luong(lambda w, h, state, source: state @ source),
  "concat": luong(concat),
}


WIDE = dict.fromkeys(  # their heads have an even width
  ("differential_v2", "differential_v2(1)"), dataclasses.replace(DIMS, K=4)
)
SMALL = {
  "value_gain_HE",
  "head_scale_H",
  "energy_shift_HK",
  "gate_shift_H",
  "gate_shift_HE",
}
SMALL |= {f"{which}_{of}_K" for which in ("first", "second") for of in ("query", "key")}


@pytest.mark.parametrize("spec", LOOPS)
def test_values_and_gradients_are_those_of_the_papers_words(spec):
  module, x, g = layer(spec, dims=WIDE.get(spec, DIMS)), tokens(), tokens(seed=2)
  w = drawn(module)

  def loss(w, x):
    return jnp.sum(module.apply({"params": w}, x, CAUSAL)[0] * g)

  def loops(w, x):
    return sum(np.sum(LOOPS[spec](w, x[b]) * g[b]) for b in range(B))

  value = lambda w, x: (loss(w, x), module.apply({"params": w}, x, CAUSAL)[0])
  run = jax.value_and_grad(value, (0, 1), has_aux=True)
  (_, out), (d_w, d_x) = numpy_interpreter.evaluate(
    run, *jax.tree.map(np.float32, (w, x))
  )
  close(out, np.stack([LOOPS[spec](w, x[b]) for b in range(B)]))

  random = np.random.default_rng(3)
  for group in ({*w} - SMALL, {*w} & SMALL, {"x"}):  # each in a direction of its own
    along = {n: random.normal(size=(w | {"x": x})[n].shape) for n in sorted(group)}
    moved = lambda step, along=along: loops(
      w | {n: w[n] + step * a for n, a in along.items() if n != "x"},
      x + step * along.get("x", 0),
    )
    want = (moved(1e-5) - moved(-1e-5)) / 2e-5
    got = sum(np.sum(np.asarray((d_w | {"x": d_x})[n]) * a) for n, a in along.items())
    np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-4, err_msg=f"{group}")


# Numbers that other people's programs and other derivations gave.


def det(shape, s):
  """Returns sin(0.37 n + s), n = 0, 1, ..., in the order of rows."""
  return np.sin(0.37 * np.arange(np.prod(shape)) + s).reshape(shape)


STATE, SOURCE = det((2,), 0.4), det((3, 2), 0.8)


def test_additive_weights():
  q_LK, k_MK = STATE[None] @ det((2, 2), 0.1), SOURCE @ det((2, 2), 0.5)
  params = {"energy_HK": det((2,), 0.9)}  # of one head
  s_LM = attentions.build("additive(bias=False)").dot(params, q_LK, k_MK, 9.0)
  close(jax.nn.softmax(s_LM)[0], [0.339451, 0.345886, 0.314664], atol=1e-6)


@pytest.mark.parametrize(
  "spec,want",
  [
    ("multiplicative(general=False)", [0.347557, 0.393985, 0.258457]),
    ("multiplicative", [0.34507, 0.411339, 0.243591]),
  ],
)
def test_multiplicative_weights(spec, want):
  variant, dims = attentions.build(spec), Dims(V=2, D=2, H=1, F=2, L=3)
  projections, w = variant.projections().fit(dims), {"query_HKK": det((1, 2, 2), 0.1)}
  q_BLHK = projections.query(w, STATE[None, None])
  k_BMHK, _ = projections.read(w, projections.memory(w, SOURCE[None]))
  s_M = variant.scale({}, 2) * (q_BLHK[0, 0, 0] @ k_BMHK[0, :, 0].T)
  close(jax.nn.softmax(s_M), want, atol=1e-6)


def test_unparameterised_values():
  dims, x = Dims(V=2, D=2, H=1, F=2, L=3), det((1, 3, 2), 0.2)
  module = layer("unparameterised(project=False) + scale(0)", dims=dims)
  got = apply(module, {}, x, coords.consecutive(1, 3).bidirectional())
  want = [[0.717461, 0.825868], [0.789144, 0.862381], [0.800203, 0.866854]]
  close(got[0], want, atol=1e-6)


def test_lambda_starts_higher_in_deeper_layers():
  for n, want in ((0, 0.2), (1, 0.355509), (11, 0.77787)):
    assert attentions.build("differential").layer(n).start == pytest.approx(
      want, abs=1e-6
    )
    fixed = attentions.build("differential(start=0.8)")
    assert fixed.layer(n) == fixed
  x = tokens()[:1]
  module = layer("differential", n=1)
  w = drawn(module)
  close(apply(module, w, x, CAUSAL)[0], differential(w, x[0], 0.8 - 0.6 * np.exp(-0.3)))


BASE = Dims(V=8, D=512, H=8, F=8, L=8)
DEEPSEEK = Dims(V=8, D=5120, H=128, F=8, L=8, K=128)


@pytest.mark.parametrize(
  "spec,dims,want",
  [
    ("multihead", BASE, 1_048_576),
    ("multihead(bias=True)", BASE, 1_048_576 + 4 * 512),
    ("gqa(8)", BASE, 1_048_576),
    ("gqa(2)", BASE, 655_360),
    ("mqa", BASE, 589_824),
    ("differential", BASE, 1_048_576 + 4 * 64),
    ("gated", BASE, 1_048_576 + 512 * 512),
    ("gated(headwise=True)", BASE, 1_048_576 + 512 * 8),
    ("additive", BASE, 1_048_576 + 2 * 512),
    ("unparameterised", BASE, 512 * 512),
    ("unparameterised(project=False)", BASE, 0),
    ("multiplicative", BASE, 8 * 64 * 64 + 2 * 512 * 512),
    ("multiplicative(general=False, project=False)", BASE, 0),
    ("concat", BASE, 2 * 8 * 64 * 64 + 512 + 2 * 512 * 512),
    (
      "mla(latent=512, part=64, queries=1536)",
      DEEPSEEK,
      5120 * (1536 + 512 + 64)  # down
      + 1536 * 128 * (128 + 64)  # queries
      + 512 * 128 * 2 * 128  # keys and values
      + 128 * 128 * 5120  # out
      + (1536 + 512),  # gains of the norms
    ),
  ],
)
def test_parameter_counts(spec, dims, want):
  assert count(spec, dims) == want


@pytest.mark.parametrize(
  "spec,dims,want",
  [
    ("multihead", BASE, 2 * 512),
    ("gqa(2)", BASE, 2 * 2 * 64),
    ("mqa", BASE, 2 * 64),
    ("mla(latent=512, part=64)", DEEPSEEK, 512 + 64),
    ("mla(latent=512, part=0)", DEEPSEEK, 512),
    ("differential", BASE, 2 * 512),
    ("unparameterised", BASE, 512),
    ("concat", BASE, 512),
  ],
)
def test_what_a_cache_keeps_of_a_token(spec, dims, want):
  (cache,) = empty_cache(layer(spec, "rope", dims).arch, 1, 1)
  assert sum(x.size for x in jax.tree.leaves(cache.kept)) == want


@pytest.mark.parametrize(
  "spec,position,turned",
  [
    ("multihead", "rope", True),
    ("gqa(2)", "rope", True),
    ("multihead", "xpos", False),  # turns keys otherwise than queries
    ("multihead", "rope_dynamic(original=2)", False),  # again in a longer text
    ("multiplicative", "rope", False),  # keeps tokens
  ],
)
def test_a_cache_keeps_keys_turned_where_nothing_turns_them_later(
  spec, position, turned
):
  dims = Dims(V=8, D=32, H=4, F=8, L=16)
  module = layer(spec, position, dims)
  x = np.random.default_rng(3).normal(size=(1, 2, 32)).astype(np.float32)
  (cache,) = empty_cache(module.arch, 1, 5)
  late, early = (coords.consecutive(1, 2, start=start) for start in (7, 0))
  init = functools.partial(module.init, jax.random.key(0))
  w = numpy_interpreter.evaluate(init, x, late)
  attend = lambda w, x, at, cache: module.apply(w, x, at, cache=cache)[1].kept
  run = numpy_interpreter.trace(attend, w, x, late, cache)
  kept, still = run(w, x, late, cache), run(w, x, early, cache)
  assert all(a.shape[-2] == 5 for a in kept.values()), "tokens are before features"
  same = [np.array_equal(kept[name], still[name]) for name in sorted(kept)]
  assert same[0] is not turned, "keys of other positions"
  assert all(same[1:]), "values"


# Layers of other people's programs.


def recorded(name):
  with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
    return dict(file)


def recorded_layer(name):
  """Returns weights, input, output and real tokens of the attention of layer 0."""
  there, start = recorded(f"transformers/whole_{name}"), "weights/model.layers.0."
  weights = {
    n.removeprefix(start + "self_attn.").removesuffix(".weight"): x
    for n, x in there.items()
    if n.startswith(start)
  }
  real = there["attention_mask"][-1:] == 1
  return weights, there["layer0_attn_in"], there["layer0_attn_out"], real


def equal_where_real(module, w, x, want, real):
  shapes = jax.eval_shape(module.init, jax.random.key(0), x, coords.padded(real))
  ours = {name: a.shape for name, a in shapes["params"].items()}
  assert ours == {name: a.shape for name, a in w.items()}
  # Outputs are as large as 2.5.
  close(apply(module, w, x, coords.padded(real))[real], want[real], atol=1e-5)


WIDTH_8 = Dims(V=97, D=32, H=4, F=64, L=24, K=8)


def test_latent_attention_of_deepseek_v2():
  there, *rest = recorded_layer("deepseek_v2_mla")
  split = lambda name, *shape: np.moveaxis(there[name].reshape(*shape), -1, 0)
  query, both = split("q_b_proj", 4, 16, 12), split("kv_b_proj", 4, 20, 16)
  down = there["kv_a_proj_with_mqa"].T
  w = {"query_down_DQ": there["q_a_proj"].T, "query_gain_Q": there["q_a_layernorm"]}
  w |= {"query_QHK": query[..., :8], "query_part_QHP": query[..., 8:]}
  w |= {"latent_DC": down[:, :16], "latent_gain_C": there["kv_a_layernorm"]}
  w |= {"key_part_DP": down[:, 16:], "key_CHK": both[..., :8]}
  w |= {"value_CHE": both[..., 8:], "out_HED": there["o_proj"].T.reshape(4, 12, 32)}
  spec = "mla(latent=16, part=8, queries=12, value=12)"
  equal_where_real(layer(spec, "rope(interleaved=True)", WIDTH_8), w, *rest)


def test_differential_attention_of_diffllama():
  there, *rest = recorded_layer("diffllama")
  # That program pairs heads 0, 2 and 1, 3; here neighbours are pairs.
  heads = lambda name: there[name].T.reshape(32, 4, 8)[:, [0, 2, 1, 3]]
  w = {"query_DHK": heads("q_proj"), "key_DHK": heads("k_proj")}
  w["value_DGE"] = heads("v_proj").reshape(32, 2, 16)
  w["out_HKD"] = there["o_proj"].T.reshape(4, 8, 32)
  for n, which in (("1", "first"), ("2", "second")):
    w[f"{which}_query_K"] = there[f"lambda_q{n}"]
    w[f"{which}_key_K"] = there[f"lambda_k{n}"]
  equal_where_real(layer("differential", "rope", WIDTH_8), w, *rest)


NAMES = {  # in x-transformers, [out, in], and here
  "to_v_gate.weight": "gate_DHE",
  "to_v_head_gate.weight": "gate_DH",
  "to_v_head_gate.bias": "gate_shift_H",
  "head_scale_params": "head_scale_H",
} | {f"to_{name[0]}.weight": f"{name}_DHK" for name in ("query", "key", "value")}


@pytest.mark.parametrize(
  "case,spec",
  [
    ("plain_causal", "multihead"),
    ("gate_values", "gated"),
    ("gate_value_heads", "gated(headwise=True, start=0)"),
    ("head_scale", "head_scale"),
  ],
)
def test_gates_of_x_transformers(case, spec):
  there, dims = recorded("x_transformers/gates"), Dims(V=8, D=16, H=2, F=8, L=10)
  module, real = layer(spec, dims=dims), there["real"] == 1
  at = coords.padded(real)
  at = at if case == "plain_causal" else at.bidirectional()
  names = NAMES | {"to_out.weight": "out_HKD"}
  sizes = dict(D=16, H=2, K=8, E=8)
  shape = lambda name: [sizes[axis] for axis in name.rpartition("_")[2]]
  w = {
    ours: there[f"{case}/{theirs}"].T.reshape(shape(ours))
    for theirs, ours in names.items()
    if f"{case}/{theirs}" in there
  }

  def loss(w, x):
    out = module.apply({"params": w}, x, at)[0] * real[..., None]
    return jnp.sum(out * there["grad_out"]), out

  run = interpreted(jax.value_and_grad(loss, (0, 1), has_aux=True))
  (_, out), (d_w, d_x) = run(w, there["x"])
  close(out, there[f"{case}/out"], atol=1e-5)
  close(d_x, there[f"{case}/dx"], atol=2e-5)
  for theirs, ours in names.items():
    if ours in w:
      want = there[f"{case}/grad_norm/{theirs}"]
      np.testing.assert_allclose(np.linalg.norm(d_w[ours]), want, rtol=1e-5)


# Attention that is another attention.


def as_groups(w):
  return {n.replace("_DHK", "_DGK") if n[0] in "kv" else n: x for n, x in w.items()}


def test_groups_equal_heads_whose_keys_and_values_repeat():
  few, many, x = layer("gqa(2)", "rope", EVEN), layer("multihead", "rope", EVEN), None
  w, x = drawn(few, EVEN), tokens(EVEN)
  repeat = lambda name: np.repeat(w[name], 2, axis=1)
  rest = {name: w[name] for name in ("query_DHK", "out_HKD")}
  repeated = rest | {f"{n}_DHK": repeat(f"{n}_DGK") for n in ("key", "value")}
  want = apply(many, repeated, x, CAUSAL)
  close(apply(few, w, x, CAUSAL), want)
  close(apply(layer("gqa(4)", "rope", EVEN), as_groups(repeated), x, CAUSAL), want)
  assert set(pooled(repeated, 2)) == set(w)
  for name, pool in pooled(repeated, 2).items():
    np.testing.assert_allclose(pool, w[name], rtol=1e-6)


def test_pooled_heads_are_the_means_of_their_groups():
  w = drawn(layer("multihead(bias=True)"))
  got = pooled(w, 2)
  close(got["key_DGK"][:, 1], (w["key_DHK"][:, 2] + w["key_DHK"][:, 3]) / 2)
  close(got["value_shift_GK"][0], (w["value_shift_HK"][0] + w["value_shift_HK"][1]) / 2)
  assert got["query_DHK"] is w["query_DHK"] and got["out_shift_D"] is w["out_shift_D"]


def test_without_lambda_a_pair_is_one_head_with_wide_values():
  module, x = layer("differential(start=0, norm=False)"), tokens()
  w = drawn(module)
  w |= {name: np.zeros(3) for name in w if name.endswith("_K")}
  found = heads(
    {
      "query_DHK": w["query_DHK"][:, ::2],
      "key_DHK": w["key_DHK"][:, ::2],
      "value_DHK": w["value_DGE"],
    },
    x[0],
    H=2,
  )
  want = np.concatenate(found, axis=-1) @ w["out_HKD"].reshape(-1, 12)
  close(apply(module, w, x, CAUSAL)[0], want)


@pytest.mark.parametrize("headwise", [True, False])
def test_open_gates_are_no_gates(headwise):
  module, x = layer(f"gated(headwise={headwise}, start=99)"), tokens()
  w = drawn(module)
  for name in w:
    w[name] = np.full_like(w[name], 99.0) if "gate_shift" in name else w[name]
  plain = {name: w[name] for name in w if not name.startswith("gate")}
  close(apply(module, w, x, CAUSAL), apply(layer("multihead"), plain, x, CAUSAL))


def test_gates_multiply_what_a_pair_found_in_any_order():
  """The gate stands between the norm of a pair and the output projection."""
  x, specs = tokens(), ("gated + differential", "differential + gated")
  w = drawn(layer(specs[0]))
  plain = {name: w[name] for name in w if not name.startswith("gate")}
  no_out = plain | {"out_HKD": np.eye(12).reshape(4, 3, 12)}
  gate = sigmoid(np.einsum("bld,dhk->blhk", x, w["gate_DHE"])).reshape(B, L, -1)
  found = apply(layer("differential"), no_out, x, CAUSAL)
  want = (gate * found) @ w["out_HKD"].reshape(-1, 12)
  for spec in specs:
    close(apply(layer(spec), w, x, CAUSAL), want)


def test_luongs_dot_is_attention_without_parameters():
  bare = "multiplicative(general=False, project=False)"
  x = tokens()
  want = apply(layer("unparameterised(project=False) + scale(0)"), {}, x, CAUSAL)
  close(apply(layer(bare), {}, x, CAUSAL), want)


EVEN = Dims(V=8, D=16, H=4, F=8, L=L)


def test_latent_keys_need_not_be_made():
  """(W c)' q = c' (W' q): attention among latents, one key head for all queries."""
  module = layer("mla(latent=6, part=2, queries=5, value=3)", "rope", EVEN)
  w, x = drawn(module, EVEN), jnp.asarray(tokens(EVEN), jnp.float32)
  w, projections = jax.tree.map(jnp.float32, w), module.variant.projections()
  kept = projections.memory(w, x)
  assert {name: a.shape for name, a in kept.items()} == {
    "latent": (B, L, 6),
    "part": (B, L, 2),
  }
  q_still, q_part = jnp.split(projections.query(w, x), [4], axis=-1)
  q_BLHC = jnp.einsum("BLHK,CHK->BLHC", q_still, w["key_CHK"])
  position = bind(module.position, {}, EVEN)
  part_BM1P = kept["part"][:, :, None]
  q_part, part_BM1P = position.transform_qk(q_part, part_BM1P, CAUSAL, CAUSAL)
  q = jnp.concatenate([q_BLHC, q_part], -1)
  k = jnp.concatenate([kept["latent"][:, :, None], part_BM1P], -1)
  v_BM1C = kept["latent"][:, :, None]
  attended = q, k, v_BM1C, CAUSAL, CAUSAL, position, (4 + 2) ** -0.5
  o_BLHC = cores.build("dense")(*attended)
  o_BLHE = jnp.einsum("BLHC,CHE->BLHE", o_BLHC, w["value_CHE"])
  want = jnp.einsum("BLHE,HED->BLD", o_BLHE, w["out_HED"])
  close(apply(module, w, x, CAUSAL), want)


# What works together.


BUILT = {name: positions.build(name) for name in sorted(positions)}
FEW = representatives({n: {*filter(e.overrides, HOOKS)} for n, e in BUILT.items()})
JOINED = [
  "mla(part=16) + qk_norm + gated",
  pytest.param("mla(part=0)", marks=SLOW),
  pytest.param("differential + gated", marks=SLOW),
]


@pytest.mark.parametrize("spec", [*JOINED, pytest.param("additive", marks=SLOW)])
@pytest.mark.parametrize("names", [FEW, pytest.param({*positions}, marks=SLOW)])
def test_every_encoding_is_served_or_refused_with_advice(spec, names):
  """Traces a layer and its decoding; what is compiled is in other tests."""
  dims = Dims(V=8, D=32, H=4, F=8, L=16)
  at, x = with_ids(coords.consecutive(1, 3)), jnp.zeros((1, 3, 32))
  served = 0
  for name in sorted(positions):
    module = layer(spec, name, dims)
    reason = module.arch.core.refusal(module.position, module.variant)
    served += not reason
    if reason:
      assert module.position.name in reason and "; use " in reason, reason
    elif name in names:
      placed = module.position.assign_positions(None, at)
      (cache,) = empty_cache(module.arch, 1, 5)
      init = functools.partial(module.init_with_output, jax.random.key(0))
      (out, *_), _ = jax.eval_shape(init, x, placed, None, None, cache)
      assert out.shape == x.shape, name
  assert served >= len(positions) / 2, f"{spec} serves {served}"


def refusal(spec, encoding):
  return attentions.build(spec).refusal(positions.build(encoding))


def test_latent_attention_turns_a_part_of_queries_and_scales_none_or_all():
  for served in ("log_n(alibi)", "randomized(rope)", "every(4, none, rope)", "cope"):
    assert refusal("mla", served) is None
  for refused in ("log_n(rope)", "randomized(log_n(rope))"):
    assert "turns just a part of them; use mla(part=0)" in refusal("mla", refused)
    assert refusal("mla(part=0)", refused) is None
  assert "use mla(part=0, value=0)" in refusal("mla(part=0, value=5)", "shaw")


def test_what_takes_no_dot_product_refuses_what_turns_for_one():
  for spec in ("additive", "concat", "concat + window(8)"):
    for encoding in ("rope", "xpos"):
      assert f"{encoding} turns queries and keys" in refusal(spec, encoding)
    assert refusal(spec, "alibi") is refusal(spec, "shaw") is None


@pytest.mark.parametrize(
  "spec,says",
  [
    ("gqa(0)", "groups is 0"),
    ("mla(latent=0)", "latent is 0; write a whole number from 1"),
    ("mla(part=-1)", "part is -1"),
    ("differential(start=1)", "start is 1"),
    ("mla + gqa(2)", "both decide how queries and keys are made"),
    ("additive + scale(0)", "both decide the scale"),
    ("additive + concat", "both decide"),
  ],
)
def test_what_makes_no_sense_is_refused(spec, says):
  with pytest.raises(ValueError, match=says):
    attentions.build(spec)


def test_heads_must_fit_the_model():
  odd = Dims(V=8, D=9, H=3, F=8, L=4)
  with pytest.raises(ValueError, match="3 is odd; choose an even number"):
    count("differential", odd)
  with pytest.raises(ValueError, match="2 groups of keys do not divide 3 heads"):
    count("gqa(2)", odd)
  with pytest.raises(ValueError, match="3 heads of 2 features are not its 9"):
    count("unparameterised", Dims(V=8, D=9, H=3, F=8, L=4, K=2))


def test_additive_scores_need_no_array_of_all_features():
  """Memory of scores and gradients grows with L * M, not with L * M * K."""
  variant = attentions.build("additive")

  def bytes_of(K, L=256):
    x = jax.ShapeDtypeStruct((L, K), jnp.float32)
    params = {name: x.update(shape=(K,)) for name in ("energy_HK", "energy_shift_HK")}
    loss = lambda params, q, k: jnp.sum(jnp.sin(variant.dot(params, q, k, 1.0)))
    compiled = jax.jit(jax.grad(loss, (0, 1, 2))).lower(params, x, x).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  assert bytes_of(32) < 4 * 256 * 256 * 12
  assert bytes_of(32) < 1.5 * bytes_of(8)
