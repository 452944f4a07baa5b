"""NVIDIA's fused attention, through JAX. https://docs.nvidia.com/deeplearning/cudnn

It supports softmax of dot products with masks, which it computes exactly. It has been
lowered for an H100 here and has not run on one. The same call with `xla` in place of
`cudnn` equals `dense` on a CPU.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from transformer_jax.attention.cores.base import Core, cores
from transformer_jax.attention.variants.bound_variant import PLAIN
from transformer_jax.attention.variants.window import window_width
from transformer_jax.devices import platform
from transformer_jax.positions import Coords

HOOKS = "bias", "mask", "score", "values", "full_scores"
CHANGES = (
  *("dot", "score", "logits", "select", "sink_logit"),
  *("pointwise", "weigh", "weigh_at"),
)
HALF = jnp.bfloat16, jnp.float16
FULL, PADDED, MASKED, BOTH_WAYS = range(4)  # forms of rows
WITHOUT = "use model.core=blockwise or dense"


@cores.register("cudnn")
@dataclasses.dataclass(frozen=True)
class Cudnn(Core):
  """Calls jax.nn.dot_product_attention; takes bfloat16 or float16 on an NVIDIA GPU.

  Rows of one text need no array of [L, M]: causal, with or without a sliding window, or
  looking both ways, with or without padding after the text. Other masks become one,
  shared by all heads. Grouped keys are not repeated.

  implementation   cudnn, or xla: plain JAX on any device, to check the masks

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> at, zero_BLHK = tj.positions.coords.consecutive(1, 4), np.zeros((1, 4, 1, 2))
  >>> v_BMHE = np.arange(4.0).reshape(1, 4, 1, 1)
  >>> none = tj.positions.Bound(tj.positions.build("none"))
  >>> core = jax.jit(tj.cores.build("cudnn(implementation='xla')"))
  >>> print(core(zero_BLHK, zero_BLHK, v_BMHE, at, at, none).ravel())
  [0.  0.5 1.  1.5]
  """

  implementation: str = "cudnn"

  def attend(self, q_BLHK, k_BMGK, v_BMGE, context):
    scale, q_at, k_at = context.scale, context.q_at, context.k_at
    if not isinstance(scale, float):  # learned, or one for each head
      q_BLHK, scale = _scaled(q_BLHK, scale), 1.0
    E = v_BMGE.shape[-1]
    q_BLHK, k_BMGK, v_BMGE = _as_wide(q_BLHK, k_BMGK, v_BMGE)

    attention = functools.partial(
      jax.nn.dot_product_attention, scale=scale, implementation=self.implementation
    )
    vectors = q_BLHK, k_BMGK, v_BMGE
    masked = functools.partial(_masked, attention, context)
    variant = context.variant.variant
    window = window_width(variant)
    if q_BLHK.shape[1] != k_BMGK.shape[1] or (variant.overrides("mask") and not window):
      out_BLHE = masked(*vectors)
    else:
      texts = _Texts(attention, q_at, window)
      forms: list[Callable[..., jax.Array]] = [texts.full, texts.padded, masked]
      forms += [] if window else [texts.both_ways]
      out_BLHE = jax.lax.switch(_form(q_at, k_at, len(forms)), forms, *vectors)
    return out_BLHE[..., :E].astype(v_BMGE.dtype)

  def refusal(self, encoding, variant=PLAIN.variant, dropout=False):
    if any(map(encoding.overrides, HOOKS)):
      what = f"{encoding.name} changes scores or outputs"
    elif any(map(variant.overrides, CHANGES)):
      what = f"{variant.name} is more than a softmax of dot products with a mask"
    elif dropout:
      what = "dropped weights would be cuDNN's own"
    else:
      return variant.refusal(encoding)
    return f"{what}, and cudnn cannot; {WITHOUT}"

  def misfit(self, q_BLHK, k_BMGK, v_BMGE):
    if self.implementation == "cudnn" and platform() != "gpu":
      return f"cudnn runs on NVIDIA GPUs and this is a {_device()}; {WITHOUT}"
    if self.implementation == "cudnn" and q_BLHK.dtype not in HALF:
      return f"cudnn takes bfloat16 or float16, not {q_BLHK.dtype}; {WITHOUT}"
    return None


def _scaled(q_BLHK, scale):
  """Returns scaled queries: the kernel takes a number, not an array, as its scale."""
  scale = jnp.asarray(scale, jnp.float32)
  factor = scale[:, None] if scale.ndim else scale
  return (q_BLHK.astype(jnp.float32) * factor).astype(q_BLHK.dtype)


def _as_wide(*heads):
  """Returns arrays of equal width, padded with zeros: no product changes."""
  width = max(x.shape[-1] for x in heads)

  def pad(x):
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, width - x.shape[-1])])

  return [pad(x) for x in heads]


def _device():
  return platform().upper()


def _masked(attention, context, q_BLHK, k_BMGK, v_BMGE):
  """Returns o_BLHE by the mask as an array of [L, M], shared by all heads.

  attention   JAX's function, with its scale
  context     coordinates and variant
  """
  mask_BLM = context.variant.mask(context.q_at, context.k_at)
  out_BLHE = attention(q_BLHK, k_BMGK, v_BMGE, mask=mask_BLM[:, None])
  # A query whose keys are all masked would get the mean of all values.
  any_BL11 = jnp.any(mask_BLM, axis=2)[:, :, None, None]
  return jnp.where(any_BL11, out_BLHE, 0)


@dataclasses.dataclass(frozen=True, eq=False)
class _Texts:
  """Attention of rows that hold one text each, from their start: no array of [L, M].

  attention   JAX's function, with its scale
  at          coordinates of queries and keys
  window      keys that a query attends to, itself included; None: all
  """

  attention: Callable[..., jax.Array]
  at: Coords
  window: int | None

  def full(self, q_BLHK, k_BMGK, v_BMGE):
    """Returns o_BLHE of causal texts without padding."""
    return self.attention(q_BLHK, k_BMGK, v_BMGE, is_causal=True, **self._local())

  def padded(self, q_BLHK, k_BMGK, v_BMGE):
    """Returns o_BLHE of causal texts with padding after them."""
    return self._of_lengths(q_BLHK, k_BMGK, v_BMGE, is_causal=True, **self._local())

  def both_ways(self, q_BLHK, k_BMGK, v_BMGE):
    """Returns o_BLHE of texts that look both ways, with padding after them."""
    return self._of_lengths(q_BLHK, k_BMGK, v_BMGE)

  def _local(self):
    return {} if self.window is None else {"local_window_size": (self.window - 1, 0)}

  def _of_lengths(self, q_BLHK, k_BMGK, v_BMGE, **how):
    real_BL = jnp.broadcast_to(self.at.real_BL, q_BLHK.shape[:2])
    count_B = jnp.sum(real_BL, axis=1, dtype=jnp.int32)
    how |= {"query_seq_lengths": count_B, "key_value_seq_lengths": count_B}
    out_BLHE = self.attention(q_BLHK, k_BMGK, v_BMGE, **how)
    return jnp.where(real_BL[:, :, None, None], out_BLHE, 0)


def _form(q_at, k_at, forms):
  """Returns which form the rows have: full, padded, masked, or both ways.

  forms   how many there are: without the last, texts that look both ways are masked
  """
  place_L = jnp.arange(q_at.order_BL.shape[1])
  real_BL = q_at.real_BL
  count_B1 = jnp.sum(real_BL, axis=1, keepdims=True)
  alike = jnp.all(
    (q_at.order_BL == k_at.order_BL) & (q_at.segment_BL == k_at.segment_BL)
  )
  starts = jnp.all(real_BL == (place_L < count_B1))
  same_BL = q_at.segment_BL == q_at.segment_BL[:, :1]
  ordered = jnp.all(jnp.where(real_BL, same_BL & (q_at.order_BL == place_L), True))
  text = alike & starts & ordered
  causal = jnp.all(jnp.where(real_BL, q_at.horizon_BL == q_at.order_BL, True))
  both = jnp.all(jnp.where(real_BL, q_at.horizon_BL >= count_B1 - 1, True))
  one_way = jnp.where(jnp.all(real_BL), FULL, PADDED)
  other = jnp.where(text & both, BOTH_WAYS, MASKED) if forms > BOTH_WAYS else MASKED
  return jnp.where(text & causal, one_way, other)
