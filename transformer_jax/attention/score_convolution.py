"""Convolution of scores over neighbouring queries and keys, with its gradients.

Accelerators have an instruction for it. XLA on a CPU computes a convolution of one
channel 50 times slower than sums of shifted scores, which are one loop. Its gradient of
these sums is slow again, so it is written here: scores shifted the other way, and
products of windows for the kernel.
"""

import jax
import jax.numpy as jnp

from transformer_jax.devices import platform
from transformer_jax.positions import Coords
from transformer_jax.positions.shared.relative import everywhere

WINDOW = 16  # keys in a block of the kernel's gradient


def convolve_scores(
  s_BHLM: jax.Array, kernel_HQN: jax.Array, q_at: Coords, k_at: Coords
) -> jax.Array:
  """Returns scores of all queries and keys, convolved with the kernel of each head.

      out_ij = sum over a, b of kernel_(Q - 1 - a)(b + N // 2) s_(i - a)(j + b)

  Neighbours are tokens of one text, whatever padding lies between them.

  s_BHLM       zero where masked: no score of another text is read through a key
  kernel_HQN   of Q queries and N keys: the last query and the middle key are those of
               the score itself
  q_at, k_at   coordinates
  """
  places = _together(q_at), _together(k_at)
  order_BL = jnp.take_along_axis(q_at.order_BL, places[0], axis=1)
  form = _convolve if platform() == "cpu" else _grouped_convolution
  return form(s_BHLM, kernel_HQN.astype(s_BHLM.dtype), order_BL, places)


def _grouped_convolution(s_BHLM, kernel_HQN, order_BL, places):
  """Returns the convolution by XLA's own: queries before are channels of a head."""
  s_BHLM = _along_both(s_BHLM, *places)
  (B, _, L, M), (H, Q, N) = s_BHLM.shape, kernel_HQN.shape
  back = [
    jnp.where(
      (order_BL >= n)[:, None, :, None],
      jnp.pad(s_BHLM, ((0, 0), (0, 0), (n, 0), (0, 0)))[:, :, :L],
      0.0,
    )
    for n in reversed(range(Q))
  ]
  x_BLHQM = jnp.moveaxis(jnp.stack(back, axis=2), 3, 1)
  out = jax.lax.conv_general_dilated(
    x_BLHQM.reshape(B * L, H * Q, M),
    kernel_HQN,
    window_strides=(1,),
    padding=[(N // 2, N // 2)],
    feature_group_count=H,
    precision=jax.lax.Precision.HIGHEST,
  )
  out_BHLM = jnp.moveaxis(out.reshape(B, L, H, M), 1, 2)
  return _along_both(out_BHLM, *(jnp.argsort(x, axis=1) for x in places))


def _along_both(s_BHLM, queries_BL, keys_BM):
  s_BHLM = jnp.take_along_axis(s_BHLM, queries_BL[:, None, :, None], axis=2)
  return jnp.take_along_axis(s_BHLM, keys_BM[:, None, None], axis=3)


@jax.custom_vjp
def _convolve(s_BHLM, kernel_HQN, order_BL, places):
  def sums(s_BHLM):
    return _shifted_sums(s_BHLM, kernel_HQN, order_BL, back=1)

  return _without_padding(sums, places, s_BHLM)


def _save(s_BHLM, *rest):
  return _convolve(s_BHLM, *rest), (s_BHLM, *rest)


def _pull(saved, d_BHLM):
  s_BHLM, kernel_HQN, order_BL, places = saved

  def sums(d_BHLM):
    return _shifted_sums(d_BHLM, kernel_HQN, order_BL, back=-1)

  def of_kernel(s_BHLM, d_BHLM):
    return _of_kernel(s_BHLM, d_BHLM, order_BL, kernel_HQN)

  d_s_BHLM = _without_padding(sums, places, d_BHLM)
  d_kernel_HQN = _without_padding(of_kernel, places, s_BHLM, d_BHLM, back=False)
  return d_s_BHLM, d_kernel_HQN, None, None


_convolve.defvjp(_save, _pull)


def _together(at: Coords) -> jax.Array:
  """Returns indices_BL that put tokens first, in their order, then padding."""
  return jnp.argsort(~at.real_BL, axis=1, stable=True)


def _without_padding(function, places, *scores, back=True):
  """Returns a function of scores [B, H, L, M] whose tokens stand side by side.

  places   (queries_BL, keys_BM) of `_together`
  back     whether its result is put back, too
  """
  stands = everywhere(
    jnp.all(places[0][:, 1:] > places[0][:, :-1])
    & jnp.all(places[1][:, 1:] > places[1][:, :-1])
  )

  def permuted(*scores):
    out = function(*(_along_both(x, *places) for x in scores))
    inverse = (jnp.argsort(x, axis=1) for x in places)
    return _along_both(out, *inverse) if back else out

  # A branch for padding that comes first would decide on the layout of all scores.
  return jax.lax.cond(~stands, permuted, function, *scores)


def _shifted_sums(x_BHLM, kernel_HQN, order_BL, back):
  """Returns sums of x at queries before and keys around; back=-1: the transpose."""
  (L, M), (_, Q, N) = x_BHLM.shape[2:], kernel_HQN.shape
  middle = N // 2
  x_BHLM = jnp.pad(x_BHLM, ((0, 0), (0, 0), (Q - 1, Q - 1), (middle, middle)))
  order_BL = jnp.pad(order_BL, ((0, 0), (0, Q - 1)), constant_values=-1)
  out_BHLM = jnp.zeros((), x_BHLM.dtype)
  for n in range(Q):
    rows_BHLM = jax.lax.slice_in_dim(
      x_BHLM, Q - 1 - back * n, Q - 1 - back * n + L, axis=2
    )
    weight_HN11 = kernel_HQN[:, Q - 1 - n, :, None, None]
    starts = [middle + back * (m - middle) for m in range(N)]
    total_BHLM = sum(
      weight_HN11[:, m] * rows_BHLM[..., start : start + M]
      for m, start in enumerate(starts)
    )
    first = 0 if back > 0 else n  # the later one of both queries
    same_BL = order_BL[:, first : first + L] >= n
    out_BHLM += jnp.where(same_BL[:, None, :, None], total_BHLM, 0.0)
  return out_BHLM


def _of_kernel(s_BHLM, d_BHLM, order_BL, kernel_HQN):
  """Returns the kernel's gradient: products of blocks of keys with wider windows."""
  (L, M), (_, Q, N) = s_BHLM.shape[2:], kernel_HQN.shape
  blocks, width = -(-M // WINDOW), WINDOW + N - 1
  spare = blocks * WINDOW - M
  s_BHLM = jnp.pad(s_BHLM, ((0, 0), (0, 0), (Q - 1, 0), (N // 2, N // 2 + spare)))
  windows = [s_BHLM[..., n * WINDOW : n * WINDOW + width] for n in range(blocks)]
  s_BHLnM = jnp.stack(windows, axis=3)
  d_BHLM = jnp.pad(d_BHLM, ((0, 0), (0, 0), (0, 0), (0, spare)))
  d_BHLnm = d_BHLM.reshape(*d_BHLM.shape[:3], blocks, WINDOW)
  place, found = jnp.arange(WINDOW)[:, None], []
  for n in reversed(range(Q)):
    same_BL = (order_BL >= n)[:, None, :, None, None]
    pairs_HmM = jnp.einsum(
      "BHLnm,BHLnM->HmM",
      jnp.where(same_BL, d_BHLnm, 0.0),
      s_BHLnM[:, :, Q - 1 - n : Q - 1 - n + L],
      precision=jax.lax.Precision.HIGHEST,
    )
    found.append(pairs_HmM[:, place, place + jnp.arange(N)].sum(1))
  return jnp.stack(found, axis=1).astype(kernel_HQN.dtype)
