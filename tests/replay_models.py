"""Recorded models: their attention in our words, and the rest of their layers.

Each follows its model's paper and released code; `ORIGIN.md` beside the recordings
says which versions. Weights have the names that they have there.
"""

import functools

import jax
import jax.numpy as jnp
from replay import Recorded, Replay, cross_entropy, layer_norm, linear, rms_norm, under
from replay_t5 import T5


class Gemma2(Recorded):
  """Four norms with a gain of 1 + weight; logits are capped."""

  def embed(self, weights, token_BL):
    return super().embed(weights, token_BL) * self.D**0.5

  def layer(self, w, x, attend):
    norm = lambda name, x: rms_norm(x, 1 + w[f"{name}.weight"])
    x = x + norm("post_attention_layernorm", attend(norm("input_layernorm", x)))
    inner = norm("pre_feedforward_layernorm", x)
    update = self.feedforward(under(w, "mlp."), inner)
    return x + norm("post_feedforward_layernorm", update)

  def feedforward(self, w, x):
    gate = jax.nn.gelu(linear(w, "gate_proj", x), approximate=True)
    return linear(w, "down_proj", gate * linear(w, "up_proj", x))

  def final_norm(self, weights, x):
    return rms_norm(x, 1 + weights["model.norm.weight"])

  def logits(self, weights, x):
    return 2 * jnp.tanh(linear(weights, "model.embed_tokens", x) / 2)


class GptOss(Recorded):
  """Two of four experts for each token."""

  def projections(self, w):
    return super().projections(w) | {"sink_H": w["self_attn.sinks"]}

  def feedforward(self, w, x):
    chosen, expert = jax.lax.top_k(linear(w, "router", x), 2)
    share_BLCE = jax.nn.softmax(chosen)[..., None] * jax.nn.one_hot(expert, 4)
    share_BLE = jnp.sum(share_BLCE, axis=-2)
    e = under(w, "experts.")
    inner = jnp.einsum("BLD,EDF->BLEF", x, e["gate_up_proj"]) + e["gate_up_proj_bias"]
    gate, up = jnp.minimum(inner[..., ::2], 7), jnp.clip(inner[..., 1::2], -7, 7)
    inner = (up + 1) * gate * jax.nn.sigmoid(1.702 * gate)
    out = jnp.einsum("BLEF,EFD->BLED", inner, e["down_proj"]) + e["down_proj_bias"]
    return jnp.einsum("BLED,BLE->BLD", out, share_BLE)


class DiffLlama(Recorded):
  """Heads p and p + 2 are a pair there, and 2p and 2p + 1 here."""

  def projections(self, w):
    order_H = jnp.array([0, 2, 1, 3])
    heads = super().projections(w)
    first = {name: heads[name][:, order_H] for name in ("query_DHK", "key_DHK")}
    value_DGE = heads["value_DHK"][:, order_H].reshape(self.D, 2, -1)
    ours = {"q1": "first_query", "k1": "first_key", "q2": "second_query"}
    ours |= {"k2": "second_key"}
    vectors = {f"{ours[n]}_K": w[f"self_attn.lambda_{n}"] for n in ours}
    rest = {"out_HKD": heads["out_HKD"], "value_DGE": value_DGE}
    return first | vectors | rest


class DeepSeekV2(Recorded):
  """Matrices that ours has one by one are parts of larger ones there."""

  def projections(self, w):
    w, K, C = under(w, "self_attn."), self.K, 16
    heads = lambda n: w[n].T.reshape(w[n].shape[1], self.H, -1)
    query_QHK, memory_CHK = heads("q_b_proj.weight"), heads("kv_b_proj.weight")
    down_DC = w["kv_a_proj_with_mqa.weight"].T
    return {
      "query_down_DQ": w["q_a_proj.weight"].T,
      "query_gain_Q": w["q_a_layernorm.weight"],
      "query_QHK": query_QHK[..., :K],
      "query_part_QHP": query_QHK[..., K:],
      "latent_DC": down_DC[:, :C],
      "key_part_DP": down_DC[:, C:],
      "latent_gain_C": w["kv_a_layernorm.weight"],
      "key_CHK": memory_CHK[..., :K],
      "value_CHE": memory_CHK[..., K:],
      "out_HED": w["o_proj.weight"].T.reshape(self.H, -1, self.D),
    }


class Falcon(Recorded):
  """Attention and feed-forward layer side by side, after one norm or a norm each."""

  layers = "transformer.h.{}."
  head = "transformer.word_embeddings"

  def embed(self, weights, token_BL):
    return weights[f"{self.head}.weight"][token_BL]

  def projections(self, w):
    """Each group's rows are its queries, its key and its value."""
    fused, groups = under(w, "self_attention.query_key_value."), self.groups(w)
    split = lambda x: x.reshape(groups, -1, self.K, *x.shape[1:])
    flat = lambda x: x.reshape(-1, *x.shape[3:])
    cut = lambda part: {n: flat(split(x)[:, part]) for n, x in fused.items()}
    w = {"out": under(w, "self_attention.dense.")}
    parts = dict(query=slice(-2), key=slice(-2, -1), value=slice(-1, None))
    return self.heads(w | {name: cut(part) for name, part in parts.items()})

  def groups(self, w):
    rows = w["self_attention.query_key_value.weight"].shape[0] // self.K
    return (rows - self.H) // 2

  def layer(self, w, x, attend):
    both = "input_layernorm" if "input_layernorm.weight" in w else None
    update = attend(layer_norm(w, both or "ln_attn", x))
    inner = layer_norm(w, both or "ln_mlp", x)
    return x + update + self.feedforward(under(w, "mlp."), inner)

  def feedforward(self, w, x):
    inner = jax.nn.gelu(linear(w, "dense_h_to_4h", x), approximate=False)
    return linear(w, "dense_4h_to_h", inner)

  def final_norm(self, weights, x):
    return layer_norm(weights, "transformer.ln_f", x)


class Bloom(Falcon):
  """A norm after the embedding; rows of each head are query, key and value."""

  recorded_sum = True

  def embed(self, weights, token_BL):
    x = super().embed(weights, token_BL)
    return layer_norm(weights, "transformer.word_embeddings_layernorm", x)

  def layer(self, w, x, attend):
    x = x + attend(layer_norm(w, "input_layernorm", x))
    inner = layer_norm(w, "post_attention_layernorm", x)
    return x + self.feedforward(under(w, "mlp."), inner)

  def feedforward(self, w, x):
    inner = jax.nn.gelu(linear(w, "dense_h_to_4h", x), approximate=True)
    return linear(w, "dense_4h_to_h", inner)


class GptNeo(Falcon):
  """Learned positions; only the output of attention has a bias."""

  head = "transformer.wte"

  def shared(self, weights):
    return {"table_LD": weights["transformer.wpe.weight"]}

  def projections(self, w):
    names = dict(query="q_proj", key="k_proj", value="v_proj", out="out_proj")
    w = {n: under(w, f"attn.attention.{m}.") for n, m in names.items()}
    none = {"bias": jnp.zeros(self.D)}
    return self.heads({n: none | part for n, part in w.items()})

  def layer(self, w, x, attend):
    x = x + attend(layer_norm(w, "ln_1", x))
    inner = linear(w, "mlp.c_fc", layer_norm(w, "ln_2", x))
    return x + linear(w, "mlp.c_proj", jax.nn.gelu(inner, approximate=True))


class TalkingEncoder(Recorded):
  """Scaled sinusoids, norms with a gain of 1 + gamma, heads that mix each other."""

  layers = "attn_layers.layers.{}."

  def layer_weights(self, weights, n):
    """Attention and feed-forward layer have numbers of their own."""
    parts = {"attention": 2 * n, "feedforward": 2 * n + 1}
    return {
      f"{part}.{name}": w
      for part, number in parts.items()
      for name, w in under(weights, self.layers.format(number)).items()
    }

  def embed(self, weights, token_BL):
    return weights["token_emb.emb.weight"][token_BL]

  def place(self, weights, x_BLD, at, position):
    waves_BLD = position.embed(jnp.zeros_like(x_BLD), at)
    return x_BLD + weights["pos_emb.scale"] * waves_BLD

  def projections(self, w):
    w = under(w, "attention.1.")
    names = dict(query="to_q", key="to_k", value="to_v", out="to_out")
    mix = lambda when: w[f"attend.{when}_softmax_talking_heads.weight"][..., 0, 0].T
    heads = self.heads({n: under(w, f"{m}.") for n, m in names.items()})
    scores = jnp.eye(self.H) + mix("pre")
    return heads | {"mix_scores_HN": scores, "mix_weights_HN": mix("post")}

  def norm(self, gamma, x):
    gain = {"norm.weight": 1 + gamma, "norm.bias": jnp.zeros_like(gamma)}
    return layer_norm(gain, "norm", x)

  def layer(self, w, x, attend):
    x = x + attend(self.norm(w["attention.0.0.gamma"], x))
    inner = self.norm(w["feedforward.0.0.gamma"], x)
    inner, gate = jnp.split(linear(w, "feedforward.1.ff.0.proj", inner), 2, axis=-1)
    return x + linear(w, "feedforward.1.ff.2", inner * jax.nn.silu(gate))

  def final_norm(self, weights, x):
    return self.norm(weights["attn_layers.final_norm.gamma"], x)

  def logits(self, weights, x):
    return linear(weights, "token_emb.emb", x) * self.D**-0.5

  def loss(self, logits_BLV, there):
    return cross_entropy(logits_BLV, there["input_ids"], there["attention_mask"])


class GatedFox(TalkingEncoder):
  """A decoder with forget gates, gates of values and norms of queries and keys."""

  def place(self, weights, x_BLD, at, position):
    return x_BLD

  def projections(self, w):
    w = under(w, "attention.1.")
    names = dict(query="to_q", key="to_k", value="to_v", out="to_out")
    heads = self.heads({n: under(w, f"{m}.") for n, m in names.items()})
    gains = {f"{n}_gain_HK": w[f"{n[0]}_rmsnorm.gamma"][:, 0] for n in ("query", "key")}
    forget = under(w, "data_dependent_alibi.to_forget_gates.0.")
    gate_DHE = w["to_v_gate.weight"].T.reshape(self.D, self.H, self.K)
    position = {"forget_DH": forget["weight"].T, "forget_shift_H": forget["bias"]}
    return heads | gains | {"gate_DHE": gate_DHE, "position": position}

  def layer(self, w, x, attend):
    x = x + attend(self.norm(w["attention.0.0.gamma"], x))
    inner = self.norm(w["feedforward.0.0.gamma"], x)
    inner = jax.nn.gelu(linear(w, "feedforward.1.ff.0.0", inner), approximate=False)
    return x + linear(w, "feedforward.1.ff.2", inner)

  def logits(self, weights, x):
    return linear(weights, "to_logits", x)

  def loss(self, logits_BLV, there):
    counts_BL = there["attention_mask"][:, 1:]
    return cross_entropy(logits_BLV[:, :-1], there["input_ids"][:, 1:], counts_BL)


HF, XT = "transformers/whole_", "x_transformers/whole_"
TURNS = "alternate(window(6), multihead)"
YARN = "rope_yarn(factor=4, original=16, truncate=False)"
RECORDED = {
  f"{HF}llama": Recorded("gqa(2)", D=40),
  f"{HF}mistral": Recorded("gqa(2) + window(6)"),
  f"{HF}gemma2": Gemma2(f"gqa(2) + scale(0, {12**-0.5}) + softcap(5) + {TURNS}"),
  f"{HF}gpt_oss": GptOss(f"gqa(2, bias=True) + sinks + {TURNS}", YARN, epsilon=1e-5),
  f"{HF}diffllama": DiffLlama("differential", K=8, epsilon=1e-5),
  f"{HF}deepseek_v2_mla": DeepSeekV2(
    "mla(latent=16, part=8, queries=12, value=12)", "rope(interleaved=True)", K=8
  ),
  f"{HF}falcon_mqa": Falcon("mqa", K=8),
  f"{HF}falcon_gqa_new": Falcon("gqa(2, bias=True)", K=8),
  f"{HF}bloom": Bloom("multihead(bias=True)", "alibi", K=8),
  f"{HF}gpt_neo_local": GptNeo(
    "multihead(bias=True) + scale(0) + alternate(multihead, window(6))",
    "learned(48)",
    K=8,
  ),
  f"{XT}encoder_sinusoidal_talking": TalkingEncoder(
    "talking_heads", "sinusoidal(interleaved=False)", D=24, H=3, K=8, both_ways=True
  ),
  f"{XT}decoder_fox_gated": GatedFox(
    "gated + qk_norm(per_head=True, offset=1, epsilon=1e-12)",
    "forgetting",
    D=24,
    H=3,
    K=8,
  ),
}
# Each takes a core.
MODELS = {n: functools.partial(Replay, model) for n, model in RECORDED.items()}
MODELS[f"{HF}t5_v10"] = T5
