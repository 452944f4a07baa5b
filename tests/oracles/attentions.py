"""How papers turn the scores of one query into weights: float64, one key at a time.

A `Paper` here gets z_HM, the scores of a query with the keys that it sees, oldest
first; the last one is its own. `attend` loops over queries around it. Which keys a
query sees is in PATTERNS.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy.optimize import brentq

CASES = []  # of encodings: none are here

Weights = Callable[[Mapping[str, np.ndarray], np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Weighing:
  """A variant and what its paper says.

  weights     (params, z_HM) -> w_HM
  parameters  how many it learns with H heads
  total       of the weights of a row: "one", "less" than one, or "free"
  shift       whether adding a number to all scores of a query changes nothing
  carried     (params, z_HM of each query of a text so far) -> what is subtracted from
              the scores of the next one, by key
  """

  spec: str
  weights: Weights
  parameters: Callable[[int], int] = lambda H: 0
  total: str = "one"
  shift: bool = False
  carried: Callable[..., Any] | None = None


def attend(weights, params, q_LHK, k_LHK, v_LHK, where, carried=None):
  """Returns one row of attention outputs, [L, H, K]; zero where nothing is seen."""
  L, H, K = q_LHK.shape
  out_LHK, scores = np.zeros(v_LHK.shape), {}
  for i in range(L):
    keys = [j for j in range(L) if where.sees(i, j)]
    if not keys:
      continue
    z_HM = [[q_LHK[i, h] @ k_LHK[j, h] / math.sqrt(K) for j in keys] for h in range(H)]
    z_HM = np.array(z_HM)
    if carried is not None:
      before = [scores[j] for j in keys[:-1]]  # the last key is the query's own
      scores[i] = z_HM
      z_HM = z_HM - carried(before, len(keys))
    w_HM = weights(params, z_HM)
    for h in range(H):
      out_LHK[i, h] = sum(w_HM[h][m] * v_LHK[j, h] for m, j in enumerate(keys))
  return out_LHK


def each_head(one: Callable[..., Any]) -> Weights:
  """Returns weights of heads that do not meet; `one` gets (params of a head, z_M)."""

  def all_heads(params, z_HM):
    own = [{name: x[h] for name, x in params.items()} for h in range(len(z_HM))]
    return np.array([one(*head) for head in zip(own, z_HM, strict=True)])

  return all_heads


def logistic(x):
  return 1 / (1 + math.exp(-x))


def softmax(params, z_M):
  """Vaswani et al., 2017, equation 1."""
  return np.exp(z_M) / sum(math.exp(z) for z in z_M)


def softmax_one(params, z_M):
  """Miller, 2023: exp(x_i) / (1 + sum_j exp(x_j))."""
  return np.exp(z_M) / (1 + sum(math.exp(z) for z in z_M))


def sinks(params, z_M):
  """gpt-oss, 2025: a learned bias in the denominator of the softmax."""
  return np.exp(z_M) / (math.exp(params["sink_H"]) + sum(math.exp(z) for z in z_M))


def sigmoid(params, z_M, n=None):
  """Ramapuram et al., 2024: sigmoid(q k / sqrt(d) + b), b = -log n."""
  return [logistic(z - math.log(n or len(z_M))) for z in z_M]


def relu(params, z_M, n=None, power=1.0):
  """Wortsman et al., 2023: L^-alpha relu(q k / sqrt(d))."""
  return [max(z, 0.0) / (n or len(z_M)) ** power for z in z_M]


def sparsemax(params, z_M):
  """Martins and Astudillo, 2016, algorithm 1."""
  down = sorted(z_M, reverse=True)
  support = max(
    k for k in range(1, len(down) + 1) if 1 + k * down[k - 1] > sum(down[:k])
  )
  threshold = (sum(down[:support]) - 1) / support
  return [max(z - threshold, 0.0) for z in z_M]


def entmax(alpha):
  """Peters et al., 2019, equation 6; alpha is a number or a function of parameters."""

  def one(params, z_M):
    a = alpha(params) if callable(alpha) else alpha
    at = lambda t: [max((a - 1) * z - t, 0.0) ** (1 / (a - 1)) for z in z_M]
    top = (a - 1) * max(z_M)
    if len(z_M) == 1:
      return [1.0]
    threshold = brentq(lambda t: sum(at(t)) - 1, top - 1, top, xtol=1e-15, rtol=1e-14)
    return at(threshold)

  return one


def stick_breaking(current=False, remainder=False):
  """Tan et al., 2024, equation 2: beta_ij times what nearer keys left."""

  def one(params, z_M):
    w_M, left = [0.0] * len(z_M), 1.0
    for j in reversed(range(len(z_M) if current else len(z_M) - 1)):
      w_M[j] = left * logistic(z_M[j])
      left -= w_M[j]
    if remainder:
      w_M[-1] += left
    return w_M

  return one


def topk(k):
  """Zhao et al., 2019, equations 4 to 6: what is below the k-th highest is masked."""

  def one(params, z_M):
    least = sorted(z_M)[-min(k, len(z_M))]
    e_M = [math.exp(z) if z >= least else 0.0 for z in z_M]
    return [e / sum(e_M) for e in e_M]

  return one


def cog(params, z_M):
  """Lv et al., 2024: sign(s) exp|s| / sum exp|s|."""
  total = sum(math.exp(abs(z)) for z in z_M)
  return [math.copysign(math.exp(abs(z)), z) / total for z in z_M]


def softpick(params, z_M):
  """Zuhri et al., 2025, equation 3: relu(e^s - 1) / (sum |e^s - 1| + epsilon)."""
  total = sum(abs(math.exp(z) - 1) for z in z_M) + 1e-8 * math.exp(max(*z_M, 0, 0))
  return [max(math.exp(z) - 1, 0.0) / total for z in z_M]


def selective(before, n):
  """Leviathan et al., 2024, section 3: F_ij, the sum of S_kj over queries k < i.

  S is relu of head 0's scores, but 0 for the first token and for a token itself.
  """
  against_M = np.zeros(n)
  for k, z_HM in enumerate(before):
    for j in range(1, k):
      against_M[j] += max(z_HM[0, j], 0.0)
  return against_M


def talking_heads(before=True, after=True):
  """Shazeer et al., 2020, section 3: two learned projections over heads."""

  def all_heads(params, z_HM):
    H = range(len(z_HM))
    if before:
      p = params["mix_scores_HN"]
      z_HM = [sum(z_HM[h] * p[h, g] for h in H) for g in H]
    w_HM = [softmax(None, z_M) for z_M in z_HM]
    if after:
      p = params["mix_weights_HN"]
      w_HM = [sum(w_HM[h] * p[h, g] for h in H) for g in H]
    return np.array(w_HM)

  return all_heads


def with_options(function, **options):
  return lambda params, z_M: function(params, z_M, **options)


WEIGHINGS = [
  Weighing("multihead", each_head(softmax), shift=True),
  Weighing("softmax_one", each_head(softmax_one), total="less"),
  Weighing("sinks", each_head(sinks), lambda H: H, total="less"),
  Weighing("sigmoid", each_head(sigmoid), total="free"),
  Weighing("sigmoid(fixed=16)", each_head(with_options(sigmoid, n=16)), total="free"),
  Weighing("relu", each_head(relu), total="free"),
  Weighing(
    "relu(0.5, fixed=9)", each_head(with_options(relu, n=9, power=0.5)), total="free"
  ),
  Weighing("sparsemax", each_head(sparsemax), shift=True),
  Weighing("entmax(2.0)", each_head(sparsemax), shift=True),
  Weighing("entmax", each_head(entmax(1.5)), shift=True),
  Weighing("entmax(1.2)", each_head(entmax(1.2)), shift=True),
  Weighing(
    "entmax(learned=True)",
    each_head(entmax(lambda params: 1 + logistic(params["alpha_logit_H"]))),
    lambda H: H,
    shift=True,
  ),
  Weighing("stick_breaking", each_head(stick_breaking()), total="less"),
  Weighing("stick_breaking(True)", each_head(stick_breaking(True)), total="less"),
  Weighing("stick_breaking(remainder=True)", each_head(stick_breaking(False, True))),
  Weighing("stick_breaking(True, True)", each_head(stick_breaking(True, True))),
  Weighing("topk(2)", each_head(topk(2)), shift=True),
  Weighing("topk(3)", each_head(topk(3)), shift=True),
  Weighing("cog", each_head(cog), total="free"),
  Weighing("softpick", each_head(softpick), total="free"),
  Weighing("selective", each_head(softmax), shift=True, carried=selective),
  Weighing("talking_heads", talking_heads(), lambda H: 2 * H**2, "free", True),
  Weighing(
    "talking_heads(after=False)",
    talking_heads(True, False),
    lambda H: H**2,
    "one",
    True,
  ),
  Weighing(
    "talking_heads(before=False)", talking_heads(False), lambda H: H**2, "free", True
  ),
]

# What the papers say of a query i and a key j, and how many pairs of 6 tokens are left
# when a query sees no later key, and when it does.
PATTERNS = {
  "window(3)": (15, 24, lambda i, j: -3 < i - j < 3),
  "window(2)": (11, 16, lambda i, j: -2 < i - j < 2),
  "window(6)": (21, 36, lambda i, j: True),
  "dilated(3, 2)": (12, 18, lambda i, j: j in (i - 4, i - 2, i, i + 2, i + 4)),
  "dilated(2, 3)": (9, 12, lambda i, j: j in (i - 3, i, i + 3)),
  "global_local(2, 1)": (15, 24, lambda i, j: i == 0 or j == 0 or -2 < i - j < 2),
  "global_local(1, 2)": (15, 24, lambda i, j: i < 2 or j < 2 or i == j),
  "strided(3)": (18, 30, lambda i, j: -3 < i - j < 3 or j in (i - 3, i + 3)),
  "fixed(3, 1)": (15, 24, lambda i, j: (i < 3) == (j < 3) or j in (2, 5)),
  "chunked(3)": (12, 18, lambda i, j: (i < 3) == (j < 3)),
  "chunked(4)": (13, 20, lambda i, j: (i < 4) == (j < 4)),
  "bigbird(2, 1, 1, 0)": (17, 28, lambda i, j: i < 2 or j < 2 or i // 2 == j // 2),
}

# Variants whose formula a test of their own compares: a file of tests, and the test.
COMPARED = {
  "alternate": ("test_patterns", "test_layers_take_turns"),
  "by_layer": ("test_patterns", "test_layers_take_turns"),
  "cosine": ("test_conditioning", "test_cosine_attention"),
  "cross_layer": (
    "test_carry",
    "test_readers_attend_to_the_keys_and_values_of_their_writer",
  ),
  "value_embedding": (
    "test_carry",
    "test_a_value_embedding_adds_a_gated_row_of_its_table",
  ),
  "value_residual": (
    "test_carry",
    "test_values_of_the_first_layer_are_mixed_into_later_ones",
  ),
  "yoco": ("test_carry", "test_upper_layers_read_the_keys_of_the_first_of_them"),
  "l2_distance": ("test_options", "test_layers_of_x_transformers"),
  "laser": ("test_options", "test_layers_of_x_transformers"),
  "xsa": ("test_exclusive", "test_the_part_along_the_own_value_is_taken_away"),
  "mta": ("test_mta", "test_values_and_gradients_are_those_of_loops"),
  "moba": ("test_selection", "test_blocks_are_chosen_as_the_paper_says"),
  "linear": ("test_kernel_attention", "test_linear_numbers"),
  "performer": ("test_kernel_attention", "test_random_features_are_unbiased"),
  "qk_norm": ("test_conditioning", "test_rms_norm_of_queries_and_keys"),
  "qk_norm_l2": ("test_conditioning", "test_henry_factor"),
  "scale": ("test_conditioning", "test_scales"),
  "short_conv": ("test_convolution", "test_attention_is_plain_after_the_sums"),
  "softcap": ("test_conditioning", "test_softcap"),
}
