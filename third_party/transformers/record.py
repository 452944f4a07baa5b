"""Records small random models of Hugging Face Transformers as whole_<case>.npz.

  python third_party/transformers/record.py FOLDER [CASE ...]

Other cases that FOLDER holds stay.

Needs transformers 5.23.0 and PyTorch 2.13.0, which this project does not: run it in an
environment of their own. What each model's config.json would say goes to
FOLDER/configs.json. Each case is checked before it is written: against its own run in
float64, for greedy tokens that no noise could change, and for the details that `misses`
names, without which logits must move.
"""

import json
import pathlib
import sys

import numpy as np
import torch
import transformers

SIZES = dict(
  vocab_size=97, hidden_size=32, intermediate_size=40, num_hidden_layers=2,
  num_attention_heads=4, max_position_embeddings=48, bos_token_id=1, eos_token_id=2,
  pad_token_id=0,
)  # fmt: skip
GROUPED = SIZES | dict(
  num_key_value_heads=2, rope_parameters={"rope_type": "default", "rope_theta": 500.0}
)
GPT = dict(vocab_size=97, bos_token_id=1, eos_token_id=2, pad_token_id=0)
QK_NORMS = [f"model.layers.0.self_attn.{part}_norm.weight" for part in "qk"]
# Of each case: the model, its config, some weights whose gradients are kept, and what
# the config would say without a detail that must be seen.
CASES = {
  "qwen2": (
    "Qwen2ForCausalLM", GROUPED | dict(tie_word_embeddings=True),
    ["model.layers.0.self_attn.k_proj.bias", "model.layers.1.self_attn.q_proj.weight"],
    dict(rope_parameters={"rope_type": "default", "rope_theta": 10_000.0}),
  ),
  "qwen3": (
    "Qwen3ForCausalLM", GROUPED | dict(head_dim=12),
    QK_NORMS,
    dict(rms_norm_eps=0.5),
  ),
  "olmo": (
    "OlmoForCausalLM", GROUPED | dict(clip_qkv=1.5),
    ["model.layers.0.self_attn.v_proj.weight"],
    dict(clip_qkv=None),
  ),
  "olmo2": (
    "Olmo2ForCausalLM", GROUPED | dict(rms_norm_eps=1e-5),
    QK_NORMS,
    dict(rms_norm_eps=0.5),
  ),
  "gptj": (
    "GPTJForCausalLM",
    GPT | dict(n_embd=32, n_head=4, n_layer=2, n_positions=48, rotary_dim=4),
    ["transformer.h.0.attn.q_proj.weight", "lm_head.bias"], dict(rotary_dim=8),
  ),
  "mpt": (
    "MptForCausalLM",
    GPT | dict(
      d_model=32, n_heads=4, n_layers=2, max_seq_len=48,
      attn_config={"clip_qkv": 1.5},
    ),
    ["transformer.blocks.0.norm_1.weight"], dict(attn_config={"clip_qkv": None}),
  ),
  "smollm3": (
    "SmolLM3ForCausalLM", GROUPED | dict(no_rope_layer_interval=2),
    ["model.layers.1.self_attn.k_proj.weight"],
    dict(no_rope_layers=[1, 1]),
  ),
  "cohere": (
    "CohereForCausalLM", GROUPED | dict(logit_scale=0.5, use_qk_norm=True),
    QK_NORMS,
    dict(use_qk_norm=False),
  ),
  "gpt2_by_layer": (
    "GPT2LMHeadModel",
    GPT | dict(
      n_embd=32, n_head=4, n_layer=2, n_positions=48,
      scale_attn_by_inverse_layer_idx=True,
    ),
    ["transformer.h.1.attn.c_attn.weight"],
    dict(scale_attn_by_inverse_layer_idx=False),
  ),
  "gemma3": (
    "Gemma3ForCausalLM", GROUPED | dict(
      head_dim=12, sliding_window=6, sliding_window_pattern=2, query_pre_attn_scalar=20,
      final_logit_softcapping=20.0, rope_parameters={
        "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 500.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
      },
    ),
    QK_NORMS,
    dict(query_pre_attn_scalar=12),
  ),
  "phi3": (
    "Phi3ForCausalLM", GROUPED | dict(
      original_max_position_embeddings=4, rope_parameters={
        "rope_type": "longrope", "rope_theta": 500.0, "attention_factor": 1.1,
        "partial_rotary_factor": 0.75,
        "short_factor": [1.0, 1.1, 1.2], "long_factor": [1.0, 2.0, 9.0],
      },
    ),
    ["model.layers.0.self_attn.qkv_proj.weight",
     "model.layers.1.mlp.gate_up_proj.weight"],
    dict(rope_parameters={"rope_type": "default", "partial_rotary_factor": 0.75}),
  ),
  "deepseek_v3": (
    "DeepseekV3ForCausalLM", SIZES | dict(
      kv_lora_rank=16, q_lora_rank=12, qk_rope_head_dim=8, v_head_dim=12,
      qk_nope_head_dim=8, num_key_value_heads=4, first_k_dense_replace=2,
      rope_parameters={
        "rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0, "mscale": 0.7,
        "mscale_all_dim": 1.5, "original_max_position_embeddings": 12,
      },
    ),
    ["model.layers.0.self_attn.kv_b_proj.weight",
     "model.layers.1.self_attn.kv_a_proj_with_mqa.weight"],
    dict(rope_parameters={
      "rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0,
      "original_max_position_embeddings": 12,
    }),
  ),
  "deepseek_v3_experts": (
    "DeepseekV3ForCausalLM", SIZES | dict(
      kv_lora_rank=16, q_lora_rank=12, qk_rope_head_dim=8, v_head_dim=12,
      qk_nope_head_dim=8, num_key_value_heads=4, first_k_dense_replace=1,
      num_hidden_layers=3, moe_intermediate_size=12, n_routed_experts=8, n_group=4,
      topk_group=2, num_experts_per_tok=3, n_shared_experts=2,
    ),
    ["model.layers.1.mlp.gate.weight", "model.layers.2.mlp.experts.gate_up_proj",
     "model.layers.2.mlp.experts.down_proj"],
    dict(topk_group=4),
  ),
  "deepseek_v32_yarn": (
    "DeepseekV32ForCausalLM", SIZES | dict(
      kv_lora_rank=16, q_lora_rank=12, qk_rope_head_dim=8, v_head_dim=12, n_group=1,
      qk_nope_head_dim=8, num_key_value_heads=4, first_k_dense_replace=2, topk_group=1,
      index_topk=4, index_head_dim=12, index_n_heads=12, n_routed_experts=2,
      num_experts_per_tok=1, rope_parameters={
        "rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0, "mscale": 0.7,
        "mscale_all_dim": 1.5, "original_max_position_embeddings": 12,
      },
    ),
    ["model.layers.0.self_attn.kv_b_proj.weight",
     "model.layers.1.self_attn.q_a_proj.weight"],
    dict(rope_parameters={
      "rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0,
      "original_max_position_embeddings": 12,
    }),
  ),
  "bart": (
    "BartForConditionalGeneration",
    dict(
      vocab_size=97, d_model=32, encoder_layers=2, decoder_layers=2,
      encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=24,
      decoder_ffn_dim=24, max_position_embeddings=24, scale_embedding=True,
    ),
    ["model.decoder.layers.0.encoder_attn.q_proj.weight",
     "model.encoder.embed_positions.weight"], dict(scale_embedding=False),
  ),
  "marian_stacks": (
    "MarianMTModel",
    dict(
      vocab_size=97, d_model=32, encoder_layers=2, decoder_layers=1,
      encoder_attention_heads=4, decoder_attention_heads=2, encoder_ffn_dim=24,
      decoder_ffn_dim=40, max_position_embeddings=24, pad_token_id=0, eos_token_id=1,
      decoder_start_token_id=2, forced_eos_token_id=None,
    ),
    ["model.decoder.layers.0.encoder_attn.q_proj.weight",
     "model.decoder.layers.0.self_attn.k_proj.weight"],
    dict(decoder_attention_heads=4),
  ),
  "modernbert": (
    "ModernBertForMaskedLM",
    SIZES | dict(
      num_hidden_layers=4, local_attention=14, cls_token_id=1, sep_token_id=2,
      rope_parameters={
        "full_attention": {"rope_type": "default", "rope_theta": 500.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
      },
    ),
    ["model.layers.0.attn.Wqkv.weight", "model.layers.1.attn_norm.weight",
     "model.layers.2.mlp.Wi.weight", "head.dense.weight"],
    dict(local_attention=10),
  ),
  "distilbert": (
    "DistilBertForMaskedLM",
    dict(
      vocab_size=97, dim=32, n_layers=2, n_heads=4, hidden_dim=48, pad_token_id=0,
      max_position_embeddings=48,
    ),
    ["distilbert.embeddings.position_embeddings.weight"], dict(activation="relu"),
  ),
}  # fmt: skip
# Words of a config that say nothing of what is computed.
SILENT = ("transformers_version", "dtype", "use_cache", "id2label", "label2id")
SILENT += ("return_dict", "output_hidden_states", "problem_type", "output_attentions")
SILENT += ("chunk_size_feed_forward", "is_encoder_decoder", "initializer_range")
STEPS = 12
# Of the model's, without a gradient.
BUFFERS = "final_logits_bias", "e_score_correction_bias"


def main(folder, *cases):
  """Records the cases, or all."""
  folder = pathlib.Path(folder)
  path = folder / "configs.json"
  configs = json.loads(path.read_text()) if path.exists() else {}
  for case in cases or CASES:
    configs[case], arrays = record(case)
    np.savez_compressed(folder / f"whole_{case}.npz", **arrays)
  path.write_text(json.dumps(configs, indent=1, sort_keys=True))


def record(case):
  """Returns what config.json would say, and all arrays of a case."""
  kind, config, kept, misses = CASES[case]
  model = build(kind, config)
  rng = np.random.default_rng(sum(map(ord, case)))
  fill(model, rng)
  there = inputs(kind, rng)
  there |= outputs(model, there, kept)
  told = from_source if "decoder_input_ids" in there else after_prompts
  there |= {} if "MaskedLM" in kind else told(model, there, rng)
  check(case, model, there, build(kind, config | misses))
  # Tables of sinusoids are not trained and are made anew.
  names = [n for n, x in model.named_parameters() if x.requires_grad]
  names += [n for n, _ in model.named_buffers() if n.endswith(BUFFERS)]
  state = model.state_dict()
  weights = {f"weights/{name}": state[name].numpy() for name in names}
  return words(model), {n: plain(x) for n, x in (there | weights).items()}


def build(kind, config):
  """Returns a model of random numbers that does not drop."""
  cls = getattr(transformers, kind)
  told = cls.config_class(**config)
  for word in vars(told):
    if "drop" in word and isinstance(getattr(told, word), float):
      setattr(told, word, 0.0)
  torch.manual_seed(0)
  told._experts_implementation = "eager"  # others have no float64
  return cls._from_config(told, attn_implementation="eager").eval()


def fill(model, rng):
  """Gives weights large random numbers, so that each detail moves logits."""
  arrays = {n: x for n, x in model.named_parameters() if x.requires_grad} | {
    n: x for n, x in model.named_buffers() if n.endswith(BUFFERS)
  }
  for name, x in arrays.items():
    normal = rng.normal(size=x.shape)
    if x.ndim == 1 and name.endswith("weight"):
      new = rng.uniform(0.5, 1.5, x.shape)
    elif "bias" in name:
      new = 0.3 * normal
    elif x.shape[0] in (97, 48, 24 + 2):
      new = 0.6 * normal
    else:
      new = 1.3 * normal / x.shape[-1] ** 0.5
    x.data = torch.tensor(new, dtype=torch.float32)
  model.tie_weights()


def inputs(kind, rng):
  """Returns two texts, the second of them padded, and labels."""
  token = lambda *shape: torch.tensor(rng.integers(3, 97, shape))
  mask = lambda *lengths: (
    torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
  ).long()
  real = mask(21, 15)
  there = {"input_ids": token(2, 21) * real, "attention_mask": real}
  if "Conditional" in kind or "MTModel" in kind:
    read = mask(17, 12)
    there |= {"decoder_input_ids": token(2, 17) * read, "decoder_mask": read}
    labels, real = token(2, 17), read
  else:
    labels = there["input_ids"].clone()
  if "MaskedLM" in kind:
    real = real * torch.tensor(rng.random((2, 21)) < 0.4)
    labels = token(2, 21)
  return there | {"labels": torch.where(real > 0, labels, -100)}


def outputs(model, there, kept):
  """Returns logits, the loss and gradients."""
  given = {n: x for n, x in there.items() if n != "decoder_mask"}
  found = model(**given)
  found.loss.backward()
  named = model.named_parameters()  # an indexer has no gradients
  gradients = {n: x.grad for n, x in named if x.grad is not None}
  real = there.get("decoder_mask", there["attention_mask"])
  return {
    "logits": found.logits * real[..., None],
    "loss": found.loss,
    **{f"grad/{name}": gradients[name] for name in kept},
    **{f"grad_norm/{name}": x.norm() for name, x in gradients.items()},
  }


def after_prompts(model, there, rng):
  """Returns what a decoder writes after two prompts, each read without padding."""
  lengths, longest = (9, 6), 9
  prompts = [torch.tensor(rng.integers(3, 97, (1, n))) for n in lengths]
  runs = [write(lambda x: model(input_ids=x).logits, prompt) for prompt in prompts]
  pad = lambda x: torch.nn.functional.pad(x[0], (longest - x.shape[1], 0))
  return {
    "prompt_ids": torch.stack([pad(x) for x in prompts]),
    "prompt_mask": torch.stack([pad(torch.ones_like(x)) for x in prompts]),
    "greedy_tokens": torch.stack([tokens for tokens, _ in runs]),
    "greedy_logits": torch.stack([logits for _, logits in runs]),
  }


def from_source(model, there, rng):
  """Returns what an encoder-decoder writes, each source read without padding."""
  runs = []
  for row, real in zip(there["input_ids"], there["attention_mask"], strict=True):
    source = row[None, : int(real.sum())]
    read = lambda x, source=source: model(input_ids=source, decoder_input_ids=x).logits
    first = torch.full((1, 1), model.config.decoder_start_token_id)
    runs.append(write(read, first))
  return {
    "greedy_tokens": torch.stack([tokens for tokens, _ in runs]),
    "greedy_logits": torch.stack([logits for _, logits in runs]),
  }


@torch.no_grad()
def write(read, token_1L):
  """Returns greedy tokens and the logits that chose each; nothing is cached."""
  chosen = []
  for _ in range(STEPS):
    chosen.append(read(token_1L)[0, -1])
    token_1L = torch.cat([token_1L, chosen[-1].argmax()[None, None]], dim=1)
  return token_1L[0, -STEPS:], torch.stack(chosen)


@torch.no_grad()
def check(case, model, there, other):
  """Prints how sure the numbers are, and stops if they are not."""
  read = ("input_ids", "attention_mask", "decoder_input_ids")
  given = {name: there[name] for name in read if name in there}
  real = there.get("decoder_mask", there["attention_mask"])[..., None]
  # The weights of a norm that it leaves out are read by nothing.
  assert not other.load_state_dict(model.state_dict(), strict=False).missing_keys
  detail = (other(**given).logits * real - there["logits"]).abs().max()
  if "Causal" in type(model).__name__:
    # Padding comes after the text; where windows hold nothing else, float64 is NaN.
    given.pop("attention_mask")
  noise = (model.double()(**given).logits * real - there["logits"]).abs().max()
  model.float()
  best = there.get("greedy_logits", torch.tensor([1.0, 0.0])).topk(2).values
  margin = (best[..., 0] - best[..., 1]).min()
  largest = there["logits"].abs().max()
  print(f"{case}: noise {noise:.1e} of {largest:.1f}, {detail=:.2f}, {margin=:.3f}")
  assert noise < 2e-6 * largest and detail > 0.3 and margin > 0.004


def words(model):
  """Returns what config.json would say of what is computed."""
  return said(model.config.to_dict() | {"architectures": [type(model).__name__]})


def said(told):
  """Returns words that say something, those under other words included."""
  told = {n: said(x) if isinstance(x, dict) else x for n, x in told.items()}
  return {n: x for n, x in told.items() if x not in (None, "", {}) and n not in SILENT}


def plain(x):
  """Returns an array of float32 or int32."""
  x = x.detach().numpy() if isinstance(x, torch.Tensor) else x
  return x.astype(np.float32 if x.dtype.kind == "f" else np.int32)


if __name__ == "__main__":
  main(*sys.argv[1:])
