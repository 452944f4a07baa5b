"""Recorded models written as models of another family that compute the same."""

import numpy as np
from replay import under


def as_qwen2(config, weights):
  """Llama with biases of zero is Qwen 2."""
  rows = {f"{n}_proj": 64 if n == "q" else 32 for n in "qkv"}
  biases = {
    f"model.layers.{n}.self_attn.{part}.bias": np.zeros(size, np.float32)
    for n in range(2)
    for part, size in rows.items()
  }
  return config | {"model_type": "qwen2"}, weights | biases


def as_gptj(config, weights):
  """Falcon with one key for all heads is GPT-J with that key in each head.

  A pair of features that turn is halves there and neighbours here.
  """
  pairs = np.arange(8).reshape(2, 4).T.ravel()  # 0 4 1 5 ...
  table = weights["transformer.word_embeddings.weight"]
  ours = {"transformer.wte.weight": table, "lm_head.weight": table}
  ours["lm_head.bias"] = np.zeros(97, np.float32)
  ours |= {n: w for n, w in weights.items() if "ln_f" in n}
  for n in range(2):
    w, to = under(weights, f"transformer.h.{n}."), f"transformer.h.{n}."
    rows = w["self_attention.query_key_value.weight"].reshape(6, 8, 32)
    for part, of in zip("qkv", ([0, 1, 2, 3], [4] * 4, [5] * 4), strict=True):
      turned = rows[of] if part == "v" else rows[of][:, pairs]
      ours[f"{to}attn.{part}_proj.weight"] = turned.reshape(32, 32)
    ours[f"{to}attn.out_proj.weight"] = w["self_attention.dense.weight"]
    for name, part in (("fc_in", "dense_h_to_4h"), ("fc_out", "dense_4h_to_h")):
      ours[f"{to}mlp.{name}.weight"] = matrix = w[f"mlp.{part}.weight"]
      ours[f"{to}mlp.{name}.bias"] = np.zeros(len(matrix), np.float32)
    for kind in ("weight", "bias"):
      ours[f"{to}ln_1.{kind}"] = w[f"input_layernorm.{kind}"]
  words = dict(model_type="gptj", vocab_size=97, n_embd=32, n_head=4, n_layer=2)
  return words | dict(n_positions=48, rotary_dim=8, activation_function="gelu"), ours


def as_distilbert(config, weights):
  """RoBERTa with its one type in the table of positions, and no unused rows there."""
  ours, to = {}, "distilbert.transformer.layer."
  parts = {
    "attention.self.query": "attention.q_lin",
    "attention.self.key": "attention.k_lin",
  }
  parts |= {"attention.self.value": "attention.v_lin", "output.dense": "ffn.lin2"}
  parts |= {"attention.output.dense": "attention.out_lin"}
  parts |= {"attention.output.LayerNorm": "sa_layer_norm"}
  parts |= {"intermediate.dense": "ffn.lin1", "output.LayerNorm": "output_layer_norm"}
  for name, w in under(weights, "roberta.encoder.layer.").items():
    number, _, rest = name.partition(".")
    part, _, kind = rest.rpartition(".")
    ours[f"{to}{number}.{parts[part]}.{kind}"] = w
  body = under(weights, "roberta.embeddings.")
  table = body["position_embeddings.weight"][2:] + body["token_type_embeddings.weight"]
  body = {n: w for n, w in body.items() if "LayerNorm" in n or "word" in n}
  ours |= {f"distilbert.embeddings.{n}": w for n, w in body.items()}
  ours["distilbert.embeddings.position_embeddings.weight"] = table
  heads = {"dense": "vocab_transform", "layer_norm": "vocab_layer_norm"}
  for theirs, name in heads.items():
    for kind in ("weight", "bias"):
      ours[f"{name}.{kind}"] = weights[f"lm_head.{theirs}.{kind}"]
  ours["vocab_projector.bias"] = weights["lm_head.bias"]
  words = dict(vocab_size=97, dim=32, n_heads=4, n_layers=2, hidden_dim=48)
  words |= dict(max_position_embeddings=38, layer_norm_eps=1e-5, activation="gelu")
  architectures = ["DistilBertForMaskedLM"]
  return words | dict(model_type="distilbert", architectures=architectures), ours
