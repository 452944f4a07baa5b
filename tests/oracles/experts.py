"""Experts in loops, one token and one expert at a time, in float64.

Shazeer et al., 2017; DeepSeek-V3, 2024, section 2.1.2; Llama 4's released code.
"""

import numpy as np


def softmax(x):
  e = np.exp(x - np.max(x))
  return e / e.sum()


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def silu(x):
  return x * sigmoid(x)


def routed(logits_X, kind, bias_X=None):
  """Returns {expert: weight} of the experts that a token chooses."""
  scores = softmax(logits_X) if kind.router == "softmax" else sigmoid(logits_X)
  choice = scores + (0 if bias_X is None else bias_X)
  each = kind.count // kind.groups
  groups = [range(g * each, (g + 1) * each) for g in range(kind.groups)]
  sums = [sum(sorted(choice[list(group)])[-2:]) for group in groups]
  best = sorted(range(kind.groups), key=lambda g: -sums[g])[: kind.active_groups]
  open_ = [x for g in best for x in groups[g]]
  chosen = sorted(open_, key=lambda x: -choice[x])[: kind.active]
  total = sum(scores[x] for x in chosen) if kind.normalized else 1.0
  return {x: kind.scale * scores[x] / total for x in chosen}


def output(x_D, w, kind):
  """Returns the output of a layer of gated experts for one token."""
  weights = routed(x_D @ w["router_DX"], kind, w.get("router_bias_X"))
  y_D = np.zeros_like(x_D)
  for x, weight in weights.items():
    read_D = weight * x_D if kind.scaled_input else x_D
    h_F = silu(read_D @ w["gate_XDF"][x]) * (read_D @ w["in_XDF"][x])
    y_D += (1 if kind.scaled_input else weight) * (h_F @ w["out_XFD"][x])
  if kind.shared:
    h_F = silu(x_D @ w["shared_gate_DF"]) * (x_D @ w["shared_in_DF"])
    gate = sigmoid(x_D @ w["shared_mix_D1"]) if kind.shared_gate else 1
    y_D += gate * (h_F @ w["shared_out_FD"])
  return y_D


def balance(logits_BLX, real_BL, kind):
  """Fedus et al., 2021, equations 4 to 6: X times the sum of f_x P_x."""
  tokens = [logits_BLX[b, i] for b, i in zip(*np.nonzero(real_BL), strict=True)]
  f_X, P_X = np.zeros(kind.count), np.zeros(kind.count)
  for logits_X in tokens:
    scores = softmax(logits_X) if kind.router == "softmax" else sigmoid(logits_X)
    P_X += scores / scores.sum() / len(tokens)
    for x in routed(logits_X, kind):
      f_X[x] += 1 / len(tokens)
  return kind.count * float(f_X @ P_X)


def moved_bias(bias_X, chosen_BLC, real_BL, rate):
  """Wang et al., 2024, algorithm 1: the bias after a step, one expert at a time.

  chosen_BLC   experts of each token, by number
  """
  load_X = np.zeros(len(bias_X))
  for b, i in zip(*np.nonzero(real_BL), strict=True):
    for x in chosen_BLC[b][i]:
      load_X[x] += 1
  mean, moved = load_X.sum() / len(load_X), np.array(bias_X, np.float64)
  for x, load in enumerate(load_X):
    moved[x] += rate if load < mean else -rate if load > mean else 0.0
  return moved
