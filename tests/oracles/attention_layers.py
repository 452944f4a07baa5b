"""Layers of attention whose weights are a formula of queries and keys, in loops.

Loops over one text, x_LD, with the weights of a layer: float64 NumPy, one query, key
and head at a time. A mixture of past values, from the words of a formula.
"""

import math

import numpy as np

CASES = []  # of encodings: none are here


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
