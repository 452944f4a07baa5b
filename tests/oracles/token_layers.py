"""Layers of attention that also read tokens, or make queries otherwise, in loops.

Loops over one text, x_LD, with the weights of a layer: float64 NumPy, one query, key
and head at a time. A mixture of past values, from the words of a formula.
"""

import functools
import math

import numpy as np

from oracles.attention_layers import (
  additive,
  attend,
  concat,
  differential,
  gated,
  general,
  head_scale,
  heads,
  hybrid,
  latent,
  luong,
  mixed,
  multihead,
  normed_values,
  projected,
  rms,
  sigmoid,
  softmax,
  unparameterised,
)

CASES = []  # of encodings: none are here


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
