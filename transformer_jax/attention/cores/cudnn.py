"""NVIDIA's fused attention, through JAX. https://docs.nvidia.com/deeplearning/cudnn

It supports softmax of dot products with masks, which it computes exactly. It has been
lowered for an H100 here and has not run on one. The same call with `xla` in place of
`cudnn` equals `dense` on a CPU.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from transformer_jax.attention.cores.base import Core, cores
from transformer_jax.attention.variants.bound_variant import PLAIN
from transformer_jax.devices import platform

HOOKS = "bias", "mask", "score", "values", "full_scores"
CHANGES = (
  *("dot", "score", "logits", "select", "sink_logit"),
  *("pointwise", "weigh", "weigh_at"),
)
HALF = jnp.bfloat16, jnp.float16
WITHOUT = "use model.core=blockwise or dense"


@cores.register("cudnn")
@dataclasses.dataclass(frozen=True)
class Cudnn(Core):
  """Calls jax.nn.dot_product_attention; takes bfloat16 or float16 on an NVIDIA GPU.

  Causal texts that fill their rows need no array of [L, M]; other masks become one,
  shared by all heads.

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
    mask_BLM = context.variant.mask(q_at, k_at)
    masked = functools.partial(attention, mask=mask_BLM[:, None])
    causal = functools.partial(attention, is_causal=True)
    masks = context.variant.variant.overrides("mask")
    if masks or q_BLHK.shape[1] != k_BMGK.shape[1]:
      out_BLHE = masked(q_BLHK, k_BMGK, v_BMGE)
    else:
      plain = _is_one_causal_text(q_at) & _is_one_causal_text(k_at)
      out_BLHE = jax.lax.cond(plain, causal, masked, q_BLHK, k_BMGK, v_BMGE)
    # A query whose keys are all masked would get the mean of all values.
    any_BL11 = jnp.any(mask_BLM, axis=2)[:, :, None, None]
    return jnp.where(any_BL11, out_BLHE[..., :E], 0).astype(v_BMGE.dtype)

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


def _is_one_causal_text(at):
  """Returns whether every row is one causal text without padding."""
  place_L = jnp.arange(at.order_BL.shape[1])
  same_BL = at.segment_BL == at.segment_BL[:1, :1]
  return jnp.all((at.order_BL == place_L) & (at.horizon_BL == place_L) & same_BL)
