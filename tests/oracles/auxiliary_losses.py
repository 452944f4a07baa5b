"""Auxiliary losses in loops, from the papers' equations.

arrays      {path: x_BLHE} or {path: w_BHLM} of the attention layers
real        {path: whether each token, query or key, is no padding}, [B, L]
"""

import numpy as np


def mean(arrays, real, of_token):
  """Returns the mean over layers of the mean over tokens without padding."""
  layers = []
  for path, x in arrays.items():
    x, real_BL = np.asarray(x, np.float64), np.asarray(real[path])
    some = [of_token(x, b, i) for b, i in zip(*np.nonzero(real_BL), strict=True)]
    layers.append(np.mean(some))
  return np.mean(layers)


def cosine(x, y):
  return x @ y / np.sqrt((x @ x) * (y @ y))


def disagreement_of_vectors(arrays, real):
  """Li et al., 2018, equations 6 and 8: of outputs, and of subspaces of values."""

  def of_token(x_BLHE, b, i):
    H = x_BLHE.shape[2]
    heads = x_BLHE[b, i]
    return -sum(cosine(v, w) for v in heads for w in heads) / H**2

  return mean(arrays, real, of_token)


def disagreement_on_positions(arrays, real):
  """Li et al., 2018, equation 7."""

  def of_token(w_BHLM, b, i):
    heads = w_BHLM[b, :, i]
    return -sum(np.abs(v * w).sum() for v in heads for w in heads) / len(heads) ** 2

  return mean(arrays, real, of_token)


def entropies(arrays, real, power=lambda entropy: entropy):
  """Zhai et al., 2023, section 3: mean over heads and queries of - sum a log a."""

  def of_token(w_BHLM, b, i):
    return np.mean(
      [power(-sum(a * np.log(a) for a in row if a > 0)) for row in w_BHLM[b, :, i]]
    )

  return mean(arrays, real, of_token)


def z_loss(logits_BLV, weight_BL):
  """Chowdhery et al., 2022, section 5: log^2 Z, without its factor of 1e-4."""
  total, weight_BL = 0.0, np.asarray(weight_BL, np.float64)
  for logits_V, weight in zip(
    np.asarray(logits_BLV, np.float64).reshape(-1, logits_BLV.shape[-1]),
    weight_BL.ravel(),
    strict=True,
  ):
    total += weight * np.log(np.exp(logits_V).sum()) ** 2
  return total / np.sum(weight_BL)
