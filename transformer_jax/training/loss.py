"""Cross-entropy, also in chunks that never hold all logits."""

import functools

import jax
import jax.numpy as jnp

from transformer_jax.devices import platform
from transformer_jax.matmul import across, whole_along_width
from transformer_jax.weight_gradients import on_parts_of_batch

# Logits that a device holds at once, in float32 32 MiB or 1 GiB. CPUs work fastest when
# they stay in caches; accelerators want few large products and lack only memory.
MAX_LOGITS = {"cpu": 2**23}
MAX_LOGITS_ELSEWHERE = 2**28


def cross_entropy(logits_BLV, target_BL, smoothing: float = 0.0, weight_BL=None):
  """Returns -log p(target), mixed with the mean over all tokens if smoothed.

  Szegedy et al., 2016. https://arxiv.org/abs/1512.00567

  weight_BL   of the places. A label outside of the vocabulary, as -100 in HuggingFace's
              data, marks a place to ignore; where such a place has a weight, the loss
              is NaN
  """
  hit_BLV = target_BL[..., None] == jnp.arange(logits_BLV.shape[-1])
  # A sum over the vocabulary, not a gather, whose gradient is a slow scatter on CPUs.
  target = jnp.sum(jnp.where(hit_BLV, logits_BLV, 0.0), axis=-1)
  mean = smoothing * jnp.mean(logits_BLV, axis=-1) if smoothing else 0.0
  loss_BL = jax.nn.logsumexp(logits_BLV, axis=-1) - (1 - smoothing) * target - mean
  if weight_BL is None:
    return loss_BL
  defined_BL = (weight_BL == 0) | labels(target_BL, logits_BLV.shape[-1])
  return jnp.where(defined_BL, loss_BL, jnp.nan)


def labels(target_BL, V: int):
  """Returns True where a target is one of the V labels."""
  return (target_BL >= 0) & (target_BL < V)


def default_max_logits() -> int:
  """Returns the most logits that one device of the platform holds at once."""
  return MAX_LOGITS.get(platform(), MAX_LOGITS_ELSEWHERE)


def num_chunks(B: int, L: int, V: int, max_logits: int) -> int:
  """Returns how many chunks of the length keep the logits of each below the limit.

  B, L, V      batch size, length and vocabulary of the logits
  max_logits   the limit; a chunk holds one token of each text at least
  """
  return min(L, -(-B * L * V // max_logits))


def chunked_log_z(x_BLD, output_VD, n=1):
  """Returns log_z_BL, float32: the log of the sum of the exponentials of the logits.

  Of the logits x @ output^T, of which n chunks are computed one after another, and
  once more in the backward pass.

  x_BLD       states of the last layer
  output_VD   output projection
  n           number of chunks, from `num_chunks`
  """
  reads_VD = whole_along_width(output_VD, "VD", x_BLD.dtype)

  @jax.checkpoint
  def of_chunk(x_BLD):
    logits_BLV = jnp.matmul(x_BLD, reads_VD.T, preferred_element_type=jnp.float32)
    return jax.nn.logsumexp(logits_BLV, axis=-1)

  return _join(jax.lax.map(of_chunk, _cut(x_BLD, n)), x_BLD.shape[1])


def _cut(x, n: int):
  """Cuts (B, L, ...) into (n, B, L / n, ...): a mesh splits B, so B stays whole."""
  x = jnp.pad(x, [(0, 0), (0, -x.shape[1] % n)] + [(0, 0)] * (x.ndim - 2))
  return jnp.moveaxis(x.reshape(x.shape[0], n, -1, *x.shape[2:]), 1, 0)


def _join(x, L: int):
  """Joins the chunks that `_cut` made of L tokens."""
  x = jnp.moveaxis(x, 0, 1)
  return x.reshape(x.shape[0], -1, *x.shape[3:])[:, :L]


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def chunked_cross_entropy(x_BLD, output_VD, target_BL, weight_BL, smoothing=0.0, n=1):
  """Returns (sum of weighted cross-entropies, sum of weights where argmax is right).

  Equals `cross_entropy` and `argmax` of the logits x @ output^T, but takes the length
  in n chunks and computes the gradients of a chunk's logits in the same pass.
  Differentiable once, in reverse.

  x_BLD       states of the last layer
  output_VD   output projection
  target_BL   int32; a label outside of the vocabulary is ignored where its weight is 0,
              and makes the loss NaN elsewhere
  weight_BL   float32, weight of each target
  smoothing   probability moved from the target to all labels alike
  n           number of chunks, from `num_chunks`
  """
  return _forward(x_BLD, output_VD, target_BL, weight_BL, smoothing, n)[0]


def _forward(x_BLD, output_VD, target_BL, weight_BL, smoothing, n):
  """Returns the two sums, and the gradients of the first."""
  reads_VD = whole_along_width(output_VD, "VD", x_BLD.dtype)
  chunks = functools.partial(_chunks, smoothing, n)
  tokens = x_BLD, target_BL, weight_BL
  sums, d_output_DV, grads = on_parts_of_batch(chunks, reads_VD, tokens)
  return sums, (d_output_DV.T.astype(output_VD.dtype), *grads)


def _chunks(smoothing, n, reads_VD, x_BLD, target_BL, weight_BL):
  """Returns the two sums, the output's gradient, and those of x and the weights."""

  def visit(carry, chunk):
    sums, d_output_DV = carry
    more, d_chunk_DV, grads = _chunk(reads_VD, smoothing, *chunk)
    return (jax.tree.map(jnp.add, sums, more), d_output_DV + d_chunk_DV), grads

  zero = jnp.float32(0), jnp.float32(0)
  start = zero, jnp.zeros(reads_VD.shape[::-1], jnp.float32)
  cuts = jax.tree.map(functools.partial(_cut, n=n), (x_BLD, target_BL, weight_BL))
  (sums, d_output_DV), grads = jax.lax.scan(visit, start, cuts)
  return sums, d_output_DV, jax.tree.map(lambda x: _join(x, x_BLD.shape[1]), grads)


def _chunk(output_VD, smoothing, x_BLD, target_BL, weight_BL):
  """Returns the sums of one chunk, and gradients by the output, x and the weights."""
  V, D = output_VD.shape
  x_TD, target_T1 = x_BLD.reshape(-1, D), target_BL.reshape(-1, 1)
  weight_T1 = weight_BL.reshape(-1, 1)
  dot = functools.partial(jax.lax.dot_general, preferred_element_type=jnp.float32)
  logits_TV = dot(x_TD, output_VD, (((1,), (1,)), ((), ())))
  top_T1 = logits_TV.max(-1, keepdims=True)
  e_TV = jnp.exp(logits_TV - top_T1)
  sum_T1 = e_TV.sum(-1, keepdims=True)
  label_T1 = labels(target_T1, V)
  own_T1 = jnp.take_along_axis(logits_TV, jnp.where(label_T1, target_T1, 0), axis=-1)
  own_T1 = jnp.where(label_T1, own_T1, 0.0)
  loss_T1 = jnp.log(sum_T1) + top_T1 - (1 - smoothing) * own_T1
  if smoothing:
    loss_T1 -= smoothing * logits_TV.mean(-1, keepdims=True)
  loss_T1 = jnp.where(label_T1 | (weight_T1 == 0), loss_T1, jnp.nan)

  # argmax == target, several times faster: nothing is higher, nor as high and earlier.
  v_V = jnp.arange(V)
  lower_TV = jnp.where(v_V < target_T1, logits_TV < own_T1, logits_TV <= own_T1)
  right_T1 = jnp.all(lower_TV, axis=-1, keepdims=True) & label_T1

  wanted_TV = jnp.where(v_V == target_T1, 1 - smoothing, 0.0) + smoothing / V
  d_logits_TV = (e_TV * (weight_T1 / sum_T1) - weight_T1 * wanted_TV).astype(x_TD.dtype)
  d_output_DV = across(x_TD, d_logits_TV)
  d_x_TD = dot(d_logits_TV, output_VD, (((1,), (0,)), ((), ()))).astype(x_TD.dtype)
  sums = jnp.sum(loss_T1 * weight_T1), jnp.sum(right_T1 * weight_T1)
  shaped = d_x_TD.reshape(x_BLD.shape), loss_T1.reshape(weight_BL.shape)
  return sums, d_output_DV, shaped


def _backward(smoothing, n, residuals, d):
  d_output_VD, d_x_BLD, loss_BL = residuals
  d_loss, _ = d  # the number of right guesses has no gradient

  def scaled(x):
    return (d_loss * x).astype(x.dtype)

  return scaled(d_x_BLD), scaled(d_output_VD), None, scaled(loss_BL)


chunked_cross_entropy.defvjp(_forward, _backward)
