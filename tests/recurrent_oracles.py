"""Recurrent translators in loops of NumPy, one text at a time, from the papers' words.

Sutskever et al., 2014; Bahdanau et al., 2015; Luong et al., 2015. Weights have the
names and axes of ours, and all else is written anew.
"""

import numpy as np


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def softmax(x):
  return np.exp(x) / np.exp(x).sum()


def gates(w, name, x):
  """One vector for each gate."""
  _, N, _ = w[name].shape
  return [x @ w[name][:, n] for n in range(N)]


def lstm(w, read, h, c):
  i, f, g, o = (a + b for a, b in zip(read, gates(w, "state_DNW", h), strict=True))
  c = sigmoid(f + 1) * c + sigmoid(i) * np.tanh(g)
  h = sigmoid(o) * np.tanh(c)
  return (h @ w["project_WD"] if "project_WD" in w else h), c


def gru(w, read, h):
  r, z, n = gates(w, "state_DNW", h)
  r, z = sigmoid(read[0] + r), sigmoid(read[1] + z)
  return (z * h + (1 - z) * np.tanh(read[2] + r * (n + w["new_shift_W"])),)


def run(cell, w, xs, state, context=None):
  """Returns the states after each of the vectors; `context` maps h to a vector."""
  states = []
  for x in xs:
    read = [a + b for a, b in zip(gates(w, "input_DNW", x), w["shift_NW"], strict=True)]
    if context:
      more = gates(w, "context_DNW", context(state[0]))
      read = [a + b for a, b in zip(read, more, strict=True)]
    state = cell(w, read, *state)
    states.append(state)
  return states


def encode(cell, params, xs, directions, widths):
  """Returns the top layer's vectors and the state in which each layer ends."""
  final = []
  for n in range(2):
    sides, ends = [], []
    for back in directions:
      w = params[f"layer_{n}" + "_backward" * back]
      start = [np.zeros(width // len(directions)) for width in widths]
      states = run(cell, w, xs[::-1] if back else xs, start)
      ends.append(states[-1])  # the last one read, from either side
      sides.append([h for h, *_ in (states[::-1] if back else states)])
    xs = [np.concatenate(pair) for pair in zip(*sides, strict=True)]
    final.append([np.concatenate(parts) for parts in zip(*ends, strict=True)])
  return xs, final


def additive(w, s, hs):
  """v' tanh(W s + U h + b) for each head; the contexts are projected."""
  out = 0
  for n in range(w["energy_HK"].shape[0]):
    q, shift = s @ w["query_DHK"][:, n], w["energy_shift_HK"][n]
    energy = [
      w["energy_HK"][n] @ np.tanh(q + h @ w["key_DHK"][:, n] + shift) for h in hs
    ]
    weights = softmax(np.array(energy))
    context = sum(
      p * (h @ w["value_DHK"][:, n]) for p, h in zip(weights, hs, strict=True)
    )
    out = out + context @ w["out_HKD"][n]
  return out


def multiplicative(w, s, hs):
  """tanh(W [context; s]), the scores being s' W h on a head's slice."""
  H, K, _ = w["query_HKK"].shape
  out = s @ w["state_DD"]
  for n in range(H):
    own = slice(n * K, (n + 1) * K)
    scores = [s[own] @ w["query_HKK"][n] @ h[own] for h in hs]
    weights = softmax(np.array(scores))
    context = sum(p * h[own] for p, h in zip(weights, hs, strict=True))
    out = out + context @ w["out_HKD"][n]
  return np.tanh(out)


def bottleneck(params, tokens, tops, hs):
  return tops


def luong(params, tokens, tops, hs):
  return [multiplicative(params["cross"], top, hs) for top in tops]


def decode(cell, params, xs, hs, final, output):
  """Returns the vectors that predict; every layer starts where the encoder's ended."""
  tokens = xs
  for n in range(2):
    xs = [h for h, *_ in run(cell, params[f"layer_{n}"], xs, final[n])]
  return output(params, tokens, xs, hs)


def bahdanau(cell, params, xs, hs, final):
  """The first layer reads what its state before the step found."""
  look, found = params["cross"], []

  def context(s):
    found.append(additive(look, s, hs))
    return found[-1]

  tops = [h for h, *_ in run(cell, params["layer_0"], xs, final[0], context)]
  tops = [h for h, *_ in run(cell, params["layer_1"], tops, final[1])]
  named = zip(xs, tops, found, strict=True)
  names = "token_DND", "top_DND", "found_DND"
  maxout = lambda parts: np.maximum(
    *(
      sum(x @ params[name][:, n] for name, x in zip(names, parts, strict=True))
      for n in range(2)
    )
  )
  return [maxout(parts) for parts in named]


def logits(name, params, token_L, source_M):
  """Returns logits_LV of a model of tests/models/test_recurrent.py."""
  embedding_VD = params["embedding_VD"]
  D = embedding_VD.shape[1]
  xs, ys = ([embedding_VD[t] * D**0.5 for t in ts] for ts in (source_M, token_L))
  cell, directions, widths = {
    "bottleneck": (lstm, (0, 1), (D, D)),
    "luong": (gru, (1,), (D,)),
    "bahdanau": (lstm, (0, 1), (D, 6)),
  }[name]
  hs, final = encode(cell, params["encoder"], xs, directions, widths)
  if name == "bahdanau":
    out = bahdanau(cell, params["decoder"], ys, hs, final)
  else:
    output = {"bottleneck": bottleneck, "luong": luong}[name]
    out = decode(cell, params["decoder"], ys, hs, final, output)
  return np.array(out) @ embedding_VD.T
