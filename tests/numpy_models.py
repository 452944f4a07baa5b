"""Passes of models without recorded numbers, in NumPy, from their published code.

https://github.com/huggingface/transformers describes both; names are those of the
released weights. One text at a time, without padding.
"""

import math

import numpy as np
from replay import under


def norm(w, name, x, epsilon=1e-5):
  x = x - x.mean(-1, keepdims=True)
  x = x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon)
  return x * w[f"{name}.weight"] + w.get(f"{name}.bias", 0)


def linear(w, name, x):
  return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0)


def gelu(x):
  return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2


def attend(q_LD, k_MD, v_MD, heads, bias_HLM=0):
  """Returns softmax(q k / sqrt(K) + bias) v, heads side by side."""
  split = lambda x: x.reshape(len(x), heads, -1).transpose(1, 0, 2)
  q, k, v = split(q_LD), split(k_MD), split(v_MD)
  s_HLM = q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1]) + bias_HLM
  w_HLM = np.exp(s_HLM - s_HLM.max(-1, keepdims=True))
  w_HLM /= w_HLM.sum(-1, keepdims=True)
  return (w_HLM @ v).transpose(1, 0, 2).reshape(q_LD.shape)


def future(L):
  return np.where(np.arange(L)[None] > np.arange(L)[:, None], -np.inf, 0)


def mpt(w, heads, token_L):
  """MPT with a power of two heads: ALiBi, norms without shifts, no bias at all."""
  L = len(token_L)
  slope_H = 2.0 ** (-8 / heads * np.arange(1, heads + 1))
  ahead_LM = np.arange(L)[None] - np.arange(L)[:, None]
  bias_HLM = slope_H[:, None, None] * ahead_LM + future(L)
  table = w["transformer.wte.weight"]
  x = table[token_L]
  for n in range(2):
    b = under(w, f"transformer.blocks.{n}.")
    q, k, v = np.split(linear(b, "attn.Wqkv", norm(b, "norm_1", x)), 3, axis=-1)
    x = x + linear(b, "attn.out_proj", attend(q, k, v, heads, bias_HLM))
    inner = gelu(linear(b, "ffn.up_proj", norm(b, "norm_2", x)))
    x = x + linear(b, "ffn.down_proj", inner)
  return norm(w, "transformer.norm_f", x) @ table.T


def bart(w, heads, token_L, source_M):
  """BART: positions from row 2, a norm after the embedding, norms after sums."""
  memory = _bart_stack(w, "encoder", heads, source_M, None)
  x = _bart_stack(w, "decoder", heads, token_L, memory)
  return x @ w["model.shared.weight"].T + w["final_logits_bias"][0]


def _bart_stack(w, side, heads, token_L, memory):
  table, own = w["model.shared.weight"], under(w, f"model.{side}.")
  places = own["embed_positions.weight"][2 : 2 + len(token_L)]
  x = norm(own, "layernorm_embedding", table[token_L] + places)
  for n in range(2):
    layer = under(own, f"layers.{n}.")

    def read(name, x, source, bias=0, layer=layer):
      q = linear(layer, f"{name}.q_proj", x)
      k, v = (linear(layer, f"{name}.{part}_proj", source) for part in "kv")
      update = linear(layer, f"{name}.out_proj", attend(q, k, v, heads, bias))
      return norm(layer, f"{name}_layer_norm", x + update)

    x = read("self_attn", x, x, 0 if memory is None else future(len(x)))
    if memory is not None:
      x = read("encoder_attn", x, memory)
    update = linear(layer, "fc2", gelu(linear(layer, "fc1", x)))
    x = norm(layer, "final_layer_norm", x + update)
  return x
