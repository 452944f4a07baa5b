"""Statistics of heads of one layer as loops over texts, heads, queries and keys."""

import math

import numpy as np

CERTAIN = 1e-3  # of the size of a kernel: sizes nearer to 0 are rounding


def distributions(w_BHLM):
  """Returns weights over the sum of their sizes, for each query."""
  p_BHLM = np.abs(np.asarray(w_BHLM, np.float64))
  for p_L in p_BHLM.reshape(-1, p_BHLM.shape[-1]):
    p_L /= p_L.sum() or 1.0
  return p_BHLM


class Layer:
  """Weights, visibility, ranks and tokens of one layer."""

  def __init__(self, w_BHLM, mask, q_rank, k_rank, q_token, k_token, cross):
    B, _, L, M = w_BHLM.shape
    self.p = distributions(w_BHLM)
    mask = np.asarray(mask)
    mask = mask.any(1) if mask.ndim == 4 else mask
    self.sees = np.broadcast_to(mask, (B, L, M))
    self.q_rank = np.broadcast_to(q_rank, (B, L))
    self.k_rank = np.broadcast_to(k_rank, (B, M))
    self.q_token, self.k_token, self.cross = q_token, k_token, cross

  def counts(self, b, m_of_l):
    """Returns whether the query has a choice and some weight."""
    choice = self.q_rank[b, m_of_l] >= 0 and self.sees[b, m_of_l].sum() > 1
    return bool(choice and self.p[b, :, m_of_l].any())

  def over(self, number):
    """Returns means over queries of number(b, h, l); None: the query has none."""
    B, H, L, _ = self.p.shape
    found = np.full((B, H), np.nan)
    for b in range(B):
      for h in range(H):
        some = [number(b, h, place) for place in range(L) if self.counts(b, place)]
        some = [x for x in some if x is not None]
        if some:
          found[b, h] = np.mean(some)
    return found

  def share(self, wanted):
    """Returns shares of the keys for which wanted(b, query, key) is true."""
    M = self.p.shape[-1]

    def number(b, h, query):
      keys = [m for m in range(M) if self.sees[b, query, m] and wanted(b, query, m)]
      return sum(self.p[b, h, query, m] for m in keys) if keys else None

    return self.over(number)

  def before(self, rank, token, b, place, steps):
    """Returns the token some ranks before a place of the same text, or None."""
    if rank[b, place] < steps:
      return None
    return int(token[b, place - steps])

  def copies(self, b, query, key, match):
    """Returns whether the tokens up to a key are those up to a query."""
    if self.k_rank[b, key] < 0 or (not self.cross and query == key):
      return False
    for steps in range(match):
      ours = self.before(self.q_rank, self.q_token, b, query, steps)
      theirs = self.before(self.k_rank, self.k_token, b, key, steps)
      if ours is None or ours != theirs:
        return False
    return True


def by_rank(steps):
  """Returns a statistic: the share on the token that many ranks before the query."""
  return lambda layer, _: layer.share(
    lambda b, q, k: layer.q_rank[b, q] - layer.k_rank[b, k] == steps
  )


def distance(layer, _):
  def number(b, h, q):
    return sum(
      p * abs(int(layer.q_rank[b, q]) - int(layer.k_rank[b, k]))
      for k, p in enumerate(layer.p[b, h, q])
    )

  return layer.over(number)


def entropy(layer, _):
  return layer.over(
    lambda b, h, q: -sum(p * math.log(p) for p in layer.p[b, h, q] if p > 0)
  )


def confidence(layer, _):
  return layer.over(lambda b, h, q: max(layer.p[b, h, q]))


def first(layer, _):
  return layer.share(lambda b, q, k: layer.k_rank[b, k] == 0)


def delimiter(layer, vocabulary):
  return layer.share(lambda b, q, k: vocabulary["delimiter"][layer.k_token[b, k]])


def rare(layer, vocabulary):
  count = vocabulary["count"]

  def wanted(b, q, k):
    seen = [count[t] for t, sees in zip(layer.k_token[b], layer.sees[b, q], strict=True)
            if sees]  # fmt: skip
    return count[layer.k_token[b, k]] == min(seen)

  return layer.share(wanted)


def duplicate(layer, _, match=1):
  return layer.share(lambda b, q, k: layer.copies(b, q, k, match))


def induction(layer, _, match=1):
  return layer.share(
    lambda b, q, k: layer.k_rank[b, k] > 0 and layer.copies(b, q, k - 1, match)
  )


def positional(layer, _):
  """Overlap with the mean weights of queries of the same rank in other rows."""
  B, H, L, M = layer.p.shape

  def number(b, h, q):
    rank, total, queries = layer.q_rank[b, q], {}, 0
    for other in set(range(B)) - {b}:
      for place in range(L):
        if layer.q_rank[other, place] == rank and layer.counts(other, place):
          queries += 1
          for m in range(M):
            key = layer.k_rank[other, m]
            total[key] = total.get(key, 0) + layer.p[other, h, place, m]
    if not queries:
      return None
    return sum(
      min(layer.p[b, h, q, m], total.get(layer.k_rank[b, m], 0) / queries)
      for m in range(M)
      if layer.sees[b, q, m]
    )

  return layer.over(number)


STATISTICS = {
  "confidence": confidence,
  "delimiter": delimiter,
  "distance": distance,
  "duplicate": duplicate,
  "entropy": entropy,
  "first": first,
  "induction": induction,
  "next": by_rank(-1),
  "positional": positional,
  "previous": by_rank(1),
  "rare": rare,
  "same": by_rank(0),
}


def jensen_shannon(layer, _):
  """Returns divergences of all pairs of heads in bits, [B, H, H]."""

  def bits(p):
    return -sum(x * math.log2(x) for x in p if x > 0)

  def against(g):
    def number(b, h, q):
      one, other = layer.p[b, h, q], layer.p[b, g, q]
      return bits((one + other) / 2) - (bits(one) + bits(other)) / 2

    return layer.over(number)

  return np.stack([against(g) for g in range(layer.p.shape[1])], axis=2)


def cka(layer, out_BLHE):
  """Returns alignments of all pairs of heads, [B, H, H]: Song et al., equation 5.

  NaN where a head's estimate of its own size is not above 0. The second array says
  where that is certain: whether the sizes of both are far from 0, on the scale of
  their kernels, or one is that far below.
  """
  B, _, H, _ = out_BLHE.shape
  found, certain = np.full((B, H, H), np.nan), np.ones((B, H, H), bool)
  for b in range(B):
    places = [n for n, rank in enumerate(layer.q_rank[b]) if rank >= 0]
    n = len(places)
    if n < 4:
      continue
    kernels, share = [], []
    for h in range(H):
      x = np.asarray(out_BLHE[b, places, h], np.float64)
      kernel = x @ x.T
      kernels.append(kernel - np.diag(np.diag(kernel)))
      centred = x - x.mean(0)
      scale = np.sum((centred @ centred.T) ** 2) / (n * (n - 3))
      share.append(hsic(kernels[h], kernels[h]) / max(scale, 1e-12))
    for h in range(H):
      for g in range(H):
        size = hsic(kernels[h], kernels[h]), hsic(kernels[g], kernels[g])
        if min(size) > 0:
          found[b, h, g] = hsic(kernels[h], kernels[g]) / math.sqrt(size[0] * size[1])
        least = min(share[h], share[g])
        certain[b, h, g] = abs(least) > CERTAIN
  return found, certain


def hsic(k, g):
  """Returns the unbiased estimate of HSIC of two kernels without diagonals."""
  n = len(k)
  one = np.ones(n)
  value = np.trace(k @ g) + (one @ k @ one) * (one @ g @ one) / (n - 1) / (n - 2)
  return (value - 2 / (n - 2) * (one @ k @ g @ one)) / (n * (n - 3))


def over_texts(x_BHH):
  """Returns the mean over texts that have a number, and its standard error."""
  H = x_BHH.shape[1]
  mean_HH, error_HH = np.full((H, H), np.nan), np.full((H, H), np.nan)
  for h in range(H):
    for g in range(H):
      some = [x for x in x_BHH[:, h, g] if not math.isnan(x)]
      if some:
        mean_HH[h, g] = sum(some) / len(some)
      if len(some) > 1:
        spread = sum((x - mean_HH[h, g]) ** 2 for x in some) / (len(some) - 1)
        error_HH[h, g] = math.sqrt(spread / len(some))
  return mean_HH, error_HH
