"""Records small random models of Hugging Face Transformers: classes and configs.

  python third_party/transformers/fuzz.py FOLDER [FAMILY ...]

Of other families, what FOLDER holds stays.

Needs transformers 5.23.0, for families from nanochat on 5.24.0, and PyTorch 2.13.0,
which this project does not. It writes

  forms.json, forms.npz     every class that is read here, as `save_pretrained` writes
                            it, and older forms that `from_pretrained` reads
  fuzz.json, fuzz.npz       random configs of each family
  defaults.json             the config of each family with nothing given

No weights are kept: `fill` makes them from their names, and so does the test.
"""

import copy
import dataclasses
import json
import pathlib
import random
import sys
import tempfile
import zlib

import hybrids
import numpy as np
import torch
import transformers
from safetensors import safe_open

TOKENS, LENGTH, PER_FAMILY = 17, 7, 14
TEXT = dict(vocab_size=TOKENS, bos_token_id=1, eos_token_id=2, pad_token_id=0)
BERT = TEXT | dict(
  hidden_size=16, intermediate_size=20, num_hidden_layers=2, num_attention_heads=2,
  max_position_embeddings=12,
)  # fmt: skip
MODERN = BERT | dict(
  num_hidden_layers=4, local_attention=4, cls_token_id=1, sep_token_id=2
)
PLAIN_SIZES = {word: n for word, n in BERT.items() if word != "intermediate_size"}
LLAMA = BERT | dict(num_key_value_heads=1, max_position_embeddings=16)
T5 = TEXT | dict(
  d_model=16, d_kv=8, d_ff=20, num_layers=2, num_heads=2, decoder_start_token_id=0
)
BART = TEXT | dict(
  d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
  decoder_attention_heads=2, encoder_ffn_dim=20, decoder_ffn_dim=20,
  max_position_embeddings=12, decoder_start_token_id=2,
)  # fmt: skip
GPT = TEXT | dict(n_embd=16, n_layer=2, n_head=2, n_positions=12)
MPT = TEXT | dict(d_model=16, n_heads=2, n_layers=2, max_seq_len=12)
BIASES = dict(attention_bias=[False, True], tie_word_embeddings=[False, True])
GATES = dict(hidden_act=["silu", "gelu", "gelu_pytorch_tanh", "gelu_new", "relu"])
PLAIN = ["gelu", "relu", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "silu", "tanh"]
ROPES = [
  {"rope_type": "default", "rope_theta": 500.0},
  {"rope_type": "linear", "factor": 4.0, "rope_theta": 100.0},
  {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 100.0},
  {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "rope_theta": 100.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 8,
  },
  *(
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4,
     "rope_theta": 100.0} | more
    for more in (
      {}, {"attention_factor": 0.7}, {"mscale": 0.7, "mscale_all_dim": 0.4},
      {"mscale": 0.7}, {"mscale_all_dim": 1.0}, {"beta_fast": 2.0, "beta_slow": 0.5},
      {"truncate": False},
    )
  ),
]  # fmt: skip
SHAPES = dict(
  num_key_value_heads=[1, 2, 4], head_dim=[4, 6, 8, None], num_attention_heads=[4],
  rope_parameters=ROPES, rms_norm_eps=[1e-6, 0.1], num_hidden_layers=[1, 2, 3],
)  # fmt: skip
ENCODER = dict(
  hidden_act=PLAIN, layer_norm_eps=[1e-12, 0.1], type_vocab_size=[1, 2, 3],
  num_hidden_layers=[1, 2, 3], num_attention_heads=[1, 2, 4], pad_token_id=[0, 1, 3],
)  # fmt: skip
MOE = dict(
  moe_intermediate_size=8, n_routed_experts=4, n_group=2, topk_group=1,
  num_experts_per_tok=2,
)  # fmt: skip
AXES_2VL = [
  {"rope_type": kind, "rope_theta": 100.0, "mrope_section": [2, 1, 1]}
  for kind in ("default", "mrope", "linear")
]
AXES_3VL = [
  {"rope_type": "default", "rope_theta": 100.0, "mrope_section": list(counts),
   "mrope_interleaved": True}
  for counts in ((2, 1, 1), (1, 2, 1), (24, 20, 20))
]  # fmt: skip
AXES = dict(num_attention_heads=2, rope_parameters=AXES_2VL[0])
# Of each family: its config class, the class of its models, what all configs say, and
# the values that a random one chooses from.
FAMILIES = {
  "bert": ("Bert", "ForMaskedLM", BERT, ENCODER),
  "roberta": ("Roberta", "ForMaskedLM", BERT, ENCODER),
  "xlm-roberta": ("XLMRoberta", "ForMaskedLM", BERT, ENCODER),
  "distilbert": ("DistilBert", "ForMaskedLM", TEXT | dict(
    dim=16, n_layers=2, n_heads=2, hidden_dim=20, max_position_embeddings=12,
  ), dict(activation=PLAIN, n_heads=[1, 2, 4], sinusoidal_pos_embds=[True, False])),
  "deberta-v2": ("DebertaV2", "ForMaskedLM", BERT | dict(
    relative_attention=True, position_biased_input=False, share_att_key=True,
    pos_att_type=["p2c", "c2p"], norm_rel_ebd="layer_norm",
  ), ENCODER | dict(
    layer_norm_eps=[1e-7], position_buckets=[-1, 4], max_relative_positions=[-1, 5, 12],
    norm_rel_ebd=["layer_norm", "none"], pos_att_type=["p2c|c2p", "C2P|P2C", "c2p"],
    share_att_key=[True, False], attention_head_size=[8], legacy=[True, False],
    relative_attention=[True, False], position_biased_input=[False, True],
  )),
  "modernbert": ("ModernBert", "ForMaskedLM", MODERN, dict(
    num_hidden_layers=[1, 2, 3, 4, 7], num_attention_heads=[1, 2, 4],
    local_attention=[1, 4, 5, 128], global_attn_every_n_layers=[1, 2, 3, 4],
    layer_types=[
      ["full_attention", "sliding_attention"] * 2,
      ["sliding_attention"] * 3 + ["full_attention"], ["sliding_attention"] * 4,
      ["full_attention"] * 2 + ["sliding_attention"] * 2,
    ],
    rope_parameters=[None, *(
      {"full_attention": words, "sliding_attention": {
        "rope_type": "default", "rope_theta": 50.0,
      }} for words in ROPES[:5]
    )],
    rope_scaling=[{"rope_type": "linear", "factor": 4.0}],
    global_rope_theta=[500.0], local_rope_theta=[50.0],
    hidden_activation=["gelu", "silu", "gelu_new", "relu"], norm_eps=[1e-5, 0.1],
    norm_bias=[False, True], attention_bias=[False, True], mlp_bias=[False, True],
    decoder_bias=[True, False], classifier_bias=[False, True],
    classifier_activation=PLAIN, tie_word_embeddings=[True, False],
    sparse_prediction=[False, True],
  )),
  "bart": ("Bart", "ForConditionalGeneration", BART, dict(
    activation_function=PLAIN, scale_embedding=[True, False], encoder_layers=[1, 2],
    decoder_layers=[1, 2], decoder_attention_heads=[2, 4], decoder_ffn_dim=[20, 12],
    normalize_before=[False, True],
  )),
  "marian": ("Marian", "MTModel", BART, dict(
    activation_function=PLAIN, scale_embedding=[True, False], encoder_layers=[1, 2],
    decoder_layers=[1, 2], decoder_attention_heads=[2, 4],
    tie_word_embeddings=[True, False], share_encoder_decoder_embeddings=[True, False],
  )),
  "t5": ("T5", "ForConditionalGeneration", T5, dict(
    feed_forward_proj=["relu", "gated-gelu", "gated-silu", "gelu", "gated-relu"],
    tie_word_embeddings=[True, False], num_decoder_layers=[None, 1, 3],
    relative_attention_num_buckets=[4, 32], relative_attention_max_distance=[5, 128],
    scale_decoder_outputs=[True, False], layer_norm_epsilon=[1e-6, 0.1], d_kv=[4, 8],
    dense_act_fn=["relu", "gelu_new"],
  )),
  "mt5": ("MT5", "ForConditionalGeneration", T5, dict(
    feed_forward_proj=["relu", "gated-gelu"], tie_word_embeddings=[True, False],
    num_decoder_layers=[None, 1, 3],
  )),
  "gpt2": ("GPT2", "LMHeadModel", GPT, dict(
    activation_function=PLAIN, n_inner=[None, 12], layer_norm_epsilon=[1e-5, 0.1],
    scale_attn_weights=[True, False], scale_attn_by_inverse_layer_idx=[True, False],
    tie_word_embeddings=[True, False], reorder_and_upcast_attn=[True, False],
    n_head=[1, 2, 4],
  )),
  "gpt_neo": ("GPTNeo", "ForCausalLM", TEXT | dict(
    hidden_size=16, num_layers=2, num_heads=2, max_position_embeddings=12,
    attention_types=[[["global", "local"], 1]],
  ), dict(
    activation_function=PLAIN, window_size=[2, 3, 256], intermediate_size=[None, 12],
    attention_types=[[[["global", "local"], 1]], [[["local"], 2]], [[["global"], 2]]],
  )),
  "gptj": ("GPTJ", "ForCausalLM", GPT | dict(rotary_dim=4), dict(
    activation_function=PLAIN, n_inner=[None, 12], rotary_dim=[2, 4, 8],
    tie_word_embeddings=[False, True], rope_theta=[100.0],
    layer_norm_epsilon=[1e-5, 0.1],
  )),
  "gpt_neox": ("GPTNeoX", "ForCausalLM", BERT, dict(
    hidden_act=PLAIN, rotary_pct=[0.25, 0.5, 1.0], rotary_emb_base=[100, 10000],
    rope_parameters=[None, *ROPES[:5]], use_parallel_residual=[True, False],
    attention_bias=[True, False], tie_word_embeddings=[True, False],
    layer_norm_eps=[1e-5, 0.1],
  )),
  "bloom": ("Bloom", "ForCausalLM", TEXT | dict(
    hidden_size=16, n_layer=2, n_head=2,
  ), dict(
    n_head=[1, 2, 4], apply_residual_connection_post_layernorm=[False, True],
    layer_norm_epsilon=[1e-5, 0.1], tie_word_embeddings=[True, False],
  )),
  "falcon": ("Falcon", "ForCausalLM", PLAIN_SIZES, dict(
    alibi=[False, False, True], new_decoder_architecture=[False, True],
    multi_query=[True, False], parallel_attn=[True, False], bias=[False, True],
    num_kv_heads=[None, 1, 2], num_ln_in_parallel_attn=[None, 1, 2],
    num_attention_heads=[2, 4], ffn_hidden_size=[None, 12], rope_parameters=ROPES,
    activation=PLAIN,
  )),
  "mpt": ("Mpt", "ForCausalLM", MPT, dict(
      n_heads=[1, 2, 4], no_bias=[True, False], expansion_ratio=[4, 2],
      logit_scale=[None, 0.5], layer_norm_epsilon=[1e-5, 0.1],
      attn_config=[{}, {"clip_qkv": 0.5}, {"softmax_scale": 0.3}, {"qk_ln": True},
                   {"alibi": False}, {"alibi_bias_max": 4}, {"prefix_lm": True}],
    )),
  "opt": ("OPT", "ForCausalLM", PLAIN_SIZES | dict(
    ffn_dim=20, word_embed_proj_dim=16,
  ), dict(
    activation_function=PLAIN, do_layer_norm_before=[True, False],
    enable_bias=[True, False], layer_norm_elementwise_affine=[True, False],
    word_embed_proj_dim=[16, 8], tie_word_embeddings=[True, False],
    _remove_final_layer_norm=[False, True],
  )),
  "llama": ("Llama", "ForCausalLM", LLAMA, SHAPES | BIASES | GATES | dict(
    mlp_bias=[False, True], partial_rotary_factor=[None, 1.0, 0.5],
  )),
  "mistral": ("Mistral", "ForCausalLM", LLAMA, SHAPES | BIASES | GATES | dict(
    sliding_window=[None, 3, 4096],
  )),
  "qwen2": ("Qwen2", "ForCausalLM", LLAMA, SHAPES | BIASES | GATES | dict(
    use_sliding_window=[False, True], sliding_window=[3], max_window_layers=[0, 1, 28],
  )),
  "qwen3": ("Qwen3", "ForCausalLM", LLAMA, SHAPES | BIASES | GATES | dict(
    use_sliding_window=[False, True], sliding_window=[3], head_dim=[4, 8],
  )),
  "olmo": ("Olmo", "ForCausalLM", LLAMA, SHAPES | BIASES | GATES | dict(
    clip_qkv=[None, 0.5], rms_norm_eps=[0.1],
  )),
  "olmo2": ("Olmo2", "ForCausalLM", LLAMA, SHAPES | BIASES | GATES),
  "smollm3": ("SmolLM3", "ForCausalLM", LLAMA, SHAPES | BIASES | GATES | dict(
    mlp_bias=[False, True], no_rope_layers=[None, [1, 0, 1], [0, 1, 1], [0, 0, 0]],
    no_rope_layer_interval=[2, 3, 4], use_sliding_window=[False, True],
    sliding_window=[3], rope_parameters=[None, *ROPES],
  )),
  "cohere": ("Cohere", "ForCausalLM", LLAMA, {
    word: x for word, x in (SHAPES | BIASES | GATES).items() if word != "rms_norm_eps"
  } | dict(
    layer_norm_eps=[1e-5, 0.1], logit_scale=[0.0625, 2.0], use_qk_norm=[False, True],
    rope_parameters=[None, *ROPES],
  )),
  "phi3": ("Phi3", "ForCausalLM", LLAMA | dict(
    original_max_position_embeddings=4,
  ), dict(
    num_key_value_heads=[1, 2], num_hidden_layers=[1, 2, 3], rms_norm_eps=[1e-5, 0.1],
    hidden_act=GATES["hidden_act"], tie_word_embeddings=[False, True],
    sliding_window=[None, 3], original_max_position_embeddings=[4, 6, 12, 16],
    rope_parameters=[None, *(
      {"rope_type": kind, "short_factor": [1.0, 1.1, 1.2, 1.5][:pairs],
       "long_factor": [1.0, 2.0, 4.0, 9.0][:pairs], "rope_theta": 100.0,
       "partial_rotary_factor": pairs / 4} | more
      for kind in ("longrope", "su") for pairs in (2, 4)
      for more in ({}, {"attention_factor": 1.3}, {"factor": 3.0})
    )],
  )),
  "deepseek_v3": ("DeepseekV3", "ForCausalLM", BERT | MOE | dict(
    kv_lora_rank=10, q_lora_rank=6, qk_rope_head_dim=4, v_head_dim=6,
    qk_nope_head_dim=8, num_key_value_heads=2, first_k_dense_replace=1,
  ), dict(
    q_lora_rank=[None, 8], rope_parameters=[None, *ROPES], hidden_act=["silu", "gelu"],
    rope_interleave=[True, False], qk_rope_head_dim=[2, 8], rms_norm_eps=[1e-6, 0.1],
    num_hidden_layers=[1, 2, 3], tie_word_embeddings=[False, True],
    first_k_dense_replace=[3, 1, 0], n_routed_experts=[4, 8], n_group=[1, 2],
    topk_group=[1, 2], num_experts_per_tok=[1, 2], norm_topk_prob=[True, False],
    routed_scaling_factor=[1.0, 2.5], n_shared_experts=[1, 2],
  )),
  "gemma3_text": ("Gemma3Text", "ForCausalLM", LLAMA | dict(
    head_dim=8, sliding_window=3,
  ), dict(
    head_dim=[4, 8], attention_bias=[False, True], rms_norm_eps=[1e-6, 0.1],
    hidden_activation=["gelu_pytorch_tanh", "silu"], query_pre_attn_scalar=[8, 100],
    sliding_window=[2, 3], final_logit_softcapping=[None, 2.0],
    attn_logit_softcapping=[None, 2.0], use_bidirectional_attention=[False, True],
    num_hidden_layers=[2, 3, 7], sliding_window_pattern=[1, 2, 3, 6],
    layer_types=[None, ["full_attention", "sliding_attention"] * 2],
    rope_parameters=[None, *(
      {"full_attention": words, "sliding_attention": {
        "rope_type": "default", "rope_theta": 50.0,
      }} for words in ROPES[:5]
    )],
  )),
  "gemma2": ("Gemma2", "ForCausalLM", LLAMA | dict(head_dim=8), SHAPES | dict(
    head_dim=[4, 8], attention_bias=[False, True], hidden_act=["relu"],
    hidden_activation=["gelu_pytorch_tanh", "silu"], query_pre_attn_scalar=[8, 100],
    sliding_window=[2, 3], final_logit_softcapping=[None, 2.0],
    attn_logit_softcapping=[None, 2.0], use_bidirectional_attention=[None, True],
    layer_types=[None, ["full_attention", "sliding_attention"]], num_hidden_layers=[2],
  )),
  "nanochat": ("NanoChat", "ForCausalLM", LLAMA, SHAPES | BIASES | dict(
    hidden_act=["relu2", "relu", "silu"], final_logit_softcapping=[15.0, None, 2.0],
    rope_parameters=[None, *ROPES],
  )),
  "deepseek_v32": ("DeepseekV32", "ForCausalLM", BERT | MOE | dict(
    kv_lora_rank=10, q_lora_rank=6, qk_rope_head_dim=4, v_head_dim=6,
    qk_nope_head_dim=8, num_key_value_heads=2, first_k_dense_replace=1, index_topk=3,
    index_head_dim=6, index_n_heads=16,  # with few, many scores tie at zero
  ), dict(
    q_lora_rank=[8], rope_parameters=[None, ROPES[0], ROPES[1]],
    hidden_act=["silu", "gelu"], num_hidden_layers=[1, 2, 3],
    first_k_dense_replace=[3, 1, 0], index_topk=[1, 2, 9],
    index_head_dim=[4, 8], index_n_heads=[12, 24], n_routed_experts=[4, 8],
    rms_norm_eps=[1e-6, 0.1], attention_bias=[False, True], n_shared_experts=[1, 2],
    mlp_layer_types=[["sparse", "dense"], ["sparse", "sparse"]],
  )),
  "llama4_text": ("Llama4Text", "ForCausalLM", LLAMA | dict(
    head_dim=8, intermediate_size_mlp=12, num_local_experts=4, attention_chunk_size=4,
    floor_scale=2, num_hidden_layers=4,
  ), dict(
    num_key_value_heads=[1, 2], rms_norm_eps=[1e-5, 0.1], head_dim=[4, 8, 16],
    num_local_experts=[2, 4], num_experts_per_tok=[1, 2],
    moe_layers=[None, [1], [0, 3]],
    interleave_moe_layer_step=[1, 2, 3], use_qk_norm=[True, False], floor_scale=[1, 3],
    no_rope_layers=[None, [1, 0, 1, 0], [0, 1, 1, 1]], no_rope_layer_interval=[2, 4],
    attention_chunk_size=[2, 3, None], attn_temperature_tuning=[True, False],
    attn_scale=[0.1, 1.0], attention_bias=[False, True], hidden_act=["silu", "gelu"],
    rope_parameters=[None, *ROPES[:4]], tie_word_embeddings=[False, True],
  )),
  "qwen2_vl_text": ("Qwen2VLText", "Model", LLAMA | AXES, GATES | dict(
    num_key_value_heads=[1, 2, 4], num_attention_heads=[2, 4], rms_norm_eps=[0.1],
    rope_parameters=[None, *AXES_2VL], use_sliding_window=[False, True],
    num_hidden_layers=[1, 2, 3], sliding_window=[3], max_window_layers=[0, 28],
  )),
  "qwen3_vl_text": ("Qwen3VLText", "Model", LLAMA | dict(head_dim=8), GATES | dict(
    num_key_value_heads=[1, 2, 4], num_attention_heads=[2, 4], rms_norm_eps=[0.1],
    head_dim=[4, 8, 16], attention_bias=[False, True], num_hidden_layers=[1, 2, 3],
    rope_parameters=[None, *AXES_3VL],
  )),
}  # fmt: skip
FAMILIES |= hybrids.FAMILIES
ENCODERS = ["ForMaskedLM", "ForSequenceClassification", "ForTokenClassification"]
ENCODERS += ["ForQuestionAnswering", "Model"]
BERTS = ["bert", "roberta", "xlm-roberta", "distilbert", "deberta-v2", "modernbert"]
WRITERS = ["ForSequenceClassification", "Model"]
OTHERS = {
  **dict.fromkeys(BERTS, ENCODERS),
  "bart": ["Model"], "marian": ["Model"], "t5": ["Model", "EncoderModel"],
  "mt5": ["Model", "EncoderModel"], "cohere": ["Model"],
  "nanochat": ["Model"], "llama4_text": ["Model"], "deepseek_v32": ["Model"],
  "qwen2_vl_text": [], "qwen3_vl_text": [],
  **hybrids.CLASSES,
}  # fmt: skip
VIT = dict(
  hidden_size=16, intermediate_size=20, num_hidden_layers=2, num_attention_heads=2,
  image_size=8, patch_size=4, num_channels=3,
)  # fmt: skip


def main(folder, *kinds):
  """Records the families, or all, into a folder."""
  folder = pathlib.Path(folder)
  kinds = kinds or (*FAMILIES, "vit")
  torch.set_num_threads(1)
  transformers.logging.set_verbosity_error()
  write(folder, "forms", dict(forms(kinds)))
  write(folder, "fuzz", dict(fuzz(kinds)))
  classes = {kind: FAMILIES[kind][0] if kind != "vit" else "ViT" for kind in kinds}
  defaults = {n: said(getattr(transformers, f"{x}Config")) for n, x in classes.items()}
  (folder / "defaults.json").write_text(
    dump(there(folder / "defaults.json") | defaults)
  )


def there(path):
  """Returns what a file holds, if there is one."""
  return json.loads(path.read_text()) if path.exists() else {}


def said(config):
  """Returns the words of a config class, each with its default."""
  words = {field.name: field.default for field in dataclasses.fields(config)}
  words |= {"model_type": config.model_type}
  plain = (str, int, float, bool, type(None), list)
  return {word: x for word, x in words.items() if isinstance(x, plain)}


def write(folder, name, cases):
  """Writes cases: what is said in JSON, the logits in a file of arrays."""
  logits = {case: found.pop("logits") for case, found in cases.items()}
  if (folder / f"{name}.npz").exists():
    with np.load(folder / f"{name}.npz") as file:
      logits = dict(file) | logits
  np.savez_compressed(folder / f"{name}.npz", **logits)
  (folder / f"{name}.json").write_text(dump(there(folder / f"{name}.json") | cases))
  print(name, len(cases))


def dump(x):
  lines = (f" {json.dumps(n)}: {json.dumps(v, sort_keys=True)}" for n, v in x.items())
  return "{\n" + ",\n".join(lines) + "\n}\n"


# Other classes and older forms: the name of a config class, an ending, and a config.
STACKS = BART | dict(decoder_attention_heads=4, decoder_ffn_dim=12, decoder_layers=1)
IMAGES, TEXTS = "ForImageClassification", "ForSequenceClassification"
MORE = {
  f"vit/{IMAGES}": ("ViT", IMAGES, VIT | dict(num_labels=3)),
  "vit/Model": ("ViT", "Model", VIT | dict(num_labels=3)),
  f"vit/rectangle/{IMAGES}": (
    "ViT", IMAGES, VIT | dict(image_size=[8, 12], num_labels=3),
  ),
  "mpt/expansion_ratio": ("Mpt", "ForCausalLM", MPT | dict(expansion_ratio=2)),
  f"modernbert/mean/{TEXTS}": ("ModernBert", TEXTS, MODERN | dict(
    classifier_pooling="mean", num_labels=3, norm_bias=True, classifier_bias=True,
    mlp_bias=True, attention_bias=True,
  )),
  "bart/stacks": ("Bart", "ForConditionalGeneration", STACKS),
  "marian/stacks": ("Marian", "MTModel", STACKS),
  "t5/v1.1": ("T5", "ForConditionalGeneration", T5 | dict(
    feed_forward_proj="gated-gelu", tie_word_embeddings=False, num_decoder_layers=3,
  )),
}  # fmt: skip


def forms(kinds):
  """Yields each class of some families as it is saved, and older forms."""
  for kind in kinds:
    name, ending, config, _ = FAMILIES.get(kind, ("", "", {}, {}))
    for each in dict.fromkeys([ending, *OTHERS.get(kind, WRITERS)] if name else ()):
      extra = {"num_labels": 3} if "Classification" in each else {}
      yield f"{kind}/{each}", run(name, each, config | extra)
    for case, words in MORE.items():
      if case.startswith(f"{kind}/"):
        yield case, run(*words)


def fuzz(kinds):
  """Yields random configs that Hugging Face's own code runs."""
  for kind in filter(FAMILIES.get, kinds):
    name, ending, config, choices = FAMILIES[kind]
    rng, count = random.Random(kind), 0
    for _ in range(4 * PER_FAMILY):
      some = rng.sample(sorted(choices), rng.randint(1, min(5, len(choices))))
      words = {word: copy.deepcopy(rng.choice(choices[word])) for word in some}
      try:
        found = run(name, ending, config | words)
      except Exception as error:
        print(kind, words, f"{type(error).__name__}: {error}"[:90])
        continue
      if kind not in hybrids.SAVED:
        found.pop("tensors")
      yield f"{kind}/{count}", found
      count += 1
      if count == PER_FAMILY:
        break


def run(name, ending, words):
  """Returns the config that a model writes, its tensors, and its logits or states."""
  config = getattr(transformers, f"{name}Config")(**copy.deepcopy(words))
  short = name.removesuffix("Text") + ending
  model = getattr(transformers, name + ending, getattr(transformers, short, None))
  torch.manual_seed(0)
  with tempfile.TemporaryDirectory() as folder:
    model._from_config(config, attn_implementation="eager").save_pretrained(folder)
    folder = pathlib.Path(folder)
    with safe_open(folder / "model.safetensors", "np") as file:
      # Tables of sinusoids are left out: they are made anew.
      names = [n for n in file.keys() if name != "Marian" or "embed_pos" not in n]
      tensors = {n: list(file.get_slice(n).get_shape()) for n in names}
    saved = json.loads((folder / "config.json").read_text())
    arrays = {n: torch.tensor(fill(n, s)) for n, s in tensors.items()}
    from safetensors.torch import save_file

    save_file(arrays, folder / "model.safetensors", metadata={"format": "pt"})
    model = model.from_pretrained(folder, attn_implementation="eager").eval()
    model = model.double() if name in hybrids.DOUBLE else model
    logits = outputs(model).astype(np.float32)
    return {"config": saved, "tensors": tensors, "logits": logits}


def fill(name, shape):
  """Returns the weights of a name, the same on every machine and in every version."""
  rng = np.random.RandomState(zlib.crc32(name.encode()))
  if len(shape) == 1 and name.endswith("weight"):
    return rng.uniform(0.5, 1.5, shape).astype(np.float32)
  if "bias" in name and "relative" not in name:
    return (0.3 * rng.standard_normal(shape)).astype(np.float32)
  wide = 0.7 if len(shape) < 2 or shape[0] <= TOKENS else 1.3 * shape[-1] ** -0.5
  return (wide * rng.standard_normal(shape)).astype(np.float32)


@torch.no_grad()
def outputs(model):
  """Returns logits or, of models without an output, the last states."""
  if "pixel_values" in str(model.main_input_name):
    size = model.config.image_size
    shape = (2, 3, *(size if isinstance(size, (list, tuple)) else (size, size)))
    x = np.random.RandomState(1).standard_normal(shape).astype(np.float32)
    found = model(torch.tensor(x))
  else:
    ids = np.random.RandomState(1).randint(4, TOKENS, (2, LENGTH))
    both = dict(decoder_input_ids=torch.tensor(ids[::-1].copy()))
    seq = model.config.is_encoder_decoder and "Encoder" not in type(model).__name__
    found = model(input_ids=torch.tensor(ids), **(both if seq else {}))
  if "start_logits" in found:
    return np.stack([found.start_logits, found.end_logits], -1)
  return found["logits" if "logits" in found else "last_hidden_state"].numpy()


if __name__ == "__main__":
  main(*sys.argv[1:])
